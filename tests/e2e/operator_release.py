"""The operator's Helm release on the test cluster: the checkout's chart, with the image built from the checkout."""

import json

from tests.cluster import operator_image
from tests.e2e.kube import Kube, Object

NAMESPACE = RELEASE = "mlflow-operator"
HELM_TIMEOUT = "120s"
LEASE_REQUEST_FAILED = "cannot read or write the lease"
LEASE_LOST = ("was not renewed within", "the lease has expired")


def install(kube: Kube, *values: str, namespace: str = NAMESPACE, release: str = RELEASE) -> None:
    """Run `helm upgrade --install` and wait until the operator is ready; `values` are arguments of `--set`."""
    repository, tag = operator_image.reference(kube.settings, kube.shell).rsplit(":", 1)
    values_to_set = (f"image.repository={repository}", f"image.tag={tag}", *values)
    flags = [part for value in values_to_set for part in ("--set", value)]
    if "crds.enabled=false" not in values:
        _adopt_crds(kube, namespace, release)
    kube.run(
        "helm", "upgrade", "--install", release, "charts/mlflow-operator",
        "--namespace", namespace, "--create-namespace", "--wait", "--timeout", HELM_TIMEOUT, *flags,
    )  # fmt: skip


def _adopt_crds(kube: Kube, namespace: str, release: str) -> None:
    """Let the release adopt CRDs that other tests applied without Helm, as the chart's error message tells users."""
    names = (f"meta.helm.sh/release-name={release}", f"meta.helm.sh/release-namespace={namespace}")
    for crd in ("mlflowservers.mlflow-operator.dev", "mlflowplatforms.mlflow-operator.dev"):
        if kube.kubectl("get", "crd", crd, "--ignore-not-found", "-o", "name"):
            kube.kubectl("annotate", "--overwrite", "crd", crd, *names)
            kube.kubectl("label", "--overwrite", "crd", crd, "app.kubernetes.io/managed-by=Helm")


def uninstall(kube: Kube, *, namespace: str, release: str) -> None:
    """Uninstall a release; the objects of its servers stay."""
    kube.run("helm", "uninstall", release, "--namespace", namespace, "--wait", "--timeout", HELM_TIMEOUT)


def pods(kube: Kube) -> list[Object]:
    """Return the operator's pods without those that are terminating."""
    labels = {"app.kubernetes.io/name": "mlflow-operator"}
    found = kube.in_namespace(NAMESPACE).list("Pod", labels)
    return [pod for pod in found if not pod["metadata"].get("deletionTimestamp")]


def error_lines(lines: list[str]) -> list[str]:
    """Return the log lines that report errors of the operator itself: tracebacks, and levels ERROR and CRITICAL."""
    return [line for line in lines if "Traceback" in line or _level(line) in {"ERROR", "CRITICAL"}]


def lease_losses(lines: list[str]) -> list[str]:
    """Return the log lines of operators that exited because they could not renew their Lease in time.

    Empty if no request for the Lease has failed: then the cause was not the API server.
    """
    if not any(LEASE_REQUEST_FAILED in line for line in lines):
        return []
    return [line for line in lines if any(text in line for text in LEASE_LOST)]


def _level(line: str) -> str:
    try:
        entry = json.loads(line)
    except ValueError:
        return ""
    return (
        str(entry.get("level") or entry.get("levelname") or entry.get("severity") or "").upper()
        if isinstance(entry, dict)
        else ""
    )
