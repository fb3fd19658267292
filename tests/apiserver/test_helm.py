"""`helm install` of the charts."""

import subprocess

import pytest
import yaml

from mlflow_operator.kube import kinds
from mlflow_operator.kube.objects import Object
from tests.apiserver.client import Client
from tests.apiserver.control_plane import ControlPlane
from tests.apiserver.processes import find
from tests.generate import CHART, SERVER_CHART


def install(control_plane: ControlPlane, namespace: str, values: Object) -> subprocess.CompletedProcess[str]:
    """Install the release `tracking` without waiting until it is ready."""
    argv = [find("helm"), f"--kubeconfig={control_plane.kubeconfig}", f"--namespace={namespace}"]
    return subprocess.run(
        [*argv, "install", "tracking", str(SERVER_CHART), "-f", "-"],
        input=yaml.safe_dump(values),
        text=True,
        capture_output=True,
        check=False,
        timeout=60,
    )


def test_helm_shows_what_the_crd_rejects(control_plane: ControlPlane, admin: Client, namespace: str) -> None:
    """Helm prints the message of the API server for errors that the schema of the values does not detect."""
    external = {"host": "db", "credentialsSecretRef": {"name": "db"}}
    rejected = install(control_plane, namespace, {"database": {"embedded": {}, "external": external}})
    assert rejected.returncode
    assert "spec.database must set at most one of embedded, external" in rejected.stderr
    assert admin.get(kinds.MLFLOWSERVER, namespace, "tracking") is None


@pytest.mark.parametrize(
    "values",
    [{}, {"database": {"embedded": {"storage": {"size": "50Gi"}}}}],
    ids=["default values", "database size"],
)
def test_helm_installs_a_server(control_plane: ControlPlane, admin: Client, values: Object) -> None:
    """The MLflowServer of the release is stored, and the notes contain its name."""
    namespace = f"helm-{'sized' if values else 'default'}"
    admin.request("POST", "/api/v1/namespaces", {"metadata": {"name": namespace}})
    installed = install(control_plane, namespace, values)
    assert installed.returncode == 0, installed.stderr
    assert "mlflowserver/tracking" in installed.stdout
    stored = admin.need(kinds.MLFLOWSERVER, namespace, "tracking")
    assert stored["spec"].get("database") == values.get("database")


def test_helm_finds_the_api_of_the_admission_policy(control_plane: ControlPlane) -> None:
    """The chart skips the policy in a cluster without its API."""
    argv = [find("helm"), f"--kubeconfig={control_plane.kubeconfig}", "--namespace=default", "install"]
    options = ["--dry-run=server", "--set=crds.enabled=false", "--hide-notes"]
    printed = subprocess.run(
        [*argv, "policy", str(CHART), *options], text=True, capture_output=True, check=True, timeout=60
    )
    assert "kind: ValidatingAdmissionPolicy\n" in printed.stdout
