"""Owned objects that other clients change or delete are restored. Objects of others are left alone."""

from collections.abc import Callable

import pytest

from mlflow_operator.kube import kinds
from mlflow_operator.kube.kinds import Kind
from mlflow_operator.kube.objects import Object
from tests.apiserver.client import Client
from tests.integration.operator import Operator
from tests.integration.server import Server, eventually


def container(deployment: Object) -> Object:
    """The server's container in its Deployment."""
    found: Object = deployment["spec"]["template"]["spec"]["containers"][0]
    return found


def variables(deployment: Object) -> dict[str, str]:
    """Environment of the server's container."""
    return {entry["name"]: str(entry.get("value")) for entry in container(deployment)["env"]}


def restored(server: Server, kind: Kind, name: str, right: Callable[[Object], bool]) -> None:
    """Wait until the object exists, is not being deleted, and is right."""

    def check() -> bool:
        found = server.get(kind, name)
        return found is not None and not found["metadata"].get("deletionTimestamp") and right(found)

    eventually(f"{kind.kind} {name} is restored", check)


def set_variable(server: Server, name: str, value: str) -> None:
    """Set an environment variable of the Deployment, as `kubectl set env` does."""
    deployment = server.need(kinds.DEPLOYMENT, server.names.deployment)
    containers = [{"name": container(deployment)["name"], "env": [{"name": name, "value": value}]}]
    server.client.request(
        "PATCH",
        kinds.DEPLOYMENT.path(server.namespace, server.names.deployment),
        {"spec": {"template": {"spec": {"containers": containers}}}},
        content_type="application/strategic-merge-patch+json",
    )


@pytest.fixture
def embedded(operator: Operator, admin: Client, namespace: str) -> Server:
    """A server whose embedded stores run. It does not become Ready: nothing answers in their pods."""
    return Server(admin, namespace).apply().stores_run()


def test_changed_objects_are_restored(server: Server) -> None:
    """A field that the operator sets, in each kind that people edit."""
    names = server.names
    set_variable(server, "MLFLOW_WORKERS", "7")
    restored(server, kinds.DEPLOYMENT, names.deployment, lambda d: variables(d)["MLFLOW_WORKERS"] == "1")
    server.merge(kinds.DEPLOYMENT, names.deployment, {"spec": {"replicas": 0}})
    restored(server, kinds.DEPLOYMENT, names.deployment, lambda d: d["spec"]["replicas"] == 1)
    selector = {"mlflow-operator.dev/server": "another"}
    server.merge(kinds.SERVICE, names.service, {"spec": {"selector": selector}})
    restored(
        server,
        kinds.SERVICE,
        names.service,
        lambda s: s["spec"]["selector"]["mlflow-operator.dev/server"] == server.name,
    )
    server.merge(kinds.CONFIGMAP, names.client, {"data": {"MLFLOW_TRACKING_URI": "http://other"}})
    restored(
        server,
        kinds.CONFIGMAP,
        names.client,
        lambda c: c["data"]["MLFLOW_TRACKING_URI"] == server.status["url"],
    )
    server.ready()


def test_changed_embedded_store_is_restored(embedded: Server) -> None:
    """A StatefulSet scaled to 0 would take the database away."""
    for name in (embedded.names.postgres, embedded.names.artifact_store):
        embedded.merge(kinds.STATEFULSET, name, {"spec": {"replicas": 0}})
        restored(embedded, kinds.STATEFULSET, name, lambda s: s["spec"]["replicas"] == 1)


def test_added_environment_variable_is_removed(server: Server) -> None:
    """Server-side apply alone would keep an entry that the operator never set."""
    name = server.names.deployment
    set_variable(server, "ADDED", "1")
    restored(server, kinds.DEPLOYMENT, name, lambda d: "ADDED" not in variables(d))
    server.ready()


def test_removed_label_is_restored(server: Server) -> None:
    """At once: the ownerReference names the server."""
    name = server.names.client
    labels = server.need(kinds.CONFIGMAP, name)["metadata"]["labels"]
    server.merge(kinds.CONFIGMAP, name, {"metadata": {"labels": {"mlflow-operator.dev/server": None}}})
    restored(server, kinds.CONFIGMAP, name, lambda c: c["metadata"]["labels"] == labels)


@pytest.mark.parametrize(
    ("kind", "of"),
    [
        (kinds.SERVICE, "service"),
        (kinds.CONFIGMAP, "client"),
        (kinds.CONFIGMAP, "plugin"),
        (kinds.SECRET, "server_secret"),
        (kinds.DEPLOYMENT, "deployment"),
    ],
    ids=lambda value: value if isinstance(value, str) else value.kind,
)
def test_deleted_object_is_recreated(server: Server, kind: Kind, of: str) -> None:
    """With another uid, and the server becomes Ready again."""
    _is_recreated(server, kind, getattr(server.names, of))
    server.ready()


@pytest.mark.parametrize("of", ["artifact_store", "postgres"])
def test_deleted_embedded_store_is_recreated_on_its_volume(embedded: Server, of: str) -> None:
    """Volume and credentials outlive the StatefulSet that uses them."""

    def data() -> dict[str, str]:
        found = [*embedded.objects(kinds.PVC), *embedded.objects(kinds.SECRET)]
        return {obj["metadata"]["name"]: obj["metadata"]["uid"] for obj in found}

    before = data()
    assert len(before) >= 4
    _is_recreated(embedded, kinds.STATEFULSET, getattr(embedded.names, of))
    embedded.stores_run()
    assert data() == before


def _is_recreated(server: Server, kind: Kind, name: str) -> None:
    old = server.need(kind, name)["metadata"]["uid"]
    server.client.delete(kind, server.namespace, name)
    restored(server, kind, name, lambda found: found["metadata"]["uid"] != old)


FOREIGN: dict[Kind, Callable[[str], Object]] = {
    kinds.SERVICE: lambda name: {
        "apiVersion": "v1",
        "kind": "Service",
        "metadata": {"name": name},
        "spec": {"selector": {"app": "theirs"}, "ports": [{"port": 80}]},
    },
    kinds.CONFIGMAP: lambda name: {
        "apiVersion": "v1",
        "kind": "ConfigMap",
        "metadata": {"name": name},
        "data": {"theirs": "yes"},
    },
    kinds.DEPLOYMENT: lambda name: {
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
"""Objects that somebody else created under a name that the operator needs."""


@pytest.mark.parametrize("kind", FOREIGN, ids=lambda kind: kind.kind)
def test_foreign_object_of_the_same_name_is_left_alone(
    operator: Operator, admin: Client, namespace: str, spec: Object, kind: Kind
) -> None:
    """Not a byte of it changes, the status names it, and the server becomes Ready once it is deleted."""
    server = Server(admin, namespace)
    names = {kinds.SERVICE: server.names.service, kinds.CONFIGMAP: server.names.client}
    name = names.get(kind, server.names.deployment)
    foreign = FOREIGN[kind](name)
    foreign["metadata"]["namespace"] = namespace
    before = admin.create(kind, foreign)
    server.apply(spec)
    condition = server.until("Ready", "False", "NameConflict")
    assert kind.kind in condition["message"]
    assert name in condition["message"]
    after = server.need(kind, name)
    for obj in (before, after):
        # The Deployment controller writes its status and its revision.
        obj.pop("status", None)
        for field in ("resourceVersion", "managedFields", "annotations", "generation"):
            obj["metadata"].pop(field, None)
    assert after == before

    admin.delete(kind, namespace, name)
    server.touch()
    server.ready()


def test_repeated_conflict_is_reported_and_then_left_alone(
    server: Server, operator: Operator, admin: Client
) -> None:
    """Another controller undoes every repair: the status names it, and the operator stops writing for a while."""
    name = server.names.deployment
    change = {
        "apiVersion": "apps/v1",
        "kind": "Deployment",
        "metadata": {"name": name, "namespace": server.namespace},
        "spec": {"replicas": 3},
    }

    def conflict() -> Object | None:
        admin.apply(kinds.DEPLOYMENT, change, fieldManager="autoscaler")
        found = server.conditions().get("ServerAvailable", {})
        return found if found.get("reason") == "ApplyConflict" else None

    condition = eventually("the conflict is reported", conflict)
    assert "autoscaler" in condition["message"]
    assert "spec.replicas" in condition["message"]
    left = server.need(kinds.DEPLOYMENT, name)
    assert left["spec"]["replicas"] == 3

    # A different desired state is worth another try.
    server.change(workers=2)
    restored(server, kinds.DEPLOYMENT, name, lambda d: d["spec"]["replicas"] == 1)
    server.ready()
