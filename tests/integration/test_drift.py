"""Drift: owned objects that other clients change or delete are restored. Unmanaged objects are not changed."""

from collections.abc import Callable

import pytest

from mlflow_operator.kube import kinds
from mlflow_operator.kube.kinds import Kind
from mlflow_operator.kube.objects import Object
from tests.apiserver.client import Client
from tests.integration.operator import Operator
from tests.integration.server import Server
from tests.polling import TIMEOUT_SECONDS, eventually

CONFLICT_SECONDS = 180.0
"""Limit for the ten repairs after which a conflict is reported. Each is a write, an Event and a reconcile."""


def container(deployment: Object) -> Object:
    """Return the server's container in its Deployment."""
    first: Object = deployment["spec"]["template"]["spec"]["containers"][0]
    return first


def environment(deployment: Object) -> dict[str, str]:
    """Return the environment variables of the server's container."""
    return {entry["name"]: str(entry.get("value")) for entry in container(deployment)["env"]}


RESYNC_SECONDS = 90.0
"""Limit for the repair of a Secret, which the operator does not watch: one resync (60 s) and a margin."""


def wait_restored(
    server: Server,
    kind: Kind,
    name: str,
    is_expected: Callable[[Object], bool],
    seconds: float = TIMEOUT_SECONDS,
) -> None:
    """Wait until the object exists, is not being deleted, and is as expected."""

    def check() -> bool:
        found = server.get(kind, name)
        return found is not None and not found["metadata"].get("deletionTimestamp") and is_expected(found)

    eventually(f"{kind.kind} {name} is restored", check, seconds)


def set_variable(server: Server, name: str, value: str) -> None:
    """Set an environment variable of the Deployment, as `kubectl set env` does."""
    deployment = server.require(kinds.DEPLOYMENT, server.names.deployment)
    containers = [{"name": container(deployment)["name"], "env": [{"name": name, "value": value}]}]
    server.client.request(
        "PATCH",
        kinds.DEPLOYMENT.path(server.namespace, server.names.deployment),
        {"spec": {"template": {"spec": {"containers": containers}}}},
        content_type="application/strategic-merge-patch+json",
    )


@pytest.fixture
def embedded_server(operator: Operator, admin: Client, namespace: str) -> Server:
    """A server whose embedded stores have ready pods. It does not become Ready, because the pods are simulated."""
    return Server(admin, namespace).apply().wait_stores_running()


def test_changed_objects_are_restored(server: Server) -> None:
    """Changes a field that the operator sets, in each kind that users edit."""
    names = server.names
    set_variable(server, "MLFLOW_WORKERS", "7")
    wait_restored(
        server, kinds.DEPLOYMENT, names.deployment, lambda d: environment(d)["MLFLOW_WORKERS"] == "1"
    )
    server.merge(kinds.DEPLOYMENT, names.deployment, {"spec": {"replicas": 0}})
    wait_restored(server, kinds.DEPLOYMENT, names.deployment, lambda d: d["spec"]["replicas"] == 1)
    selector = {"mlflow-operator.dev/server": "another"}
    server.merge(kinds.SERVICE, names.service, {"spec": {"selector": selector}})
    wait_restored(
        server,
        kinds.SERVICE,
        names.service,
        lambda s: s["spec"]["selector"]["mlflow-operator.dev/server"] == server.name,
    )
    server.merge(kinds.CONFIGMAP, names.client, {"data": {"MLFLOW_TRACKING_URI": "http://other"}})
    wait_restored(
        server,
        kinds.CONFIGMAP,
        names.client,
        lambda c: c["data"]["MLFLOW_TRACKING_URI"] == server.status["url"],
    )
    server.wait_ready()


def test_changed_embedded_store_is_restored(embedded_server: Server) -> None:
    """Without its StatefulSet's replica, the server would have no database."""
    for name in (embedded_server.names.postgres, embedded_server.names.artifact_store):
        embedded_server.merge(kinds.STATEFULSET, name, {"spec": {"replicas": 0}})
        wait_restored(embedded_server, kinds.STATEFULSET, name, lambda s: s["spec"]["replicas"] == 1)


def test_added_environment_variable_is_removed(server: Server) -> None:
    """Server-side apply alone would keep a list item that the operator never set."""
    name = server.names.deployment
    set_variable(server, "ADDED", "1")
    wait_restored(server, kinds.DEPLOYMENT, name, lambda d: "ADDED" not in environment(d))
    server.wait_ready()


def test_removed_label_is_restored(server: Server) -> None:
    """At once, without a resync, because the owner reference names the server."""
    name = server.names.client
    labels = server.require(kinds.CONFIGMAP, name)["metadata"]["labels"]
    server.merge(kinds.CONFIGMAP, name, {"metadata": {"labels": {"mlflow-operator.dev/server": None}}})
    wait_restored(server, kinds.CONFIGMAP, name, lambda c: c["metadata"]["labels"] == labels)


@pytest.mark.parametrize(
    ("kind", "attribute"),
    [
        (kinds.SERVICE, "service"),
        (kinds.CONFIGMAP, "client"),
        (kinds.CONFIGMAP, "plugin_config_map"),
        (kinds.SECRET, "server_secret"),
        (kinds.DEPLOYMENT, "deployment"),
    ],
    ids=lambda value: value if isinstance(value, str) else value.kind,
)
def test_deleted_object_is_recreated(server: Server, kind: Kind, attribute: str) -> None:
    """The new object has another uid, and the server becomes Ready again."""
    _check_recreation(server, kind, getattr(server.names, attribute))
    server.wait_ready()


@pytest.mark.parametrize("attribute", ["artifact_store", "postgres"])
def test_deleted_embedded_store_is_recreated_on_its_volume(embedded_server: Server, attribute: str) -> None:
    """Volume claims and credentials outlive the StatefulSet."""

    def data() -> dict[str, str]:
        found = [*embedded_server.objects(kinds.PVC), *embedded_server.objects(kinds.SECRET)]
        return {obj["metadata"]["name"]: obj["metadata"]["uid"] for obj in found}

    before = data()
    assert len(before) >= 4
    _check_recreation(embedded_server, kinds.STATEFULSET, getattr(embedded_server.names, attribute))
    embedded_server.wait_stores_running()
    assert data() == before


def _check_recreation(server: Server, kind: Kind, name: str) -> None:
    old = server.require(kind, name)["metadata"]["uid"]
    server.client.delete(kind, server.namespace, name)
    seconds = RESYNC_SECONDS if kind == kinds.SECRET else TIMEOUT_SECONDS
    wait_restored(server, kind, name, lambda found: found["metadata"]["uid"] != old, seconds)


UNMANAGED_OBJECTS: dict[Kind, Callable[[str], Object]] = {
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
"""Objects that another client created with a name that the operator needs."""


@pytest.mark.parametrize("kind", UNMANAGED_OBJECTS, ids=lambda kind: kind.kind)
def test_unmanaged_object_with_the_same_name_is_not_changed(
    operator: Operator, admin: Client, namespace: str, spec: Object, kind: Kind
) -> None:
    """The status names the object, and the server becomes Ready once it is deleted."""
    server = Server(admin, namespace)
    names = {kinds.SERVICE: server.names.service, kinds.CONFIGMAP: server.names.client}
    name = names.get(kind, server.names.deployment)
    foreign = UNMANAGED_OBJECTS[kind](name)
    foreign["metadata"]["namespace"] = namespace
    before = admin.create(kind, foreign)
    server.apply(spec)
    condition = server.wait_for("Ready", "False", "NameConflict")
    assert kind.kind in condition["message"]
    assert name in condition["message"]
    after = server.require(kind, name)
    for obj in (before, after):
        # The Deployment controller writes its status and its revision.
        obj.pop("status", None)
        for field in ("resourceVersion", "managedFields", "annotations", "generation"):
            obj["metadata"].pop(field, None)
    assert after == before

    admin.delete(kind, namespace, name)
    server.trigger_reconcile()
    server.wait_ready()


def test_repeated_apply_conflict_is_reported_and_backed_off(
    server: Server, operator: Operator, admin: Client
) -> None:
    """If another client reverts every repair, the status names it, and the operator pauses its writes."""
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

    condition = eventually("the conflict is reported", conflict, CONFLICT_SECONDS)
    assert "autoscaler" in condition["message"]
    assert "spec.replicas" in condition["message"]
    deployment = server.require(kinds.DEPLOYMENT, name)
    assert deployment["spec"]["replicas"] == 3

    # The operator tries again when the desired state changes.
    server.patch_spec(workers=2)
    wait_restored(server, kinds.DEPLOYMENT, name, lambda d: d["spec"]["replicas"] == 1)
    server.wait_ready()
