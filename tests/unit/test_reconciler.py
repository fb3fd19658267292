"""Reconciles of a server in intermediate states that cannot be produced in a real cluster at will."""

import asyncio
from dataclasses import replace
from functools import partial
from typing import Any, cast

import pytest

from mlflow_operator.clients.postgres.client import DatabaseState
from mlflow_operator.framework.memory_limit import MemoryLimit
from mlflow_operator.framework.observe import INITIAL_MEMORY_BYTES, Reader, observe
from mlflow_operator.kube import kinds, labels
from mlflow_operator.kube.errors import Forbidden, Unavailable
from mlflow_operator.kube.kinds import Kind
from mlflow_operator.kube.objects import Object
from mlflow_operator.model import deployment
from mlflow_operator.model.encryption import NEXT_VERSION
from mlflow_operator.model.server import Server
from mlflow_operator.model.versions import DEFAULT_VERSION, SCHEMA_HEADS
from mlflow_operator.reconciler import reconcile
from tests.unit.simulation import (
    DATABASE_UNREACHABLE,
    EXTERNAL,
    NAME,
    NAMESPACE,
    URI,
    FakePostgres,
    ProcessKilled,
    SimulatedCluster,
)


def inputs_digest(simulation: SimulatedCluster) -> str:
    """The annotation of the pod template whose change triggers a rollout."""
    deployment = simulation.get("Deployment", "a")
    assert deployment
    return str(deployment["spec"]["template"]["metadata"]["annotations"][labels.INPUTS_DIGEST])


async def test_server_starts_after_the_schema_migration(simulation: SimulatedCluster) -> None:
    """Servers that migrate concurrently break each other, so none is created before the Job is complete."""
    for _ in range(4):
        await simulation.reconcile()
        simulation.run_controllers(complete_jobs=False)
    assert simulation.get("Deployment", "a") is None
    assert simulation.condition("SchemaReady")[1] == "Progressing"
    await simulation.reconcile_until_stable()
    assert simulation.condition("Ready")[:2] == ("True", "Ready")


async def test_stable_server_causes_no_writes(ready_server: SimulatedCluster) -> None:
    """Ten stable servers must not cause any write to the API server within five minutes."""
    ready_server.now = "2026-01-01T00:10:00Z"
    before = list(ready_server.api.writes)
    for _ in range(3):
        await ready_server.reconcile()
    assert ready_server.api.writes == before


async def test_memory_for_a_deleted_server_is_freed(
    ready_server: SimulatedCluster, monkeypatch: pytest.MonkeyPatch
) -> None:
    forgotten: list[tuple[str, str]] = []
    monkeypatch.setattr(ready_server.applier, "forget_server", forgotten.append)
    await ready_server.reconcile()
    assert not forgotten
    ready_server.delete_server()
    await ready_server.reconcile()
    assert forgotten == [(NAMESPACE, NAME)]


async def test_unresponsive_database_does_not_delay_drift_repair(
    ready_server: SimulatedCluster,
) -> None:
    """The connection timeout is 15 s, but a deleted Service must be recreated at once."""
    timed_out = asyncio.Event()

    class UnresponsivePostgres(FakePostgres):
        async def inspect(self, *_: Any, **__: Any) -> DatabaseState:
            await timed_out.wait()
            raise DATABASE_UNREACHABLE

    ready_server.postgres = UnresponsivePostgres()
    del ready_server.api.objects["Service", "a"]
    ready_server.api.edit("Deployment", "a", lambda obj: obj["spec"].update(replicas=7))
    reconcile_task = asyncio.create_task(ready_server.reconcile())
    async with asyncio.timeout(5):
        while ready_server.get("Service", "a") is None or replicas(ready_server)["Deployment/a"] != 1:
            await asyncio.sleep(0)
    assert not reconcile_task.done()
    timed_out.set()
    await reconcile_task
    assert ready_server.condition("DatabaseReady")[1] == "DatabaseUnreachable"


async def test_creation_resumes_after_operator_crash_with_the_same_passwords() -> None:
    """For each N: the process is killed after its Nth write, and a new process continues from the observed state."""
    uninterrupted = SimulatedCluster()
    await uninterrupted.reconcile_until_stable()
    count = len(uninterrupted.api.writes)
    assert count > 15
    for n in range(1, count):
        simulation = SimulatedCluster()
        simulation.api.crash_after_writes = n
        with pytest.raises((ProcessKilled, BaseExceptionGroup)):  # a group if two components run concurrently
            await simulation.reconcile_until_stable()
        simulation.api.crash_after_writes = None
        passwords = {
            name: obj["data"] for (kind, name), obj in simulation.api.objects.items() if kind == "Secret"
        }
        await simulation.reconcile_until_stable()
        assert simulation.condition("Ready")[0] == "True", f"crash after write {n}"
        for name, data in passwords.items():
            secret = simulation.get("Secret", name)
            assert secret
            # the generated passphrase becomes the current one as soon as the database was inspected
            unchanged = {key: text for key, text in data.items() if key != NEXT_VERSION}
            assert secret["data"] | unchanged == secret["data"], (
                f"Secret {name} changed after a crash after write {n}"
            )
        assert sum(kind == "Job" for kind, _ in simulation.api.objects) == 1


async def test_missing_generated_secret_is_not_regenerated(ready_server: SimulatedCluster) -> None:
    """The database on the volume still uses the old password: a new one would lock out the server."""
    del ready_server.api.objects["Secret", "a-database"]
    await ready_server.reconcile()
    assert ready_server.get("Secret", "a-database") is None
    status, reason, message = ready_server.condition("CredentialsReady")
    assert (status, reason) == ("False", "SecretNotFound")
    assert 'Secret "a-database" is missing' in message
    assert ready_server.get("Deployment", "a")


async def test_missing_key_of_a_generated_secret_is_not_regenerated(ready_server: SimulatedCluster) -> None:
    """The same applies if a user removes the key from the Secret."""
    ready_server.api.edit("Secret", "a-database", lambda obj: obj["data"].pop("password"))
    await ready_server.reconcile()
    assert ready_server.condition("CredentialsReady")[1] == "SecretKeyMissing"
    assert "password" not in ready_server.secret("a-database")


async def test_recreated_server_reuses_its_data_and_password(ready_server: SimulatedCluster) -> None:
    """Retain is the default: deleting the resource by mistake does not lose data."""
    before = ready_server.secret("a-database")
    ready_server.delete_server()
    assert ready_server.get("Deployment", "a") is None
    assert ready_server.get("PersistentVolumeClaim", "a-postgres-data")
    ready_server.create_server()
    await ready_server.reconcile_until_ready()
    assert ready_server.secret("a-database") == before
    assert ready_server.postgres.connections[-1].password == before["password"]


async def test_recreated_server_keeps_its_previous_version() -> None:
    """Its status is lost. An operator with a newer default version must not migrate the data without a request."""
    simulation = SimulatedCluster()
    simulation.postgres.revision = SCHEMA_HEADS["3.14.0"]
    await simulation.reconcile_until_stable()
    deployment = simulation.get("Deployment", "a")
    assert deployment
    assert deployment["spec"]["template"]["spec"]["containers"][0]["image"].endswith(":v3.14.0-full")
    assert not any(kind == "Job" for kind, _ in simulation.api.objects)


async def test_unavailable_database_is_reported_and_changes_no_pods(ready_server: SimulatedCluster) -> None:
    """Other operators still report "Available". The Deployment must not be scaled down or rolled because of it."""
    pods = ready_server.get("Deployment", "a")
    ready_server.postgres.error = DATABASE_UNREACHABLE
    await ready_server.reconcile()
    assert ready_server.condition("DatabaseReady")[:2] == ("False", "DatabaseUnreachable")
    assert ready_server.condition("Ready")[2] == "The database does not answer."
    assert ready_server.get("Deployment", "a") == pods
    ready_server.postgres.error = None
    await ready_server.reconcile()
    assert ready_server.condition("Ready")[0] == "True"


async def test_drift_is_repaired_while_the_database_is_unavailable(ready_server: SimulatedCluster) -> None:
    """A waiting component does not block independent ones."""
    ready_server.postgres.error = DATABASE_UNREACHABLE
    ready_server.api.edit("Deployment", "a", lambda obj: obj["spec"].update(replicas=5))
    await ready_server.reconcile()
    deployment = ready_server.get("Deployment", "a")
    assert deployment
    assert deployment["spec"]["replicas"] == 1


async def test_new_image_is_deployed_after_its_schema_migration(ready_server: SimulatedCluster) -> None:
    """The previous server keeps serving until the migration for the new image is complete."""
    ready_server.update_spec(image="own/mlflow:9")
    for _ in range(3):
        await ready_server.reconcile()
        ready_server.run_controllers(complete_jobs=False)
    deployment = ready_server.get("Deployment", "a")
    assert deployment
    assert deployment["spec"]["template"]["spec"]["containers"][0]["image"].endswith(
        f"v{DEFAULT_VERSION}-full"
    )
    await ready_server.reconcile_until_stable()
    deployment = ready_server.get("Deployment", "a")
    assert deployment
    assert deployment["spec"]["template"]["spec"]["containers"][0]["image"] == "own/mlflow:9"


async def test_up_to_date_schema_needs_no_migration_job() -> None:
    """If the database is already at the head revision, the server starts at once."""
    simulation = SimulatedCluster()
    simulation.postgres.revision = SCHEMA_HEADS[DEFAULT_VERSION]
    await simulation.reconcile_until_ready()
    assert not any(kind == "Job" for kind, _ in simulation.api.objects)


async def test_migration_job_that_never_started_is_replaced(simulation: SimulatedCluster) -> None:
    """Its image cannot be pulled. A corrected image must not wait for this Job."""
    simulation.update_spec(image="typo:1")
    for _ in range(3):
        await simulation.reconcile()
        simulation.run_controllers(complete_jobs=False)
    simulation.update_spec(image="right:1")
    await simulation.reconcile_until_ready()


async def test_reverted_image_leaves_no_job(ready_server: SimulatedCluster) -> None:
    """The pod of a Job with a wrong image would try to pull it forever."""
    ready_server.update_spec(image="typo:1")
    await ready_server.reconcile()
    assert sum(kind == "Job" for kind, _ in ready_server.api.objects) == 2
    ready_server.update_spec(image=None)
    for _ in range(3):
        await ready_server.reconcile()
    assert ready_server.condition("Ready")[0] == "True"
    assert sum(kind == "Job" for kind, _ in ready_server.api.objects) == 1


async def test_migrations_never_run_concurrently(simulation: SimulatedCluster) -> None:
    """A new image waits until the running migration has finished."""
    for _ in range(3):
        await simulation.reconcile()
        simulation.run_controllers(complete_jobs=False)
    job = next(obj for (kind, _), obj in simulation.api.objects.items() if kind == "Job")
    simulation.finish_job(job, "Suspended")  # the pod has started, the Job has not finished
    simulation.update_spec(image="other:1")
    await simulation.reconcile()
    assert sum(kind == "Job" for kind, _ in simulation.api.objects) == 1
    assert job["metadata"]["name"] in simulation.condition("SchemaReady")[2]


async def test_object_of_another_owner_is_not_taken_over(simulation: SimulatedCluster) -> None:
    """A user's Service `a-postgres` is not changed for server `a`, and the conflict is reported."""
    service = {
        "apiVersion": "v1",
        "kind": "Service",
        "metadata": {"name": "a-postgres", "namespace": "team"},
        "spec": {},
    }
    stored = simulation.api.put(service)
    await simulation.reconcile()
    assert simulation.get("Service", "a-postgres") == stored
    status, reason, message = simulation.condition("DatabaseReady")
    assert (status, reason) == ("False", "NameConflict")
    assert 'Service "a-postgres"' in message


def forged(kind: Kind, name: str) -> Object:
    """An object of another user with the labels of the server's pods and 1 MiB of data."""
    metadata = {"namespace": "team", "name": name, "labels": labels.for_component("a", labels.SERVER_POD)}
    return {
        "apiVersion": kind.api_version,
        "kind": kind.kind,
        "metadata": metadata,
        "data": {"x": "x" * 2**20},
        "spec": {},
        "status": {"phase": "Pending"},
    }


async def test_secrets_of_a_ready_server_are_read_once_by_their_names(
    external_stores: SimulatedCluster, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The operator has no permission to list them. Each name costs one request per minute and server."""
    requested = []
    get = external_stores.api.get

    async def record(kind: Kind, namespace: str, name: str, *args: Any) -> Object | None:
        requested.append((kind, name))
        return await get(kind, namespace, name, *args)

    monkeypatch.setattr(external_stores.api, "get", record)
    await external_stores.reconcile()
    assert sorted(name for kind, name in requested if kind == kinds.SECRET) == [
        *("a-artifacts", "a-database", "a-encryption", "a-server", "db", "keys"),
    ]


async def test_objects_with_forged_labels_are_not_read(ready_server: SimulatedCluster) -> None:
    """Everyone who can create ConfigMaps can set the labels. The server's own objects are found by their names."""
    for number in range(10):
        await ready_server.api.create(forged(kinds.CONFIGMAP, f"forged-{number}"))
    del ready_server.api.objects["ConfigMap", "a-client"]
    before = list(ready_server.api.writes)
    await ready_server.reconcile_until_stable()
    assert ready_server.condition("Ready")[:2] == ("True", "Ready")
    assert ready_server.get("ConfigMap", "a-client")
    assert {name for _, name in ready_server.api.writes[len(before) :]} == {"ConfigMap/a-client"}
    resource = await ready_server.api.get(kinds.MLFLOWSERVER, "team", "a")
    assert resource
    async with MemoryLimit().reserve("team", INITIAL_MEMORY_BYTES) as memory:
        observed = await observe(resource, cast("Any", ready_server.api), memory)
    assert {obj["metadata"]["name"] for obj in observed.list(kinds.CONFIGMAP)} == {"a-client", "a-server"}


async def test_large_objects_with_the_names_of_the_server_are_reported(
    ready_server: SimulatedCluster,
) -> None:
    """Everyone who may edit them can make each almost as large as etcd allows."""
    for name in ("a-client", "a-server"):
        ready_server.api.edit("ConfigMap", name, lambda obj: obj.update(data={"x": "x" * 2**20}))
    await ready_server.reconcile_until_ready()
    annotations = {"x": "x" * 2**20}
    for kind, name in [*ready_server.api.objects]:
        if kind in ("Secret", "Service", "StatefulSet", "Deployment"):
            ready_server.api.edit(kind, name, lambda obj: obj["metadata"].update(annotations=annotations))
    await ready_server.reconcile()
    status, reason, message = ready_server.condition("Ready")
    assert (status, reason) == ("False", "NameConflict")
    assert "need more than 6 MiB" in message


async def test_large_references_are_reported(simulation: SimulatedCluster) -> None:
    """Each Secret can have 1 MiB, and the reconcile keeps them."""
    names = [f"variables-{number}" for number in range(6)]
    for name in names:
        simulation.put_secret(name, TEXT="x" * 2**19)
    simulation.update_spec(envFrom=[{"secretRef": {"name": name}} for name in names[:4]])
    await simulation.reconcile_until_ready()
    simulation.update_spec(envFrom=[{"secretRef": {"name": name}} for name in [*names, *names]])
    for name in names:
        simulation.put_secret(name, TEXT="x" * 2**20)
    await simulation.reconcile()
    status, reason, message = simulation.condition("Ready")
    assert (status, reason) == ("False", "SecretValueInvalid")
    assert "need more than 4 MiB" in message


async def test_values_of_references_need_memory(ready_server: SimulatedCluster) -> None:
    """Their values stay in memory while a store does not answer. With an emoji, each character needs four bytes."""
    names = [f"variables-{number}" for number in range(4)]
    for name in names:
        ready_server.put_secret(name, TEXT="x" * 700_000 + "\N{GRINNING FACE}")
    ready_server.update_spec(envFrom=[{"secretRef": {"name": name}} for name in names])
    memory = MemoryLimit(INITIAL_MEMORY_BYTES, INITIAL_MEMORY_BYTES)
    deps = replace(ready_server.dependencies(), memory=memory)
    with pytest.raises(Unavailable, match='read Secret "variables-'):
        await reconcile((NAMESPACE, NAME), deps)
    async with memory.reserve("other", INITIAL_MEMORY_BYTES):
        pass
    await ready_server.reconcile_until_ready()


async def test_reconcile_reads_nothing_before_it_has_memory(ready_server: SimulatedCluster) -> None:
    """Reconciles whose stores do not answer keep the objects of their servers for long."""
    memory = MemoryLimit(INITIAL_MEMORY_BYTES, INITIAL_MEMORY_BYTES)
    deps = replace(ready_server.dependencies(), memory=memory)
    listed = asyncio.Event()
    async with memory.reserve("other", 1):
        ready_server.api.before_next_list = listed.set
        task = asyncio.create_task(reconcile((NAMESPACE, NAME), deps))
        await asyncio.sleep(0.1)
        assert not listed.is_set()
    await task
    assert listed.is_set()
    # The reconcile has freed everything.
    async with memory.reserve("other", INITIAL_MEMORY_BYTES):
        pass


async def test_too_many_pods_with_forged_labels_are_reported(ready_server: SimulatedCluster) -> None:
    """They may be the server's: the operator neither ignores them nor loads them into its memory."""
    for number in range(10):
        await ready_server.api.create(forged(kinds.POD, f"forged-{number}"))
    await ready_server.reconcile()
    status, reason, message = ready_server.condition("Ready")
    assert (status, reason) == ("False", "NameConflict")
    assert "The objects in namespace team" in message
    assert "kubectl get pods -n team -l " in message


async def test_changed_secret_rolls_the_pods(external_stores: SimulatedCluster) -> None:
    """A new value that the pods read changes the annotation of the pod template."""
    before = inputs_digest(external_stores)
    external_stores.put_secret("keys", accessKeyID="k", secretAccessKey="another")
    await external_stores.reconcile()
    assert inputs_digest(external_stores) != before


async def test_secret_key_not_used_by_pods_does_not_roll_them(external_stores: SimulatedCluster) -> None:
    """A rotation stores its state beside the replaced key: the pods must roll only once."""
    before = inputs_digest(external_stores)
    external_stores.put_secret("keys", accessKeyID="k", secretAccessKey="s", note="not used by pods")
    await external_stores.reconcile()
    assert inputs_digest(external_stores) == before


async def test_secret_with_another_database_is_rejected(external_stores: SimulatedCluster) -> None:
    """The CRD cannot validate Secrets. The data logged so far would stay in the old database unnoticed."""
    before = external_stores.secret("a-server"), inputs_digest(external_stores)
    external_stores.put_secret("db", uri=URI.format(host="two"))
    await external_stores.reconcile()
    status, reason, message = external_stores.condition("CredentialsReady")
    assert (status, reason) == ("False", "StorageChangeRefused")
    assert "from one:5432/mlflow to two:5432/mlflow" in message
    assert "hunter2" not in message
    assert (external_stores.secret("a-server"), inputs_digest(external_stores)) == before
    external_stores.update_spec(storageChangePolicy="Allow")
    await external_stores.reconcile_until_stable()
    assert "two" in external_stores.secret("a-server")["backend-store-uri"]
    assert external_stores.condition("Ready")[0] == "True"


async def test_short_host_name_is_a_service_in_the_namespace_of_the_server(
    external_stores: SimulatedCluster,
) -> None:
    """The pods resolve it like this, too. Their URI keeps the name that the user wrote, because addresses change."""
    before = external_stores.secret("a-server")
    external_stores.resolver.service_addresses |= {"one": "10.96.0.7", "s3": "10.96.0.8"}
    await external_stores.reconcile()
    assert external_stores.postgres.connections[-1].host == "one"
    assert ("hostaddr", "10.96.0.7") in external_stores.postgres.connections[-1].options
    assert external_stores.store.checked_buckets[-1].endpoint == "http://s3.fully-qualified:9000"
    assert external_stores.secret("a-server") == before


async def test_switch_to_an_external_database_prunes_the_embedded_one_and_keeps_its_data(
    ready_server: SimulatedCluster,
) -> None:
    """The StatefulSet and the Service are deleted once the new database is used. Volume and password are kept."""
    ready_server.put_secret("db", uri=URI.format(host="two"))
    ready_server.update_spec(storageChangePolicy="Allow", database=EXTERNAL["database"])
    await ready_server.reconcile_until_ready()
    assert ready_server.get("StatefulSet", "a-postgres") is None
    assert ready_server.get("Service", "a-postgres") is None
    assert ready_server.get("PersistentVolumeClaim", "a-postgres-data")
    assert ready_server.secret("a-database")["password"]
    assert ready_server.get("StatefulSet", "a-artifacts")
    assert ready_server.get("Service", "a")


async def test_pods_are_created_after_the_node_port_is_known() -> None:
    """The node port is part of the allowed hosts: pods created without it would be rolled right after their start."""
    simulation = SimulatedCluster({**EXTERNAL, "service": {"type": "NodePort"}})
    simulation.put_secret("db", uri=URI.format(host="one"))
    simulation.put_secret("keys", accessKeyID="k", secretAccessKey="s")
    simulation.postgres.revision = SCHEMA_HEADS[DEFAULT_VERSION]
    await simulation.reconcile()
    assert simulation.get("Service", "a")
    assert simulation.get("Deployment", "a") is None
    simulation.api.edit("Service", "a", lambda obj: obj["spec"]["ports"][0].update(nodePort=30500))
    await simulation.reconcile_until_stable()
    deployment = simulation.get("Deployment", "a")
    assert deployment
    assert ":30500" in str(deployment["spec"]["template"]["spec"]["containers"][0]["env"])
    assert [w for w in simulation.api.writes if w[1] == "Deployment/a"] == [("apply", "Deployment/a")]


async def test_pods_are_created_after_a_public_cluster_ip_is_known(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Some cloud providers give Services addresses that are in no private range."""
    simulation = SimulatedCluster(EXTERNAL)
    simulation.put_secret("db", uri=URI.format(host="one"))
    simulation.put_secret("keys", accessKeyID="k", secretAccessKey="s")
    simulation.postgres.revision = SCHEMA_HEADS[DEFAULT_VERSION]
    apply = simulation.api.apply

    async def apply_and_allocate(obj: Object) -> Object:
        if obj["kind"] == "Service":
            await apply(obj)
            return simulation.api.edit(
                "Service", "a", lambda stored: stored["spec"].update(clusterIPs=["34.118.226.1"])
            )
        return await apply(obj)

    monkeypatch.setattr(simulation.api, "apply", apply_and_allocate)
    await simulation.reconcile()
    assert simulation.get("Deployment", "a") is None
    await simulation.reconcile_until_stable()
    deployment = simulation.get("Deployment", "a")
    assert deployment
    assert "http://34.118.226.1," in str(deployment["spec"]["template"]["spec"]["containers"][0]["env"])
    assert [w for w in simulation.api.writes if w[1] == "Deployment/a"] == [("apply", "Deployment/a")]


async def test_disruption_budget_is_deleted_for_a_single_replica(ready_server: SimulatedCluster) -> None:
    """A PodDisruptionBudget for a single pod would block node drains."""
    ready_server.update_spec(replicas=2)
    await ready_server.reconcile_until_stable()
    assert ready_server.get("PodDisruptionBudget", "a")
    ready_server.update_spec(replicas=1)
    await ready_server.reconcile_until_stable()
    assert ready_server.get("PodDisruptionBudget", "a") is None


async def test_missing_secret_is_reported_and_used_once_created() -> None:
    """The message names the Secret and the field. The server becomes Ready without a change of the resource."""
    simulation = SimulatedCluster(EXTERNAL)
    simulation.put_secret("keys", accessKeyID="k", secretAccessKey="s")
    await simulation.reconcile()
    status, reason, message = simulation.condition("Ready")
    assert (status, reason) == ("False", "SecretNotFound")
    assert '"db"' in message
    assert "spec.database.external.uriSecretRef" in message
    simulation.put_secret("db", uri=URI.format(host="one"))
    await simulation.reconcile_until_ready()


async def test_suspend_stops_the_server_before_its_stores(ready_server: SimulatedCluster) -> None:
    """Current requests are completed, and after resuming the data is still there."""
    ready_server.update_spec(suspend=True)
    await ready_server.reconcile()
    assert replicas(ready_server) == {
        "Deployment/a": 0,
        "StatefulSet/a-postgres": 1,
        "StatefulSet/a-artifacts": 1,
    }
    ready_server.run_controllers()
    await ready_server.reconcile_until_stable()
    assert set(replicas(ready_server).values()) == {0}
    assert ready_server.condition("Ready")[:2] == ("False", "Suspended")
    ready_server.update_spec(suspend=False)
    await ready_server.reconcile_until_stable()
    assert set(replicas(ready_server).values()) == {1}
    assert ready_server.condition("Ready")[0] == "True"


async def test_invalid_stored_resource_changes_nothing(ready_server: SimulatedCluster) -> None:
    """The resource bypassed the CRD validation. The condition names the field, and the server keeps running."""
    before, conditions = ready_server.get("Deployment", "a"), ready_server.status["conditions"]
    ready_server.events.published.clear()
    ready_server.update_spec(workers="many")
    for _ in range(3):
        await ready_server.reconcile()
    status, reason, message = ready_server.condition("Ready")
    assert (status, reason) == ("False", "InvalidResource")
    assert "workers" in message
    assert ready_server.get("Deployment", "a") == before
    assert ready_server.status["conditions"][1:] == conditions[1:]
    assert ready_server.events.published == [(False, "InvalidResource", message)]


async def test_event_is_published_once_per_change(ready_server: SimulatedCluster) -> None:
    """It is not repeated at every resync."""
    ready_server.postgres.error = DATABASE_UNREACHABLE
    ready_server.events.published.clear()
    for _ in range(3):
        await ready_server.reconcile()
    assert ready_server.events.published == [(False, "DatabaseUnreachable", "The database does not answer.")]


def replicas(simulation: SimulatedCluster) -> dict[str, int]:
    """Desired replicas by kind and name."""
    return {
        f"{kind}/{name}": obj["spec"]["replicas"]
        for (kind, name), obj in simulation.api.objects.items()
        if kind in ("Deployment", "StatefulSet")
    }


async def test_lost_volume_is_reported_and_not_replaced_by_an_empty_one(
    ready_server: SimulatedCluster,
) -> None:
    """A Ready server with an empty database would hide the data loss."""
    for claim, condition, secret in (
        ("a-postgres-data", "DatabaseReady", "a-database"),
        ("a-artifacts-data", "ArtifactStoreReady", "a-artifacts"),
    ):
        del ready_server.api.objects["PersistentVolumeClaim", claim]
        await ready_server.reconcile()
        assert ready_server.get("PersistentVolumeClaim", claim) is None
        status, reason, message = ready_server.condition(condition)
        assert (status, reason) == ("False", "VolumeLost")
        assert f'"{claim}" is missing' in message
        del ready_server.api.objects["Secret", secret]  # the user requests an empty volume
        ready_server.postgres.revision = None
        await ready_server.reconcile_until_stable()
        assert ready_server.get("PersistentVolumeClaim", claim)
        assert ready_server.condition("Ready")[0] == "True"


async def test_terminating_volume_is_reported_as_lost(ready_server: SimulatedCluster) -> None:
    """It exists as long as its pod: the last chance to copy the data."""
    ready_server.api.edit(
        "PersistentVolumeClaim",
        "a-postgres-data",
        lambda obj: obj["metadata"].update(deletionTimestamp="2026-01-01T00:00:00Z"),
    )
    await ready_server.reconcile()
    assert ready_server.condition("DatabaseReady")[:2] == ("False", "VolumeLost")
    assert replicas(ready_server)["Deployment/a"] == 1


async def test_rejected_volume_expansion_does_not_affect_ready(ready_server: SimulatedCluster) -> None:
    """The database keeps running, and users cannot reduce the requested size again: Ready must not depend on it."""
    size = {"embedded": {"storage": {"size": "50Gi"}}}
    ready_server.api.edit(
        "PersistentVolumeClaim", "a-postgres-data", lambda obj: obj.update(status={"phase": "Bound"})
    )
    ready_server.api.errors_by_kind["PersistentVolumeClaim"] = Forbidden(
        "apply PersistentVolumeClaim: 403: only dynamic ones"
    )
    ready_server.update_spec(database=size)
    await ready_server.reconcile()
    assert ready_server.condition("Ready")[0] == "True"
    assert (
        "cannot be expanded: apply PersistentVolumeClaim: 403: only dynamic ones."
        in ready_server.condition("DatabaseReady")[2]
    )


async def test_rejection_by_an_admission_webhook_is_in_the_status(simulation: SimulatedCluster) -> None:
    """Users need the webhook's message in the status, not a traceback in the operator's log."""
    simulation.api.errors_by_kind["StatefulSet"] = Forbidden(
        'apply StatefulSet team/a: 403 Forbidden: webhook "x" denied it'
    )
    await simulation.reconcile()
    status, reason, message = simulation.condition("DatabaseReady")
    assert (status, reason) == ("False", "OperationRefused")
    assert 'webhook "x" denied it' in message


async def test_server_with_missing_secrets_can_be_suspended(external_stores: SimulatedCluster) -> None:
    """Users must not have to fix a server before they can stop it."""
    del external_stores.api.objects["Secret", "db"]
    external_stores.update_spec(
        suspend=True, env=[{"name": "X", "valueFrom": {"secretKeyRef": {"name": "no", "key": "no"}}}]
    )
    before = inputs_digest(external_stores)
    await external_stores.reconcile()
    assert replicas(external_stores) == {"Deployment/a": 0}
    assert inputs_digest(external_stores) == before
    assert external_stores.condition("ServerAvailable")[1] == "Suspended"


async def test_evicted_pod_does_not_keep_stores_running(ready_server: SimulatedCluster) -> None:
    """It is still listed, but its containers no longer run."""
    meta = {"name": "evicted", "namespace": "team", "labels": labels.for_component("a", labels.SERVER_POD)}
    ready_server.api.put({"apiVersion": "v1", "kind": "Pod", "metadata": meta, "status": {"phase": "Failed"}})
    ready_server.update_spec(suspend=True)
    await ready_server.reconcile_until_stable()
    assert set(replicas(ready_server).values()) == {0}


async def test_resumed_server_waits_for_the_schema_check(
    external_stores: SimulatedCluster,
) -> None:
    """The database may have been restored or emptied meanwhile, and pods that migrate concurrently would break it."""
    external_stores.update_spec(suspend=True)
    await external_stores.reconcile_until_stable()
    external_stores.postgres.revision = None
    external_stores.update_spec(suspend=False)
    await external_stores.reconcile()
    assert replicas(external_stores) == {"Deployment/a": 0}
    await external_stores.reconcile_until_stable()
    assert replicas(external_stores) == {"Deployment/a": 1}
    assert external_stores.postgres.revision == SCHEMA_HEADS[DEFAULT_VERSION]


async def test_new_database_is_migrated_before_any_pod_uses_it(
    external_stores: SimulatedCluster,
) -> None:
    """The previous pods keep serving while the migration Job runs on the new, empty database."""
    before = inputs_digest(external_stores)
    external_stores.put_secret("db", uri=URI.format(host="two"))
    external_stores.update_spec(storageChangePolicy="Allow")
    external_stores.postgres.revision = None
    for _ in range(3):
        await external_stores.reconcile()
        external_stores.run_controllers(complete_jobs=False)
    assert inputs_digest(external_stores) == before
    await external_stores.reconcile_until_stable()
    assert inputs_digest(external_stores) != before
    assert external_stores.condition("Ready")[0] == "True"


async def test_server_scaled_to_zero_is_not_ready(ready_server: SimulatedCluster) -> None:
    """No pod answers requests, so Ready must be False."""
    ready_server.update_spec(replicas=0)
    await ready_server.reconcile_until_stable()
    assert ready_server.condition("Ready")[:2] == ("False", "Suspended")
    assert "spec.replicas is 0" in ready_server.condition("Ready")[2]


async def test_quota_error_message_is_stable(ready_server: SimulatedCluster) -> None:
    """The API server's message names a new pod at each attempt, which would cause one Event per minute."""
    reported = set()
    for pod in ("a-5d-x7x", "a-5d-k2k"):
        message = f'pods "{pod}" is forbidden: exceeded quota: q, limited: pods=1'
        failure = {"type": "ReplicaFailure", "status": "True", "message": message}
        status = {"conditions": [failure], "replicas": 0}
        ready_server.api.edit("Deployment", "a", partial(dict.update, status=status))
        await ready_server.reconcile()
        reported.add(ready_server.condition("ServerAvailable"))
    assert len(reported) == 1
    assert reported.pop()[1] == "QuotaExceeded"


async def test_changed_binary_secret_rolls_the_pods(external_stores: SimulatedCluster) -> None:
    """Values that are not text, such as a Java keystore, are supported."""
    item = {"key": "trust.jks", "path": "trust.jks"}
    volume = {"name": "own", "secret": {"secretName": "store", "items": [item]}}
    digests = set()
    external_stores.update_spec(podTemplate={"spec": {"volumes": [volume]}})
    for data in ("/////w==", "/////g=="):
        meta = {"name": "store", "namespace": "team"}
        external_stores.api.put(
            {"apiVersion": "v1", "kind": "Secret", "metadata": meta, "data": {"trust.jks": data}}
        )
        await external_stores.reconcile_until_ready()
        digests.add(inputs_digest(external_stores))
    assert len(digests) == 2


async def test_database_uri_that_is_not_text_is_reported(external_stores: SimulatedCluster) -> None:
    """It must cause a condition, not a traceback."""
    external_stores.api.edit("Secret", "db", lambda obj: obj["data"].update(uri="/////w=="))
    await external_stores.reconcile()
    assert external_stores.condition("CredentialsReady")[1] == "SecretValueInvalid"
    assert "is not valid UTF-8 text" in external_stores.condition("CredentialsReady")[2]


async def test_database_restored_from_an_older_backup_is_migrated_again(simulation: SimulatedCluster) -> None:
    """The completed Job of the first migration still exists, but must not count."""
    for _ in range(2):
        simulation.postgres.revision = "older"
        await simulation.reconcile_until_stable()
        assert simulation.postgres.revision == SCHEMA_HEADS[DEFAULT_VERSION]
        assert simulation.condition("Ready")[0] == "True"


async def test_passwords_in_container_output_are_redacted() -> None:
    """The last lines of a container's output are copied into the status, Events and logs."""
    simulation = SimulatedCluster(EXTERNAL)
    simulation.put_secret("db", uri="postgresql://u:p%40ssword@one/mlflow")
    simulation.put_secret("keys", accessKeyID="k", secretAccessKey="hunter2")
    await simulation.reconcile()
    job = next(obj for (kind, _), obj in simulation.api.objects.items() if kind == "Job")
    simulation.finish_job(job, "Failed", "can't open postgresql://u:p%40ssword@one, p@ssword, hunter2")
    await simulation.reconcile()
    message = simulation.condition("SchemaReady")[2]
    assert "can't open postgresql://u:•••@one, •••, •••" in message
    assert all("ssword" not in text and "hunter2" not in text for _, _, text in simulation.events.published)


async def test_env_from_cannot_set_reserved_variables(external_stores: SimulatedCluster) -> None:
    """With another artifact root, artifacts would no longer be proxied, without any visible reason."""
    before = inputs_digest(external_stores)
    external_stores.put_secret("more", DEFAULT_ARTIFACT_ROOT="s3://elsewhere", PORT="wins-anyway", OTHER="x")
    external_stores.update_spec(envFrom=[{"prefix": "MLFLOW_", "secretRef": {"name": "more"}}])
    await external_stores.reconcile()
    status, reason, message = external_stores.condition("ServerAvailable")
    assert (status, reason) == ("False", "InvalidResource")
    assert 'Secret "more"' in message
    assert "Remove MLFLOW_DEFAULT_ARTIFACT_ROOT there and use spec.artifacts" in message
    assert inputs_digest(external_stores) == before
    external_stores.put_secret("more", PORT="wins-anyway", OTHER="x")
    await external_stores.reconcile_until_ready()


async def test_removed_labels_are_restored_without_a_rollout(ready_server: SimulatedCluster) -> None:
    """Objects without labels are not listed, but still belong to the server, with their values."""
    before = inputs_digest(ready_server)
    for kind in ("Secret", "ConfigMap"):
        ready_server.api.edit(kind, "a-server", lambda obj: obj["metadata"].pop("labels"))
    await ready_server.reconcile_until_stable()
    secret = ready_server.get("Secret", "a-server")
    assert secret
    assert labels.SERVER in secret["metadata"]["labels"]
    assert inputs_digest(ready_server) == before


@pytest.mark.parametrize("spec", [{}, {"garbageCollection": {}}], ids=["empty", "garbage collection"])
async def test_reconcile_builds_the_deployment_once(monkeypatch: pytest.MonkeyPatch, spec: Object) -> None:
    """Of a server that is Ready."""
    simulation = SimulatedCluster(spec)
    await simulation.reconcile_until_ready()
    await simulation.reconcile_until_stable()
    built = []
    build = deployment.deployment

    def count(server: Server, inputs_digest: str) -> Object:
        built.append(server)
        return build(server, inputs_digest)

    monkeypatch.setattr(deployment, "deployment", count)
    await simulation.reconcile()
    assert len(built) == 1


async def test_known_secrets_are_not_read_again(
    monkeypatch: pytest.MonkeyPatch, simulation: SimulatedCluster
) -> None:
    """The list of the observed state and the answers to writes contain them."""
    fetched = []

    async def fetch(self: Reader, kind: Kind, namespace: str, name: str) -> None:
        fetched.append((kind.kind, name))

    await simulation.reconcile_until_stable()
    monkeypatch.setattr(Reader, "_fetch", fetch)
    await simulation.reconcile()
    assert fetched == []


async def test_server_becomes_ready_with_images_from_a_mirror(monkeypatch: pytest.MonkeyPatch) -> None:
    """Admission controllers replace the images of all pods with those of a mirror or with digests."""
    simulation = SimulatedCluster()
    store = simulation.api._store

    def admit(obj: Object) -> Object:
        spec = obj.get("spec") or {}
        for container in (spec.get("template") or {}).get("spec", {}).get("containers", ()):
            container["image"] = (
                f"mirror.example.com/{container['image'].removeprefix('mirror.example.com/')}"
            )
        return store(obj)

    monkeypatch.setattr(simulation.api, "_store", admit)
    await simulation.reconcile_until_ready()
    simulation.update_spec(replicas=2)
    await simulation.reconcile_until_ready()


async def test_missing_default_storage_class_is_named() -> None:
    """A claim without a class stays Pending without an error of its own."""
    simulation = SimulatedCluster()
    await simulation.reconcile()
    name = "a-postgres-data"
    claim = simulation.api.edit(
        "PersistentVolumeClaim", name, lambda obj: obj.update(status={"phase": "Pending"})
    )
    message = "no persistent volumes available for this claim and no storage class is set"
    event = {"reason": "FailedBinding", "message": message, "lastTimestamp": simulation.now}
    simulation.api.events[claim["metadata"]["uid"]] = [event]
    await simulation.reconcile()
    _, reason, message = simulation.condition("DatabaseReady")
    assert reason == "VolumePending"
    assert "The cluster has no default StorageClass" in message


async def test_evicted_pods_do_not_stop_the_reconciles(ready_server: SimulatedCluster) -> None:
    """A node without disk space evicts each new pod, and Kubernetes keeps up to 12,500 of them."""
    for number in range(500):
        ready_server.api.put(
            {
                "apiVersion": "v1",
                "kind": "Pod",
                "metadata": {
                    "name": f"a-evicted-{number}",
                    "namespace": "team",
                    "labels": labels.for_component("a", labels.SERVER_POD),
                    "annotations": {"size": "x" * 10_000},
                },
                "status": {"phase": "Failed", "reason": "Evicted"},
            }
        )
    await ready_server.reconcile()
    assert ready_server.condition("Ready")[:2] == ("True", "Ready")
