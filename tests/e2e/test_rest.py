"""At rest the operator writes nothing: no object moves, however often it looks."""

import re

import pytest

from tests.e2e import release, timeouts
from tests.e2e.kube import TEST_LABEL, Kube, Object
from tests.e2e.server import Server, eventually

KINDS = (
    "MLflowServer",
    "Deployment",
    "StatefulSet",
    "Service",
    "ConfigMap",
    "Secret",
    "PersistentVolumeClaim",
    "Job",
)


def numbers(kube: Kube) -> dict[str, float]:
    """The operator's metrics, by name and labels."""
    (pod,) = release.pods(kube)
    path = f"/api/v1/namespaces/{release.NAMESPACE}/pods/{pod['metadata']['name']}:8080/proxy/metrics"
    lines = kube.kubectl("get", "--raw", path).splitlines()
    found = (re.fullmatch(r"(mlflow_operator_\S+) ([\d.e+-]+)", line) for line in lines)
    return {match[1]: float(match[2]) for match in found if match}


def versions(kube: Kube) -> dict[tuple[str, str], str]:
    """The resourceVersion of every object a server is made of."""
    objects: list[tuple[str, Object]] = [(kind, obj) for kind in KINDS for obj in kube.list(kind)]
    return {(kind, obj["metadata"]["name"]): obj["metadata"]["resourceVersion"] for kind, obj in objects}


def reconciles(found: dict[str, float]) -> float:
    """How many there have been, however they ended."""
    return sum(value for name, value in found.items() if name.startswith("mlflow_operator_reconciles_total"))


def others(kube: Kube) -> list[str]:
    """Namespaces of earlier tests that are still on their way out: there the operator may have work to do."""
    leaving = "--field-selector=status.phase=Terminating"
    return kube.kubectl("get", "namespaces", "-l", TEST_LABEL, leaving, "-o", "name").split()


@pytest.mark.alone
def test_looking_again_changes_nothing(shared: Server) -> None:
    """A whole resync later every object is the very same, events included; and the numbers say so, too."""
    kube = shared.kube
    eventually(f"{others(kube)} are cleared away", lambda: not others(kube), timeouts.GONE)
    servers = len(kube.kubectl("get", "mlflowservers", "-A", "-o", "name").split())
    before, then, told = versions(kube), numbers(kube), len(kube.list("Event"))
    enough = reconciles(then) + 2 * servers
    eventually("each was looked at twice", lambda: reconciles(numbers(kube)) >= enough, 2 * timeouts.NOTICED)
    assert versions(kube) == before
    assert len(kube.list("Event")) == told
    assert writes(numbers(kube)) == writes(then)


def writes(found: dict[str, float]) -> dict[str, float]:
    """What was written, but for the lease, by which operators know of each other."""
    name = "mlflow_operator_api_writes_total"
    return {key: value for key, value in found.items() if key.startswith(name) and "Lease" not in key}
