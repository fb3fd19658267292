"""At rest the operator writes nothing: no object moves, however often it looks."""

import re

from tests.e2e import release, timeouts
from tests.e2e.kube import Kube, Object
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


def test_looking_again_changes_nothing(shared: Server) -> None:
    """A whole resync later every object is the very same, events included; and the numbers say so, too."""
    kube = shared.kube
    before, then, told = versions(kube), numbers(kube), len(kube.list("Event"))
    # the resync of this server among them: no other has come or gone meanwhile
    eventually(
        "two more reconciles", lambda: reconciles(numbers(kube)) >= reconciles(then) + 2, 2 * timeouts.NOTICED
    )
    assert versions(kube) == before
    assert len(kube.list("Event")) == told
    now = numbers(kube)
    writes = {
        name for name in now if name.startswith("mlflow_operator_api_writes_total") and "Lease" not in name
    }
    assert {name: now[name] for name in writes if now[name] != then.get(name)} == {}
