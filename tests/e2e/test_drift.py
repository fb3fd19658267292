"""Somebody edits, scales or deletes what the operator made: repaired. What it did not make it leaves alone."""

from collections.abc import Callable

import pytest

from tests.e2e import timeouts
from tests.e2e.kube import Kube, Object
from tests.e2e.scientist import Scientist
from tests.e2e.server import Server, eventually, small


def container(deployment: Object) -> Object:
    """The server's container in its Deployment."""
    found: Object = deployment["spec"]["template"]["spec"]["containers"][0]
    return found


def workers(deployment: Object) -> str:
    """How many workers the Deployment asks for."""
    return next(str(e["value"]) for e in container(deployment)["env"] if e["name"] == "MLFLOW_WORKERS")


def repaired(server: Server, kind: str, name: str, right: Callable[[Object], bool]) -> None:
    """Waits until the object is there and right."""

    def check() -> bool:
        found = server.kube.get(kind, name)
        return found is not None and not found["metadata"].get("deletionTimestamp") and right(found)

    eventually(f"{kind} {name} is repaired", check, timeouts.REPAIRED)


def test_edited_objects_are_repaired(shared: Server) -> None:
    """A value that the operator sets, in each kind that people edit."""
    kube, names = shared.kube, shared.names
    kube.kubectl("set", "env", f"deployment/{names.deployment}", "MLFLOW_WORKERS=7")
    repaired(shared, "Deployment", names.deployment, lambda d: workers(d) == "1")
    kube.kubectl("scale", f"deployment/{names.deployment}", "--replicas=0")
    repaired(shared, "Deployment", names.deployment, lambda d: d["spec"]["replicas"] == 1)
    kube.kubectl("scale", f"statefulset/{names.postgres}", "--replicas=0")
    repaired(shared, "StatefulSet", names.postgres, lambda d: d["spec"]["replicas"] == 1)
    kube.patch("Service", names.service, {"spec": {"selector": {"mlflow-operator.dev/server": "nobody"}}})
    repaired(
        shared,
        "Service",
        names.service,
        lambda s: s["spec"]["selector"]["mlflow-operator.dev/server"] == shared.name,
    )
    kube.patch("ConfigMap", names.client, {"data": {"MLFLOW_TRACKING_URI": "http://elsewhere"}})
    repaired(
        shared,
        "ConfigMap",
        names.client,
        lambda c: c["data"]["MLFLOW_TRACKING_URI"] == shared.status["url"],
    )
    shared.ready()


def test_what_is_added_by_hand_to_a_pod_is_taken_out_again(shared: Server) -> None:
    """A variable nobody asked for: server-side apply alone would leave it there for good."""
    name = shared.names.deployment
    shared.kube.kubectl("set", "env", f"deployment/{name}", "SURPRISE=1")
    repaired(shared, "Deployment", name, lambda d: "SURPRISE" not in {e["name"] for e in container(d)["env"]})
    shared.ready()


@pytest.mark.parametrize(
    ("kind", "of"),
    [
        ("Service", "service"),
        ("ConfigMap", "client"),
        ("ConfigMap", "plugin"),
        ("Secret", "server_secret"),
        ("Deployment", "deployment"),
        ("StatefulSet", "artifact_store"),
        ("StatefulSet", "postgres"),
    ],
)
def test_deleted_objects_come_back(shared: Server, kind: str, of: str) -> None:
    """Under another uid, and the server with them."""
    name = getattr(shared.names, of)
    old = shared.kube.need(kind, name)["metadata"]["uid"]
    shared.kube.delete(kind, name)
    repaired(shared, kind, name, lambda found: found["metadata"]["uid"] != old)
    shared.ready()


def test_work_is_still_there_after_all_of_it(shared: Server) -> None:
    """Volumes and credentials outlive the StatefulSets that use them."""
    scientist = Scientist(shared.url)
    work = scientist.work("drift")
    stores = ("database", "artifact-store")
    for of in ("postgres", "artifact_store"):
        shared.kube.delete("StatefulSet", getattr(shared.names, of))
        repaired(shared, "StatefulSet", getattr(shared.names, of), lambda s: bool(s["metadata"]["uid"]))
    eventually("both stores run again", lambda: all(map(shared.pods, stores)), timeouts.ROLLED)
    shared.ready()
    scientist.finds(work)


@pytest.mark.parametrize("kind", ["Service", "ConfigMap", "Deployment"])
def test_a_foreign_object_of_the_same_name_is_left_alone(ns: Kube, kind: str) -> None:
    """Not a byte of it changes, the status names it, and all goes on once it is out of the way."""
    server = Server(ns)
    foreign = {"Service": server.names.service, "ConfigMap": server.names.client}.get(
        kind, server.names.deployment
    )
    ns.apply(FOREIGN[kind](foreign))
    before = ns.need(kind, foreign)
    server.apply(small())
    told = server.until("Ready", "False", "NameConflict", within=timeouts.READY)
    assert kind in told["message"]
    assert foreign in told["message"]
    after = ns.need(kind, foreign)
    assert after["spec" if "spec" in after else "data"] == before["spec" if "spec" in before else "data"]
    assert after["metadata"]["uid"] == before["metadata"]["uid"]
    assert "mlflow-operator.dev/server" not in (after["metadata"].get("labels") or {})

    ns.delete(kind, foreign)
    server.ready()


FOREIGN: dict[str, Callable[[str], Object]] = {
    "Service": lambda name: {
        "apiVersion": "v1",
        "kind": "Service",
        "metadata": {"name": name},
        "spec": {"selector": {"app": "theirs"}, "ports": [{"port": 80}]},
    },
    "ConfigMap": lambda name: {
        "apiVersion": "v1",
        "kind": "ConfigMap",
        "metadata": {"name": name},
        "data": {"theirs": "yes"},
    },
    "Deployment": lambda name: {
        "apiVersion": "apps/v1",
        "kind": "Deployment",
        "metadata": {"name": name},
        "spec": {
            "replicas": 0,
            "selector": {"matchLabels": {"app": "theirs"}},
            "template": {
                "metadata": {"labels": {"app": "theirs"}},
                "spec": {"containers": [{"name": "theirs", "image": "theirs:1"}]},
            },
        },
    },
}
