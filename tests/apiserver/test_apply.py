"""Server-side apply by the operator, for each kind that it owns: an unchanged object is not written, and changes that
other clients make to the operator's fields are detected and reverted.
"""

import copy
from collections.abc import Callable
from typing import Any

import pytest

from mlflow_operator import api
from mlflow_operator import render as desired
from mlflow_operator.framework.observe import LISTED
from mlflow_operator.kube import kinds
from mlflow_operator.kube.apply import Applier, NameConflictError, diff
from mlflow_operator.kube.apply.unmanaged_fields import removals
from mlflow_operator.kube.client import KubernetesClient
from mlflow_operator.kube.kinds import Kind
from mlflow_operator.kube.objects import Object
from mlflow_operator.model.resolve import ClusterDefaults, resolve
from mlflow_operator.model.versions import Images
from tests.apiserver.client import Client

SPEC: Object = {
    "replicas": 2,
    "backup": {"schedule": "0 3 * * *"},
    "garbageCollection": {"schedule": "0 4 * * 0", "olderThan": "720h"},
}
"""A spec for which the operator creates at least one object of each kind."""

GENERATED = desired.GeneratedValues("user", "p", "a" * 20, "s" * 40, "r", "e")

APPLIED = (
    *(kind for kind in LISTED if kind not in {kinds.POD, kinds.PVC, kinds.JOB}),
    kinds.SECRET,
)
"""Kinds whose objects the operator keeps in the desired state. It does not create pods, and creates
PersistentVolumeClaims and Jobs only once.
"""

CHANGES: dict[Kind, tuple[Object, Callable[[Object], object]]] = {
    kinds.DEPLOYMENT: ({"spec": {"replicas": 7}}, lambda deployment: deployment["spec"]["replicas"]),
    kinds.STATEFULSET: ({"spec": {"replicas": 0}}, lambda statefulset: statefulset["spec"]["replicas"]),
    kinds.SERVICE: ({"spec": {"type": "NodePort"}}, lambda service: service["spec"]["type"]),
    kinds.CONFIGMAP: (
        {"data": {"MLFLOW_TRACKING_URI": "http://other"}},
        lambda configmap: configmap["data"]["MLFLOW_TRACKING_URI"],
    ),
    kinds.SECRET: (
        {"data": {"backend-store-uri": "b3RoZXI="}},
        lambda secret: secret["data"]["backend-store-uri"],
    ),
    kinds.CRONJOB: ({"spec": {"schedule": "* * * * *"}}, lambda cronjob: cronjob["spec"]["schedule"]),
    kinds.PDB: ({"spec": {"maxUnavailable": "90%"}}, lambda pdb: pdb["spec"]["maxUnavailable"]),
}
"""A merge patch by another client for each kind, and a function that returns the changed value."""

ADDITIONS: dict[Kind, list[Object]] = {
    kinds.DEPLOYMENT: [
        {
            "op": "add",
            "path": "/spec/template/spec/containers/0/env/-",
            "value": {"name": "ADDED", "value": "1"},
        }
    ],
    kinds.STATEFULSET: [
        {
            "op": "add",
            "path": "/spec/template/spec/containers/0/env/-",
            "value": {"name": "ADDED", "value": "1"},
        }
    ],
    kinds.SERVICE: [{"op": "add", "path": "/spec/selector/added", "value": "1"}],
    kinds.CONFIGMAP: [{"op": "add", "path": "/data/added", "value": "1"}],
    kinds.SECRET: [{"op": "add", "path": "/data/added", "value": "MQ=="}],
}
"""JSON patches that add entries which affect pods and which server-side apply alone would not remove."""


@pytest.fixture(scope="module")
def owner(admin: Client, namespace: str) -> Object:
    """A stored MLflowServer."""
    body = {
        "apiVersion": api.API_VERSION,
        "kind": api.KIND,
        "metadata": {"name": "owner", "namespace": namespace},
        "spec": SPEC,
    }
    return admin.create(kinds.MLFLOWSERVER, body)


@pytest.fixture(scope="module")
def objects(owner: Object) -> dict[Kind, Object]:
    """One desired object of each kind."""
    server = resolve(api.parse(owner), ClusterDefaults(Images()))
    chosen = {kinds.SECRET: server.names.server_secret, kinds.CONFIGMAP: server.names.client}
    found: dict[Kind, Object] = {}
    for obj in [*desired.objects(server), *desired.secrets(server, GENERATED)]:
        kind = kinds.of(obj)
        if chosen.get(kind, obj["metadata"]["name"]) == obj["metadata"]["name"]:
            found.setdefault(kind, obj)
    return found


async def observe(cluster: KubernetesClient, obj: Object) -> Object:
    """Return the stored object."""
    found = await cluster.get(kinds.of(obj), obj["metadata"]["namespace"], obj["metadata"]["name"])
    assert found
    return found


async def applied(cluster: KubernetesClient, obj: Object, owner: Object) -> Object:
    """Delete the object if it exists, let the operator create it, and return the stored object."""
    found = await cluster.get(kinds.of(obj), obj["metadata"]["namespace"], obj["metadata"]["name"])
    if found:
        await cluster.delete(found)
    await Applier(cluster).ensure(obj, None, owner)
    return await observe(cluster, obj)


def test_spec_covers_every_applied_kind(objects: dict[Kind, Object]) -> None:
    """A new owned kind needs an entry in the tables above."""
    assert set(objects) >= set(APPLIED)
    assert set(CHANGES) == set(APPLIED)


@pytest.mark.parametrize("kind", APPLIED, ids=lambda kind: kind.kind)
async def test_second_apply_writes_nothing(
    cluster: KubernetesClient, owner: Object, objects: dict[Kind, Object], kind: Kind
) -> None:
    """The comparison finds no difference in what the API server stored, defaults included."""
    obj = objects[kind]
    stored = await applied(cluster, obj, owner)
    assert diff.drift(obj, stored) == []
    assert removals(obj, stored) == []
    assert await Applier(cluster).ensure(obj, stored, owner) is stored
    assert await observe(cluster, obj) == stored


@pytest.mark.parametrize("kind", APPLIED, ids=lambda kind: kind.kind)
async def test_changed_field_is_reverted(
    cluster: KubernetesClient, admin: Client, owner: Object, objects: dict[Kind, Object], kind: Kind
) -> None:
    """Another client changes a field that the operator sets."""
    obj, (change, value) = objects[kind], CHANGES[kind]
    stored = await applied(cluster, obj, owner)
    changed = admin.merge(kind, obj["metadata"]["namespace"], obj["metadata"]["name"], change)
    assert value(changed) != value(stored)
    assert diff.drift(obj, changed)
    await Applier(cluster).ensure(obj, changed, owner)
    repaired = await observe(cluster, obj)
    assert value(repaired) == value(stored)
    assert await Applier(cluster).ensure(obj, repaired, owner) is repaired


@pytest.mark.parametrize("kind", ADDITIONS, ids=lambda kind: kind.kind)
async def test_added_entry_is_removed(
    cluster: KubernetesClient, admin: Client, owner: Object, objects: dict[Kind, Object], kind: Kind
) -> None:
    """Another client adds an entry that the operator never set."""
    obj = objects[kind]
    stored = await applied(cluster, obj, owner)
    changed = admin.json_patch(kind, obj["metadata"]["namespace"], obj["metadata"]["name"], ADDITIONS[kind])
    assert removals(obj, changed)
    await Applier(cluster).ensure(obj, changed, owner)
    repaired = await observe(cluster, obj)
    assert _without_metadata(repaired) == _without_metadata(stored)
    assert await Applier(cluster).ensure(obj, repaired, owner) is repaired


@pytest.mark.parametrize("kind", APPLIED, ids=lambda kind: kind.kind)
async def test_removed_labels_are_restored(
    cluster: KubernetesClient, admin: Client, owner: Object, objects: dict[Kind, Object], kind: Kind
) -> None:
    """Without its labels, the operator would not find the object any more. The owner reference is kept."""
    obj = objects[kind]
    stored = await applied(cluster, obj, owner)
    meta = obj["metadata"]
    changed = admin.merge(kind, meta["namespace"], meta["name"], {"metadata": {"labels": None}})
    assert not changed["metadata"].get("labels")
    await Applier(cluster).ensure(obj, changed, owner)
    repaired = await observe(cluster, obj)
    for field in ("labels", "ownerReferences"):
        assert repaired["metadata"][field] == stored["metadata"][field]


@pytest.mark.parametrize("kind", APPLIED, ids=lambda kind: kind.kind)
async def test_creation_needs_one_request_and_takes_over_nothing(
    cluster: KubernetesClient,
    admin: Client,
    owner: Object,
    *,
    objects: dict[Kind, Object],
    kind: Kind,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """An existing object stays as it is, also if it differs in fields that no client can change. A second attempt to
    create it would be a rejected write in each reconcile.
    """
    obj, is_absent = objects[kind], kind == kinds.SECRET
    found = await cluster.get(kind, obj["metadata"]["namespace"], obj["metadata"]["name"])
    if found:
        await cluster.delete(found)
    verbs = record_verbs(cluster, monkeypatch)
    created = await Applier(cluster).ensure(obj, None, owner, is_absent=is_absent)
    assert verbs == (["GET", "PATCH"] if kind == kinds.STATEFULSET else ["PATCH"])
    assert await Applier(cluster).ensure(obj, created, owner) is created
    await cluster.delete(created)

    foreign = admin.create(kind, with_other_content(obj))
    applier = Applier(cluster)
    verbs.clear()
    for _ in range(2):
        with pytest.raises(NameConflictError):
            await applier.ensure(obj, None, owner)
    assert verbs == (["GET", "GET"] if kind in {kinds.STATEFULSET, kinds.SECRET} else ["PATCH", "GET", "GET"])
    with pytest.raises(NameConflictError):
        await applier.ensure(obj, None, owner, is_absent=True)
    assert await observe(cluster, obj) == foreign
    await cluster.delete(foreign)


def record_verbs(cluster: KubernetesClient, monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Record the method of each request."""
    verbs: list[str] = []
    request = cluster._request

    async def record(method: str, path: str, *args: Any, **options: Any) -> Object:
        verbs.append(method)
        return await request(method, path, *args, **options)

    monkeypatch.setattr(cluster, "_request", record)
    return verbs


def with_other_content(obj: Object) -> Object:
    """An object of the same name that another client creates, with other immutable fields where the kind has any."""
    foreign = copy.deepcopy(obj)
    foreign["metadata"] = {key: obj["metadata"][key] for key in ("name", "namespace")}
    spec = foreign.get("spec", {})
    if "selector" in spec and "template" in spec:
        spec["selector"] = {"matchLabels": {"other": "1"}}
        spec["template"]["metadata"]["labels"] = {"other": "1"}
    elif foreign["kind"] == "Service":
        spec["clusterIP"] = "None"
    elif foreign["kind"] in {"Secret", "ConfigMap"}:
        foreign["immutable"] = True
    return foreign


def _without_metadata(obj: Object) -> Object:
    return {key: value for key, value in obj.items() if key not in {"metadata", "status"}}
