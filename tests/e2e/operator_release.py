"""The operator on the test cluster: installed by Helm from the checkout's chart, with the image built from it."""

import json

from tests.cluster import operator_image
from tests.e2e.kube import Kube, Object

NAMESPACE = RELEASE = "mlflow-operator"
WAIT = "120s"


def install(kube: Kube, *values: str, namespace: str = NAMESPACE, release: str = RELEASE) -> None:
    """`helm upgrade --install`, waiting until it runs; `values` are as for `--set`."""
    repository, tag = operator_image.reference(kube.settings, kube.shell).rsplit(":", 1)
    chosen = (f"image.repository={repository}", f"image.tag={tag}", *values)
    flags = [part for value in chosen for part in ("--set", value)]
    if "crds.install=false" not in values:
        _hand_over_definition(kube, namespace, release)
    kube.run(
        "helm", "upgrade", "--install", release, "charts/mlflow-operator",
        "--namespace", namespace, "--create-namespace", "--wait", "--timeout", WAIT, *flags,
    )  # fmt: skip


def _hand_over_definition(kube: Kube, namespace: str, release: str) -> None:
    """A definition that other tests applied without Helm becomes the release's, as the chart's refusal tells."""
    crd = "mlflowservers.mlflow-operator.dev"
    if not kube.kubectl("get", "crd", crd, "--ignore-not-found", "-o", "name"):
        return
    names = (f"meta.helm.sh/release-name={release}", f"meta.helm.sh/release-namespace={namespace}")
    kube.kubectl("annotate", "--overwrite", "crd", crd, *names)
    kube.kubectl("label", "--overwrite", "crd", crd, "app.kubernetes.io/managed-by=Helm")


def uninstall(kube: Kube, *, namespace: str, release: str) -> None:
    """Takes a release away, and nothing of what it made servers of."""
    kube.run("helm", "uninstall", release, "--namespace", namespace, "--wait", "--timeout", WAIT)


def pods(kube: Kube) -> list[Object]:
    """The operator's pods, those on their way out left out."""
    labels = {"app.kubernetes.io/name": "mlflow-operator"}
    found = kube.within(NAMESPACE).list("Pod", labels)
    return [pod for pod in found if not pod["metadata"].get("deletionTimestamp")]


def complaints(lines: list[str]) -> list[str]:
    """Lines that say something went wrong in the operator itself."""
    return [line for line in lines if "Traceback" in line or _level(line) in {"ERROR", "CRITICAL"}]


def _level(line: str) -> str:
    try:
        said = json.loads(line)
    except ValueError:
        return ""
    return (
        str(said.get("level") or said.get("levelname") or said.get("severity") or "").upper()
        if isinstance(said, dict)
        else ""
    )
