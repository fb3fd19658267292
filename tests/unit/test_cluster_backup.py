"""Restore of a server from a backup of the cluster.

Such a restore removes ownerReferences and the status, gives all objects new uids, and creates the objects before the
MLflowServer. It skips completed Jobs and pods.
"""

import copy
import itertools
from collections.abc import Iterable
from functools import partial
from typing import Any

import pytest

from mlflow_operator import api
from mlflow_operator.kube import labels
from mlflow_operator.kube.objects import Object
from mlflow_operator.model.encryption import EncryptedSecrets
from mlflow_operator.model.versions import DEFAULT_VERSION, SCHEMA_HEADS, Images
from tests.unit.simulation import NAME, SimulatedCluster

SERVER = (api.KIND, NAME)
DATA_KINDS = ("PersistentVolumeClaim", "Secret")
PREVIOUS_VERSION = "3.17.1"
"""A version with the schema of the default version."""

_UIDS = itertools.count(1)


def restored(obj: Object) -> Object:
    """The object as a restore creates it."""
    removed = {"uid", "resourceVersion", "ownerReferences", "creationTimestamp", "generation"}
    metadata = {key: value for key, value in obj["metadata"].items() if key not in removed}
    metadata |= {"uid": f"restored-{next(_UIDS)}"} | ({"generation": 1} if obj["kind"] == api.KIND else {})
    return {**{key: value for key, value in obj.items() if key != "status"}, "metadata": metadata}


def backup(simulation: SimulatedCluster) -> dict[tuple[str, str], Object]:
    """The objects in a backup of the cluster."""
    skipped = ("Job", "Pod", "Namespace")
    return {key: copy.deepcopy(obj) for key, obj in simulation.api.objects.items() if key[0] not in skipped}


def restore(
    simulation: SimulatedCluster, objects: dict[tuple[str, str], Object], keys: Iterable[Any]
) -> None:
    """Create the objects with these keys."""
    for key in keys:
        simulation.api.put(restored(objects[key]))


def lose_cluster(simulation: SimulatedCluster) -> None:
    """Delete all objects. Volumes and their contents are restored separately."""
    for key in [*simulation.api.objects]:
        if key[0] != "Namespace":
            del simulation.api.objects[key]
    simulation.api.writes.clear()


def owners(simulation: SimulatedCluster) -> dict[tuple[str, str], str]:
    """The uid of the owner of each object; empty if it has none."""
    return {
        key: (obj["metadata"].get("ownerReferences") or [{"uid": ""}])[0]["uid"]
        for key, obj in simulation.api.objects.items()
        if key[0] not in ("Pod", "Namespace", "Job", api.KIND)
    }


FULL: Object = {
    "replicas": 2,
    "backup": {},
    "garbageCollection": {"schedule": "0 4 * * 0", "olderThan": "720h"},
}


@pytest.mark.parametrize("spec", [{}, FULL], ids=["default", "all objects"])
async def test_restored_server_is_ready_with_its_passwords(spec: Object) -> None:
    """All disposable objects are adopted. Data and pods are unchanged, and no Job migrates the schema."""
    simulation = await SimulatedCluster.ready(spec)
    objects, before = backup(simulation), copy.deepcopy(simulation.api.objects)
    lose_cluster(simulation)
    restore(simulation, objects, [key for key in objects if key != SERVER])
    await simulation.reconcile()  # The MLflowServer does not exist yet.
    assert simulation.api.writes == []
    restore(simulation, objects, [SERVER])
    await simulation.reconcile_until_ready()
    uid = simulation.api.objects[SERVER]["metadata"]["uid"]
    assert {key for key, owner in owners(simulation).items() if owner != uid} == {
        ("PersistentVolumeClaim", "a-postgres-data"),
        ("PersistentVolumeClaim", "a-artifacts-data"),
        ("Secret", "a-database"),
        ("Secret", "a-artifacts"),
        ("Secret", "a-encryption"),
    }
    for key in objects:
        assert simulation.api.objects[key].get("data") == before[key].get("data"), key
    template = ("Deployment", "a"), ("StatefulSet", "a-postgres"), ("StatefulSet", "a-artifacts")
    for key in template:
        assert simulation.api.objects[key]["spec"] == before[key]["spec"]
    assert not any(kind == "Job" for kind, _ in simulation.api.objects)
    writes = len(simulation.api.writes)
    await simulation.reconcile_until_ready()
    assert len(simulation.api.writes) == writes


async def test_server_that_is_restored_in_steps_keeps_its_data(ready_server: SimulatedCluster) -> None:
    """The operator runs during the restore. It waits for the data instead of creating it."""
    objects = backup(ready_server)
    passwords = ready_server.secret("a-database"), ready_server.secret("a-artifacts")
    lose_cluster(ready_server)
    data = [
        key for key in objects if key[0] == "PersistentVolumeClaim" or key[1] in ("a-database", "a-artifacts")
    ]
    others = [key for key in objects if key not in data and key != SERVER]
    restore(ready_server, objects, [*others, SERVER])
    for key in sorted(data, reverse=True):
        for _ in range(2):
            await ready_server.reconcile()
        assert ready_server.condition("Ready")[0] == "False"
        assert key not in ready_server.api.objects
        restore(ready_server, objects, [key])
    await ready_server.reconcile_until_ready()
    assert (ready_server.secret("a-database"), ready_server.secret("a-artifacts")) == passwords


@pytest.mark.parametrize(
    ("missing", "condition", "reason"),
    [
        (
            [("Secret", "a-database"), ("PersistentVolumeClaim", "a-postgres-data")],
            "CredentialsReady",
            "SecretNotFound",
        ),
        ([("PersistentVolumeClaim", "a-postgres-data")], "DatabaseReady", "VolumeLost"),
        ([("PersistentVolumeClaim", "a-artifacts-data")], "ArtifactStoreReady", "VolumeLost"),
    ],
)
async def test_backup_without_the_data_does_not_lead_to_an_empty_server(
    ready_server: SimulatedCluster, missing: list[tuple[str, str]], condition: str, reason: str
) -> None:
    """The status is lost, but the StatefulSet shows that the server is not new. Deleting it discards nothing."""
    objects = backup(ready_server)
    lose_cluster(ready_server)
    restore(ready_server, objects, [key for key in objects if key not in missing])
    for _ in range(3):
        await ready_server.reconcile()
        ready_server.run_controllers()
    state, found_reason, message = ready_server.condition(condition)
    assert (state, found_reason) == ("False", reason)
    for key in missing:
        assert key not in ready_server.api.objects
        assert f'"{key[1]}"' in message
    assert "elete" not in message or "delete StatefulSet" in message


async def test_server_without_its_data_starts_empty_once_its_workloads_are_deleted(
    ready_server: SimulatedCluster,
) -> None:
    """As the message says. They contain no data, so a mistake does no harm."""
    objects = backup(ready_server)
    lose_cluster(ready_server)
    restore(ready_server, objects, [key for key in objects if key[0] not in DATA_KINDS])
    ready_server.postgres.revision = None
    await ready_server.reconcile()
    message = ready_server.condition("CredentialsReady")[2]
    assert 'To start with empty data, delete StatefulSet "a-postgres" and Deployment "a":' in message
    for kind, name in (("StatefulSet", "a-postgres"), ("StatefulSet", "a-artifacts"), ("Deployment", "a")):
        del ready_server.api.objects[kind, name]
    await ready_server.reconcile_until_ready()


async def test_restored_server_keeps_its_version_although_the_status_is_lost() -> None:
    """The spec sets no version. The Deployment is restored with the version that the server ran."""
    simulation = SimulatedCluster()
    simulation.api.edit(*SERVER, lambda obj: obj.update(status={"version": PREVIOUS_VERSION}))
    await simulation.reconcile_until_ready()
    deployment = copy.deepcopy(simulation.api.objects["Deployment", "a"]["spec"])
    objects = backup(simulation)
    lose_cluster(simulation)
    restore(simulation, objects, objects)
    await simulation.reconcile_until_ready()
    assert simulation.api.objects["Deployment", "a"]["spec"] == deployment
    assert simulation.api.objects[SERVER]["status"]["version"] == PREVIOUS_VERSION
    assert PREVIOUS_VERSION != DEFAULT_VERSION
    assert not any(kind == "Job" for kind, _ in simulation.api.objects)


async def test_failed_upgrade_of_a_restored_server_starts_the_previous_version_again() -> None:
    """The backup is from the time between the change of the version and the upgrade. The status is lost."""
    simulation = SimulatedCluster({"version": "3.16.1"})
    await simulation.reconcile_until_ready()
    objects = backup(simulation)
    objects[SERVER]["spec"]["version"] = "3.17.2"
    lose_cluster(simulation)
    restore(simulation, objects, objects)
    for _ in range(8):
        simulation.run_controllers(complete_jobs=False)
        for (kind, _), obj in list(simulation.api.objects.items()):
            if kind == "Job" and not obj.get("status"):
                migrates = obj["metadata"]["labels"][labels.COMPONENT] == labels.MIGRATION_POD
                simulation.finish_job(obj, "Failed" if migrates else "Complete")
        await simulation.reconcile()
    assert simulation.condition("SchemaReady")[1] == "MigrationFailed"
    assert simulation.postgres.revision == SCHEMA_HEADS["3.16.1"]
    spec = simulation.api.objects["Deployment", "a"]["spec"]
    assert spec["replicas"] == 1
    assert spec["template"]["spec"]["containers"][0]["image"] == Images().server("3.16.1")
    assert simulation.api.objects[SERVER]["status"]["upgrade"]["fromVersion"] == "3.16.1"


async def test_backup_restored_into_another_namespace_keeps_the_password_of_the_database(
    ready_server: SimulatedCluster,
) -> None:
    """The Secret contains the host in the previous namespace. The volume still requires its password."""
    password = ready_server.secret("a-database")["password"]
    objects = backup(ready_server)
    lose_cluster(ready_server)
    restore(ready_server, objects, objects)
    moved = {
        key: text.replace(".team.", ".previous.") for key, text in ready_server.secret("a-database").items()
    }
    assert moved["host"] == "a-postgres.previous.svc"
    labels_before = ready_server.api.objects["Secret", "a-database"]["metadata"]["labels"]
    ready_server.put_secret("a-database", **moved)
    ready_server.api.edit("Secret", "a-database", lambda obj: obj["metadata"].update(labels=labels_before))
    await ready_server.reconcile_until_ready()
    after = ready_server.secret("a-database")
    assert (after["password"], after["host"]) == (password, "a-postgres.team.svc")
    assert "a-postgres.team.svc" in after["uri"]
    assert ready_server.postgres.connections[-1].password == password


async def test_all_conflicts_are_reported_in_one_message(simulation: SimulatedCluster) -> None:
    """A user would otherwise find them one after the other. The message never advises to delete a Secret."""

    def put(kind: str, name: str, **metadata: Any) -> None:
        api_version = "apps/v1" if kind in ("Deployment", "StatefulSet") else "v1"
        meta = {"name": name, "namespace": "team", **metadata}
        pod = {"spec": {"containers": [{"name": "x", "image": "x:1"}]}}
        obj = {"apiVersion": api_version, "kind": kind, "metadata": meta, "spec": {"template": pod}}
        simulation.api.put(obj)

    controller = {"kind": "Tool", "name": "x", "uid": "x", "controller": True}
    put("Service", "a")
    put("Deployment", "a", labels=labels.for_component("a", "server"), ownerReferences=[controller])
    put("Secret", "a-server")
    put("Service", "a-postgres", labels=labels.for_component("a-postgres", "server"))
    put("Secret", "a-database")
    put("PersistentVolumeClaim", "a-postgres-data")
    before = copy.deepcopy(simulation.api.objects)
    await simulation.reconcile()
    status, reason, message = simulation.condition("CredentialsReady")
    assert (status, reason) == ("False", "NameConflict")
    assert message == (
        'Service "a-postgres" belongs to MLflowServer "a-postgres", which requires the same object name. Give one of '
        "the two MLflowServers another name. "
        'Deployment "a", Secret "a-server" and Service "a" already exist and do not belong to this MLflowServer. '
        "Rename the MLflowServer. "
        'PersistentVolumeClaim "a-postgres-data" and Secret "a-database" do not have the labels of this MLflowServer, '
        "so the operator does not use them. To use the data of this server, for example after a restore, run: kubectl "
        "label -n team persistentvolumeclaim/a-postgres-data secret/a-database "
        "app.kubernetes.io/managed-by=mlflow-operator mlflow-operator.dev/server=a. Otherwise, rename the MLflowServer."
    )
    assert simulation.condition("ServerAvailable")[2] == message
    for key, obj in before.items():
        if key[1] != NAME or key[0] != api.KIND:
            assert simulation.api.objects[key] == obj


async def test_job_that_the_operator_did_not_create_does_not_count_as_a_migration() -> None:
    """It has the labels and the name, and is complete, but its pod did something else. The image is custom."""
    simulation = SimulatedCluster({"image": "custom:1", "version": DEFAULT_VERSION})
    for _ in range(4):
        await simulation.reconcile()
        simulation.run_controllers(complete_jobs=False)
    job = next(obj for (kind, _), obj in simulation.api.objects.items() if kind == "Job")
    forged = copy.deepcopy(job)
    forged["metadata"].pop("ownerReferences")
    forged["spec"]["template"]["spec"]["containers"][0]["command"] = ["true"]
    del simulation.api.objects["Job", job["metadata"]["name"]]
    simulation.api.put(forged)
    simulation.api.edit(
        "Job",
        job["metadata"]["name"],
        lambda obj: obj.update(status={"conditions": [{"type": "Complete", "status": "True"}]}),
    )
    simulation.postgres.revision = "unknown"
    await simulation.reconcile()
    await simulation.reconcile()
    conditions = {name: simulation.condition(name) for name in ("UpgradeReady", "SchemaReady")}
    assert simulation.get("Deployment", "a") is None, conditions
    assert "NameConflict" in {reason for _, reason, _ in conditions.values()}, conditions


async def test_restored_job_is_adopted_and_continues(simulation: SimulatedCluster) -> None:
    """A migration was running at the time of the backup. It runs again, with the same pod template."""
    for _ in range(4):
        await simulation.reconcile()
        simulation.run_controllers(complete_jobs=False)
    jobs = {key: obj for key, obj in simulation.api.objects.items() if key[0] == "Job"}
    objects = backup(simulation) | copy.deepcopy(jobs)
    lose_cluster(simulation)
    restore(simulation, objects, objects)
    simulation.run_controllers(complete_jobs=False)
    await simulation.reconcile()
    await simulation.reconcile_until_ready()
    (key,) = jobs
    assert [found for found in simulation.api.objects if found[0] == "Job"] == [key]
    metadata = simulation.api.objects[key]["metadata"]
    assert metadata["ownerReferences"][0]["uid"] == simulation.api.objects[SERVER]["metadata"]["uid"]
    assert metadata["uid"].startswith("restored-")


async def test_restored_server_is_deleted_with_its_data_before_its_first_reconcile() -> None:
    """Its pods must stop, and no object may remain, although none has an owner."""
    simulation = await SimulatedCluster.ready({"deletionPolicy": "Delete"})
    objects = backup(simulation)
    lose_cluster(simulation)
    restore(simulation, objects, objects)
    simulation.run_controllers()
    simulation.delete_server()
    for _ in range(10):
        await simulation.reconcile()
        simulation.run_controllers()
    assert {key for key in simulation.api.objects if key[0] != "Namespace"} == set()


async def test_restored_server_gets_its_finalizer_again() -> None:
    """Some tools remove finalizers. Without it, Kubernetes would delete the server and keep its data."""
    simulation = await SimulatedCluster.ready({"deletionPolicy": "Delete"})
    objects = backup(simulation)
    lose_cluster(simulation)
    objects[SERVER]["metadata"].pop("finalizers")
    restore(simulation, objects, objects)
    await simulation.reconcile_until_ready()
    assert simulation.api.objects[SERVER]["metadata"]["finalizers"] == [labels.FINALIZER]


async def test_objects_are_not_adopted_for_a_server_that_is_deleted_with_orphans(
    ready_server: SimulatedCluster,
) -> None:
    """The user deletes the server during a reconcile. Kubernetes would delete objects with this owner."""
    ready_server.api.writes.clear()
    ready_server.api.before_next_list = partial(ready_server.api.orphan, NAME)
    await ready_server.reconcile()
    assert set(owners(ready_server).values()) == {""}
    assert ready_server.api.writes == []


async def test_finished_job_of_a_server_that_was_deleted_with_orphans_is_deleted(
    ready_server: SimulatedCluster,
) -> None:
    """It has no owner any more, so it would remain after the deletion of the recreated server."""
    ready_server.postgres.encrypted = EncryptedSecrets(frozenset({1}))
    await ready_server.reconcile_until_ready()
    jobs = [obj for (kind, _), obj in ready_server.api.objects.items() if kind == "Job"]
    components = {job["metadata"]["labels"][labels.COMPONENT] for job in jobs}
    assert components == {labels.MIGRATION_POD, labels.REWRAP_POD}
    ready_server.api.orphan(NAME)
    ready_server.create_server()
    await ready_server.reconcile_until_ready()
    assert not any(kind == "Job" for kind, _ in ready_server.api.objects)


async def test_deployment_of_another_controller_is_not_scaled(ready_server: SimulatedCluster) -> None:
    """It has the labels of the server. Suspending the server must not change it, as nothing else does."""
    controller = {"kind": "Tool", "name": "x", "uid": "x", "controller": True}
    ready_server.api.edit("Deployment", "a", lambda obj: obj["metadata"].update(ownerReferences=[controller]))
    before = ready_server.get("Deployment", "a")
    ready_server.update_spec(suspend=True, image="other:1")
    await ready_server.reconcile()
    assert ready_server.get("Deployment", "a") == before
    assert ready_server.condition("ServerAvailable")[1] == "NameConflict"


@pytest.mark.parametrize(
    ("image", "version"),
    [
        ("ghcr.io/mlflow/mlflow:v3.17.1-full", "3.17.1"),
        ("ghcr.io/mlflow/mlflow:v3.99.0-full", "3.99.0"),
        (f"ghcr.io/mlflow/mlflow:v3.17.1-full@sha256:{'0' * 64}", "3.17.1"),
        ("ghcr.io/mlflow/mlflow:v3.17.1", None),
        ("mirror.example.com/mlflow:v3.17.1-full", None),
        ("custom:1", None),
        (None, None),
    ],
)
def test_version_is_read_from_default_images_only(image: str | None, version: str | None) -> None:
    """Another image may contain any version."""
    assert Images().version_of(image) == version
