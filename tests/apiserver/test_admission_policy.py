"""The chart's ValidatingAdmissionPolicy: the operator's service account can write only objects of MLflowServers.

All requests have a token of the service account, and the chart's roles allow each of them. The tests in
tests/integration run the operator itself with this policy.
"""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import pytest

from mlflow_operator import api
from mlflow_operator.framework.observe import LISTED
from mlflow_operator.kube import kinds
from mlflow_operator.kube import labels as keys
from mlflow_operator.kube.kinds import Kind
from mlflow_operator.kube.objects import Object
from tests.apiserver import chart_rbac
from tests.apiserver.client import ApiError, Client
from tests.apiserver.conftest import create_namespace
from tests.apiserver.control_plane import ControlPlane
from tests.chart.rendering import NAMESPACE as OPERATOR_NAMESPACE
from tests.chart.rendering import RELEASE, Values
from tests.unit.api.platform_refusals import platform

WRITTEN = (*(kind for kind in LISTED if kind != kinds.POD), kinds.SECRET)

LABELS = keys.for_data("tracking", keys.SERVER_POD)
OWNER = {
    "apiVersion": api.API_VERSION,
    "kind": api.KIND,
    "name": "tracking",
    "uid": "ab1d1f5c-54b5-4b59-8a4c-4f0a3b7f3a01",
    "controller": True,
}

_POD: Object = {
    "metadata": {"labels": {"app": "a"}},
    "spec": {"restartPolicy": "Never", "containers": [{"name": "a", "image": "busybox"}]},
}
_RESTARTED_POD: Object = {**_POD, "spec": {**_POD["spec"], "restartPolicy": "Always"}}
_SELECTOR = {"matchLabels": {"app": "a"}}
_JOB = {"template": _POD}

CONTENTS: Mapping[Kind, Object] = {
    kinds.CONFIGMAP: {"data": {"a": "1"}},
    kinds.SECRET: {"stringData": {"a": "1"}},
    kinds.SERVICE: {"spec": {"clusterIP": "None", "selector": {"app": "a"}}},
    kinds.PVC: {
        "spec": {"accessModes": ["ReadWriteOnce"], "resources": {"requests": {"storage": "1Gi"}}},
    },
    kinds.DEPLOYMENT: {"spec": {"replicas": 1, "selector": _SELECTOR, "template": _RESTARTED_POD}},
    kinds.STATEFULSET: {"spec": {"serviceName": "a", "selector": _SELECTOR, "template": _RESTARTED_POD}},
    kinds.JOB: {"spec": _JOB},
    kinds.CRONJOB: {"spec": {"schedule": "0 0 * * *", "jobTemplate": {"spec": _JOB}}},
    kinds.PDB: {"spec": {"maxUnavailable": 1, "selector": _SELECTOR}},
}

ANNOTATE = [{"op": "add", "path": "/metadata/annotations", "value": {"a": "1"}}]

for_each_kind = pytest.mark.parametrize("kind", WRITTEN, ids=lambda kind: kind.kind)


def manifest(kind: Kind, namespace: str, name: str, **metadata: Any) -> Object:
    """An object of a kind that the operator writes."""
    return {
        "apiVersion": kind.api_version,
        "kind": kind.kind,
        "metadata": {"name": name, "namespace": namespace, **metadata},
        **CONTENTS[kind],
    }


@contextmanager
def denied(name: str = RELEASE) -> Iterator[None]:
    """Require that the policy of a release rejects the request, with a message that says how to switch it off."""
    with pytest.raises(ApiError) as caught:
        yield
    assert caught.value.status == 403
    message = str(caught.value)
    assert f"ValidatingAdmissionPolicy '{OPERATOR_NAMESPACE}.{name}'" in message
    assert "set admissionPolicy.enabled to false" in message


@contextmanager
def installed(
    control_plane: ControlPlane, values: Values, service_account: str, namespace: str = ""
) -> Iterator[Client]:
    """A client with the service account of a release. With `namespace`, its policy is enforced there."""
    paths = chart_rbac.install(control_plane.client, values, chart_rbac.ALL)
    try:
        with control_plane.client_for(chart_rbac.token(control_plane.client, service_account)) as client:
            if namespace:
                chart_rbac.wait_until_enforced(client, namespace)
            yield client
    finally:
        for path in paths:
            control_plane.client.request("DELETE", path)


@pytest.fixture(scope="module")
def operator(control_plane: ControlPlane, namespace: str) -> Iterator[Client]:
    """A client with the operator's service account, with the roles and the policy of the chart."""
    with installed(control_plane, {}, RELEASE, namespace) as client:
        yield client


@for_each_kind
def test_objects_without_labels_cannot_be_written(
    operator: Client, admin: Client, namespace: str, kind: Kind
) -> None:
    """Not created, changed, deleted, and not taken over by adding the labels."""
    with denied():
        operator.create(kind, manifest(kind, namespace, "new"))
    with denied():
        operator.apply(kind, manifest(kind, namespace, "new"))
    with denied():
        # Kubernetes does not check whether an owner exists.
        operator.create(kind, manifest(kind, namespace, "new", ownerReferences=[OWNER]))
    created = admin.create(kind, manifest(kind, namespace, "foreign"))
    with denied():
        operator.json_patch(kind, namespace, "foreign", ANNOTATE)
    with denied():
        operator.apply(kind, manifest(kind, namespace, "foreign", labels=LABELS, ownerReferences=[OWNER]))
    with denied():
        operator.delete(kind, namespace, "foreign")
    assert admin.need(kind, namespace, "foreign") == created


@for_each_kind
def test_objects_of_a_server_can_be_written(operator: Client, namespace: str, kind: Kind) -> None:
    """With the labels and without an owner, like data; then with an owner, like an object that is adopted."""
    operator.create(kind, manifest(kind, namespace, "created", labels=LABELS))
    operator.json_patch(kind, namespace, "created", ANNOTATE)
    operator.apply(kind, manifest(kind, namespace, "created", labels=LABELS, ownerReferences=[OWNER]))
    operator.delete(kind, namespace, "created")
    operator.apply(kind, manifest(kind, namespace, "applied", labels=LABELS, ownerReferences=[OWNER]))
    operator.delete(kind, namespace, "applied")


@for_each_kind
def test_removed_labels_can_be_restored(operator: Client, admin: Client, namespace: str, kind: Kind) -> None:
    """The owner is sufficient to change and delete an object, also before the write that adds the labels."""
    for name in ("unlabelled", "unlabelled-deleted"):
        admin.create(kind, manifest(kind, namespace, name, ownerReferences=[OWNER]))
    operator.json_patch(kind, namespace, "unlabelled", ANNOTATE)
    operator.apply(kind, manifest(kind, namespace, "unlabelled", labels=LABELS, ownerReferences=[OWNER]))
    operator.delete(kind, namespace, "unlabelled-deleted")


@pytest.mark.parametrize(
    "metadata",
    [
        {"labels": {keys.MANAGED_BY: keys.OPERATOR}},
        {"labels": {keys.SERVER: "tracking"}},
        {"labels": LABELS | {keys.MANAGED_BY: "Helm"}},
        {"labels": LABELS | {keys.SERVER: ""}},
        {"ownerReferences": [OWNER | {"controller": False}]},
        {"ownerReferences": [OWNER | {"kind": "Deployment"}]},
        {"ownerReferences": [OWNER | {"apiVersion": "example.com/v1"}]},
        {"labels": {}, "annotations": LABELS},
    ],
    ids=str,
)
def test_incomplete_identity_is_denied(
    operator: Client, admin: Client, namespace: str, metadata: Object
) -> None:
    """Both labels, or the owner that the operator itself writes, are required."""
    foreign = manifest(kinds.SECRET, namespace, "", **metadata)
    del foreign["metadata"]["name"]
    name = admin.create(kinds.SECRET, foreign | {"metadata": foreign["metadata"] | {"generateName": "a-"}})[
        "metadata"
    ]["name"]
    with denied():
        operator.create(kinds.SECRET, manifest(kinds.SECRET, namespace, "incomplete", **metadata))
    with denied():
        operator.apply(kinds.SECRET, manifest(kinds.SECRET, namespace, name, labels=LABELS))
    with denied():
        operator.delete(kinds.SECRET, namespace, name)


def test_labels_cannot_be_removed_from_data(operator: Client, namespace: str) -> None:
    """An update must leave an object that belongs to a server."""
    operator.create(kinds.SECRET, manifest(kinds.SECRET, namespace, "data", labels=LABELS))
    with denied():
        operator.json_patch(kinds.SECRET, namespace, "data", [{"op": "remove", "path": "/metadata/labels"}])


def test_objects_that_the_operator_does_not_own_are_unaffected(
    operator: Client, admin: Client, namespace: str
) -> None:
    """MLflowServers and their status, Events, and the operator's Lease have no such labels."""
    server = {"apiVersion": api.API_VERSION, "kind": api.KIND}
    admin.create(
        kinds.MLFLOWSERVER, {**server, "metadata": {"name": "tracking", "namespace": namespace}, "spec": {}}
    )
    finalizers = [{"op": "add", "path": "/metadata/finalizers", "value": [keys.FINALIZER]}]
    operator.json_patch(kinds.MLFLOWSERVER, namespace, "tracking", finalizers)
    operator.merge(
        kinds.MLFLOWSERVER, namespace, "tracking", {"status": {"observedGeneration": 1}}, subresource="status"
    )
    event = {
        "metadata": {"generateName": "a-", "namespace": namespace},
        "involvedObject": {**server, "name": "tracking", "namespace": namespace},
        "reason": "Test",
        "message": "test",
        "type": "Normal",
    }
    operator.create(kinds.EVENT, event)
    lease = {
        "apiVersion": kinds.LEASE.api_version,
        "kind": kinds.LEASE.kind,
        "metadata": {"name": RELEASE, "namespace": OPERATOR_NAMESPACE},
    }
    created = operator.create(kinds.LEASE, lease)
    operator.request("PUT", kinds.LEASE.path(OPERATOR_NAMESPACE, RELEASE), created)


@pytest.mark.parametrize("kind", [kinds.MLFLOWSERVER, kinds.MLFLOWPLATFORM], ids=lambda kind: kind.kind)
def test_only_finalizers_and_status_of_resources_can_be_changed(
    operator: Client, admin: Client, namespace: str, kind: Kind
) -> None:
    """A platform decides where the credentials of administrators are sent, a server which pods run."""
    is_server = kind == kinds.MLFLOWSERVER
    scope, name = namespace if is_server else None, "limited"
    spec = {"replicas": 1} if is_server else platform()
    metadata = {"name": name, **({"namespace": namespace} if is_server else {})}
    admin.create(kind, {"apiVersion": api.API_VERSION, "kind": kind.kind, "metadata": metadata, "spec": spec})
    change = ("replicas", 2) if is_server else ("secretsNamespace", "elsewhere")
    changes: list[Object] = [
        {"op": "replace", "path": f"/spec/{change[0]}", "value": change[1]},
        *ANNOTATE,
        {"op": "add", "path": "/metadata/labels", "value": {"a": "1"}},
        {"op": "add", "path": "/metadata/ownerReferences", "value": [{**OWNER, "controller": False}]},
    ]
    for step in changes:
        with denied():
            operator.json_patch(kind, scope, name, [step])
    finalizers = [{"op": "add", "path": "/metadata/finalizers", "value": [keys.PLATFORM_FINALIZER]}]
    operator.json_patch(kind, scope, name, finalizers)
    operator.merge(kind, scope, name, {"status": {"observedGeneration": 1}}, subresource="status")
    operator.json_patch(kind, scope, name, [{"op": "remove", "path": "/metadata/finalizers"}])
    admin.delete(kind, scope, name)


def test_other_accounts_are_unaffected(
    operator: Client, control_plane: ControlPlane, admin: Client, namespace: str
) -> None:
    """Neither administrators nor another service account with the same roles in the operator's namespace."""
    account = {"metadata": {"name": "other", "namespace": OPERATOR_NAMESPACE}}
    admin.request("POST", f"/api/v1/namespaces/{OPERATOR_NAMESPACE}/serviceaccounts", account)
    binding = {
        "metadata": {"name": "other"},
        "roleRef": {"apiGroup": "rbac.authorization.k8s.io", "kind": "ClusterRole", "name": RELEASE},
        "subjects": [{"kind": "ServiceAccount", **account["metadata"]}],
    }
    admin.request("POST", f"/apis/rbac.authorization.k8s.io/v1/namespaces/{namespace}/rolebindings", binding)
    with control_plane.client_for(chart_rbac.token(admin, "other")) as other:
        for name, client in (("other", other), ("admin", admin)):
            client.create(kinds.SECRET, manifest(kinds.SECRET, namespace, f"of-{name}"))
            client.json_patch(kinds.SECRET, namespace, f"of-{name}", ANNOTATE)
            client.delete(kinds.SECRET, namespace, f"of-{name}")


def test_policy_of_a_release_does_not_limit_another_release(
    operator: Client, control_plane: ControlPlane, namespace: str
) -> None:
    """The second release has no policy. The first one still has its own."""
    values = {"fullnameOverride": "second", "admissionPolicy": {"enabled": False}}
    with installed(control_plane, values, "second") as second:
        second.create(kinds.SECRET, manifest(kinds.SECRET, namespace, "of-second"))
        with denied():
            operator.delete(kinds.SECRET, namespace, "of-second")
        second.delete(kinds.SECRET, namespace, "of-second")


def test_namespaced_operator_is_limited_in_its_namespaces(
    operator: Client, control_plane: ControlPlane, admin: Client
) -> None:
    """With `watchNamespaces`, and beside another release. Each release has a policy of its own."""
    team = create_namespace(admin, "team")
    values = {"fullnameOverride": "namespaced", "watchNamespaces": [team]}
    with installed(control_plane, values, "namespaced", team) as namespaced:
        with denied("namespaced"):
            namespaced.create(kinds.SECRET, manifest(kinds.SECRET, team, "foreign"))
        namespaced.create(kinds.SECRET, manifest(kinds.SECRET, team, "own", labels=LABELS))
        namespaced.delete(kinds.SECRET, team, "own")


def test_operator_can_scale_itself_to_zero(operator: Client, admin: Client, namespace: str) -> None:
    """Before it is uninstalled. It cannot change its pods, another Deployment, or one with its name elsewhere."""
    stop = [{"op": "replace", "path": "/spec/replicas", "value": 0}]
    start = [{"op": "replace", "path": "/spec/replicas", "value": 2}]
    image = [{"op": "replace", "path": "/spec/template/spec/containers/0/image", "value": "other"}]
    for place, name in ((OPERATOR_NAMESPACE, RELEASE), (OPERATOR_NAMESPACE, "other"), (namespace, RELEASE)):
        admin.create(kinds.DEPLOYMENT, manifest(kinds.DEPLOYMENT, place, name))
    changes: list[list[Object]] = [start, image, [*stop, *image]]
    for change in changes:
        with denied():
            operator.json_patch(kinds.DEPLOYMENT, OPERATOR_NAMESPACE, RELEASE, change)
    for place, name in ((OPERATOR_NAMESPACE, "other"), (namespace, RELEASE)):
        with denied():
            operator.json_patch(kinds.DEPLOYMENT, place, name, stop)
    operator.json_patch(kinds.DEPLOYMENT, OPERATOR_NAMESPACE, RELEASE, stop)
    with denied():
        operator.delete(kinds.DEPLOYMENT, OPERATOR_NAMESPACE, RELEASE)
