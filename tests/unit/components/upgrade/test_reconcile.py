"""Upgrades in a simulated cluster, interrupted at moments at which a real cluster cannot be stopped."""

import json
from typing import Any

import pytest

from mlflow_operator.kube import labels
from mlflow_operator.kube.objects import Object
from mlflow_operator.model import plugins
from mlflow_operator.model.versions import DEFAULT_VERSION, SCHEMA_HEADS
from mlflow_operator.status.conditions import Reason
from mlflow_operator.status.errors import ConfigurationError
from tests.unit.simulation import (
    NAMESPACE,
    ProcessKilled,
    SimulatedCluster,
    preflight_result,
    version_of_image,
)

OLD_VERSION = "3.14.0"
IMAGE = "ghcr.io/mlflow/mlflow:v{}-full"


async def running_server(version: str, **spec: Any) -> SimulatedCluster:
    """A Ready server of this version, after its last reconcile."""
    return await SimulatedCluster.ready({"version": version, **spec})


@pytest.fixture
async def old() -> SimulatedCluster:
    """A server whose upgrade to the default version needs a schema migration."""
    return await running_server(OLD_VERSION)


@pytest.fixture
async def new() -> SimulatedCluster:
    """A server of the default version."""
    return await running_server(DEFAULT_VERSION)


def jobs(simulation: SimulatedCluster, kind: str) -> list[Object]:
    """Jobs of one kind: migrate, preflight, backup."""
    return [o for (k, name), o in simulation.api.objects.items() if k == "Job" and f"-{kind}-" in name]


def deployment(simulation: SimulatedCluster) -> Object:
    """The server's Deployment."""
    found = simulation.get("Deployment", "a")
    assert found
    return found


def image(simulation: SimulatedCluster) -> str:
    """The image in the Deployment."""
    return str(deployment(simulation)["spec"]["template"]["spec"]["containers"][0]["image"])


def status(simulation: SimulatedCluster) -> Object:
    """The stored status."""
    resource = simulation.get("MLflowServer", "a")
    assert resource
    return dict(resource["status"])


async def start_preflight(simulation: SimulatedCluster, **spec: Any) -> Object:
    """Update the spec and reconcile; return the preflight Job."""
    simulation.update_spec(**spec)
    await simulation.reconcile()
    (job,) = jobs(simulation, "preflight")
    return job


async def start_migration(simulation: SimulatedCluster, version: str = DEFAULT_VERSION) -> Object:
    """Start the upgrade to a version; return the migration Job."""
    earlier = {job["metadata"]["uid"] for job in jobs(simulation, "migrate")}
    simulation.finish_job(await start_preflight(simulation, version=version), "Complete")
    for _ in range(4):
        await simulation.reconcile()
        simulation.run_controllers(complete_jobs=False)
    (job,) = (job for job in jobs(simulation, "migrate") if job["metadata"]["uid"] not in earlier)
    return job


def run_container(simulation: SimulatedCluster, job: Object) -> None:
    """Set the Job's container to running."""
    simulation.terminate_container(job, 0, "")
    name = f"{job['metadata']['name']}-pod"
    state = {"containerStatuses": [{"name": "migrate", "state": {"running": {}}}], "phase": "Running"}
    spec = job["spec"]["template"]["spec"]
    simulation.api.edit("Pod", name, lambda pod: pod.update(status=state, spec=spec))


async def test_nothing_changes_before_preflight_succeeds(old: SimulatedCluster) -> None:
    """The Deployment is the same. The preflight Job runs the new image in the server's environment."""
    before = deployment(old)
    job = await start_preflight(old, version=DEFAULT_VERSION)
    assert deployment(old) == before
    state, reason, message = old.condition("UpgradeReady")
    assert (state, reason) == ("False", "Progressing")
    assert "Nothing is changed yet" in message
    assert old.condition("ServerAvailable")[0] == "True"
    (container,) = job["spec"]["template"]["spec"]["containers"]
    (server,) = before["spec"]["template"]["spec"]["containers"]
    assert container["image"] == IMAGE.format(DEFAULT_VERSION)
    # Only the new version has the fast path, which hides the assistant.
    hidden = {"name": plugins.ASSISTANT_ENV, "value": "false"}
    assert {variable["name"]: variable for variable in container["env"]} == {
        v["name"]: v for v in [*server["env"], hidden] if "a-encryption" not in str(v)
    }
    assert container["volumeMounts"] == server["volumeMounts"]
    assert len(job["metadata"]["name"].removeprefix("a-preflight-")) == 8


async def test_server_is_scaled_to_zero_during_migration(old: SimulatedCluster) -> None:
    """By default no pod reads or writes the tables meanwhile. The downtime is in the status."""
    old.now = "2026-01-01T01:00:00Z"
    await start_migration(old)
    assert deployment(old)["spec"]["replicas"] == 0
    assert image(old) == IMAGE.format(OLD_VERSION)
    assert old.get("Pod", "a-pod") is None
    assert old.condition("Ready")[:2] == ("False", "Progressing")
    old.now = "2026-01-01T01:00:42Z"
    await old.reconcile_until_ready()
    assert (image(old), deployment(old)["spec"]["replicas"]) == (IMAGE.format(DEFAULT_VERSION), 1)
    assert status(old)["version"] == DEFAULT_VERSION
    assert status(old)["upgrade"] == {
        "fromVersion": OLD_VERSION,
        "toVersion": DEFAULT_VERSION,
        "fromRevision": SCHEMA_HEADS[OLD_VERSION],
        "toRevision": SCHEMA_HEADS[DEFAULT_VERSION],
        "startTime": "2026-01-01T01:00:00Z",
        "completionTime": "2026-01-01T01:00:42Z",
        "downtimeSeconds": 42,
    }
    assert not jobs(old, "preflight")


async def test_migration_waits_for_terminating_pods(old: SimulatedCluster) -> None:
    """They may still write until their last requests are answered."""
    old.finish_job(await start_preflight(old, version=DEFAULT_VERSION), "Complete")
    for _ in range(3):
        await old.reconcile()  # the controllers do not run: the pod still exists
    assert deployment(old)["spec"]["replicas"] == 0
    assert len(jobs(old, "migrate")) == 1
    assert "Scaling the server to 0" in old.condition("SchemaReady")[2]


def collection_pod(phase: str, state: Object | None = None) -> Object:
    """A pod of the garbage collection Job `a-gc-1` with a container in this state; None: it does not exist yet."""
    statuses = [{"name": "garbage-collection", "state": state}] if state else []
    return {
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {
            "name": "a-gc-1-pod",
            "namespace": NAMESPACE,
            "labels": labels.for_component("a", labels.GARBAGE_COLLECTION_POD),
            "ownerReferences": [{"kind": "Job", "name": "a-gc-1", "uid": "a-gc-1"}],
        },
        "status": {"phase": phase, "containerStatuses": statuses},
    }


RUNNING_COLLECTION = collection_pod("Running", {"running": {}})


def put_collection_job(simulation: SimulatedCluster) -> None:
    """Create the garbage collection Job `a-gc-1`, which Kubernetes has not finished."""
    meta = RUNNING_COLLECTION["metadata"] | {"name": "a-gc-1", "uid": "a-gc-1", "ownerReferences": []}
    simulation.api.put({"apiVersion": "batch/v1", "kind": "Job", "metadata": meta, "spec": {}})


async def start_migration_with_garbage_collection(simulation: SimulatedCluster) -> None:
    """Start an upgrade that must wait for garbage collection."""
    simulation.finish_job(await start_preflight(simulation, version=DEFAULT_VERSION), "Complete")
    for _ in range(3):
        await simulation.reconcile()
        simulation.run_controllers(complete_jobs=False)
    assert deployment(simulation)["spec"]["replicas"] == 0
    assert len(jobs(simulation, "migrate")) == 1, "only the Job of the first start"
    assert "garbage collection" in simulation.condition("SchemaReady")[2]


@pytest.mark.parametrize(
    "pod",
    [
        pytest.param(RUNNING_COLLECTION, id="running"),
        pytest.param(collection_pod("Pending"), id="pending"),
        pytest.param(collection_pod("Pending", {"waiting": {}}), id="pulling the image"),
    ],
)
async def test_migration_waits_for_garbage_collection(old: SimulatedCluster, pod: Object) -> None:
    """It deletes rows of the tables. It fails soon, because it also needs the server."""
    old.api.put(pod)
    await start_migration_with_garbage_collection(old)
    assert 'Pod "a-gc-1-pod"' in old.condition("SchemaReady")[2]
    old.api.edit("Pod", "a-gc-1-pod", lambda obj: obj.update(status={"phase": "Failed"}))
    await old.reconcile_until_ready()
    assert image(old) == IMAGE.format(DEFAULT_VERSION)


@pytest.mark.parametrize(
    "pod",
    [
        pytest.param(RUNNING_COLLECTION, id="running"),
        pytest.param(collection_pod("Failed", {"terminated": {"exitCode": 137}}), id="evicted"),
    ],
)
async def test_migration_waits_for_started_garbage_collection_job(old: SimulatedCluster, pod: Object) -> None:
    """Kubernetes replaces an evicted pod. The Job is not deleted, because its result would be lost."""
    put_collection_job(old)
    old.api.put(pod)
    await start_migration_with_garbage_collection(old)
    assert old.get("Job", "a-gc-1")
    finished = {"conditions": [{"type": "Failed", "status": "True", "lastTransitionTime": old.now}]}
    old.api.edit("Job", "a-gc-1", lambda obj: obj.update(status=finished))
    old.api.edit("Pod", "a-gc-1-pod", lambda obj: obj.update(status={"phase": "Failed"}))
    await old.reconcile_until_ready()
    assert image(old) == IMAGE.format(DEFAULT_VERSION)


@pytest.mark.parametrize(
    "pods", [pytest.param([], id="no pod"), pytest.param([collection_pod("Pending")], id="pending pod")]
)
async def test_pending_garbage_collection_does_not_start_during_migration(
    old: SimulatedCluster, pods: list[Object]
) -> None:
    """Its Job is deleted. The migration waits until its pod is gone, too, and a Job created later is deleted."""
    put_collection_job(old)
    for pod in pods:
        old.api.put(pod)
    old.finish_job(await start_preflight(old, version=DEFAULT_VERSION), "Complete")
    for _ in range(2):
        await old.reconcile()
        old.run_controllers(complete_jobs=False)
    assert old.get("Job", "a-gc-1") is None
    assert len(jobs(old, "migrate")) == 1, "only the Job of the first start"
    old.api.objects.pop(("Pod", "a-gc-1-pod"), None)
    await old.reconcile()
    assert len(jobs(old, "migrate")) == 2
    put_collection_job(old)
    await old.reconcile()
    assert old.get("Job", "a-gc-1") is None
    await old.reconcile_until_ready()
    assert image(old) == IMAGE.format(DEFAULT_VERSION)


async def test_migration_waits_until_garbage_collection_is_suspended() -> None:
    """Even if the server was already scaled to 0, and if the CronJob cannot be updated."""
    old = await running_server(OLD_VERSION, garbageCollection={})
    old.finish_job(await start_preflight(old, version=DEFAULT_VERSION), "Complete")
    old.api.edit("Deployment", "a", lambda obj: obj["spec"].update(replicas=0))
    old.api.edit("CronJob", "a-gc", lambda obj: obj["spec"].update(suspend=False))
    old.run_controllers(complete_jobs=False)
    old.update_spec(garbageCollection={"schedule": "0 3 31 2 *"})
    await old.reconcile()
    assert len(jobs(old, "migrate")) == 1, "only the Job of the first start"
    assert 'CronJob "a-gc"' in old.condition("SchemaReady")[2]
    cronjob = old.get("CronJob", "a-gc")
    assert cronjob
    assert cronjob["spec"]["suspend"]
    await old.reconcile_until_ready()
    assert image(old) == IMAGE.format(DEFAULT_VERSION)
    assert old.condition("GarbageCollectionReady")[0] == "False"


BEFORE_WRITERS_STOP, BEFORE_MIGRATION = "3.16.1", "3.15.2"
"""The last version before the one whose migration requires that all writers are stopped, and an earlier schema."""


async def test_server_keeps_running_during_migration_with_rolling_update() -> None:
    """`spec.upgrade.strategy` RollingUpdate: there is no downtime."""
    old = await running_server(BEFORE_MIGRATION, upgrade={"strategy": "RollingUpdate"})
    await start_migration(old, BEFORE_WRITERS_STOP)
    assert (image(old), deployment(old)["spec"]["replicas"]) == (IMAGE.format(BEFORE_MIGRATION), 1)
    await old.reconcile_until_stable()
    assert image(old) == IMAGE.format(BEFORE_WRITERS_STOP)
    assert old.condition("Ready")[0] == "True"
    assert status(old)["upgrade"]["downtimeSeconds"] == 0


async def test_rolling_update_is_refused_if_the_migration_requires_stopped_writers() -> None:
    """The previous version keeps running. With the strategy Recreate, the upgrade continues."""
    old = await running_server(BEFORE_WRITERS_STOP, upgrade={"strategy": "RollingUpdate"})
    before = deployment(old)
    old.finish_job(await start_preflight(old, version=DEFAULT_VERSION), "Complete")
    await old.reconcile_until_stable()
    state, reason, message = old.condition("UpgradeReady")
    assert (state, reason) == ("False", "UpgradeStrategyRefused")
    assert "MLflow 3.17.0 requires that no server writes to the database" in message
    assert "set spec.upgrade.strategy to Recreate" in message
    assert f"set spec.version back to {BEFORE_WRITERS_STOP}" in message
    assert deployment(old) == before
    assert len(jobs(old, "migrate")) == 1, "only the Job of the first start"
    old.update_spec(upgrade={"strategy": "Recreate"})
    for _ in range(4):
        await old.reconcile()
        old.run_controllers(complete_jobs=False)
    assert deployment(old)["spec"]["replicas"] == 0
    await old.reconcile_until_ready()
    assert image(old) == IMAGE.format(DEFAULT_VERSION)


async def test_no_writer_starts_if_the_strategy_changes_during_the_migration() -> None:
    """The migration Job is running, and the database still has the previous revision."""
    old = await running_server(BEFORE_WRITERS_STOP)
    run_container(old, await start_migration(old))
    old.update_spec(upgrade={"strategy": "RollingUpdate"})
    await old.reconcile()
    assert deployment(old)["spec"]["replicas"] == 0
    await old.reconcile_until_ready()
    assert image(old) == IMAGE.format(DEFAULT_VERSION)


async def test_upgrade_without_migration_is_a_rollout() -> None:
    """A patch release: the Deployment is not scaled down, and there is no migration Job."""
    simulation = await running_server("3.17.0")
    simulation.finish_job(await start_preflight(simulation, version="3.17.2"), "Complete")
    await simulation.reconcile()
    replicas = deployment(simulation)["spec"]["replicas"]
    assert (image(simulation), replicas) == (IMAGE.format("3.17.2"), 1)
    await simulation.reconcile_until_stable()
    assert len(jobs(simulation, "migrate")) == 1, "only the Job of the first start"
    assert not jobs(simulation, "preflight")
    upgrade = status(simulation)["upgrade"]
    assert (upgrade["fromVersion"], upgrade["toVersion"]) == ("3.17.0", "3.17.2")
    assert upgrade["downtimeSeconds"] == 0


async def test_other_changes_need_no_preflight(new: SimulatedCluster) -> None:
    """Neither a first start, nor other fields, nor an image that a user set in the Deployment."""
    new.update_spec(workers=3, replicas=2)
    await new.reconcile_until_stable()
    new.api.edit(
        "Deployment",
        "a",
        lambda found: found["spec"]["template"]["spec"]["containers"][0].update(image="theirs:1"),
    )
    await new.reconcile_until_stable()
    assert image(new) == IMAGE.format(DEFAULT_VERSION)
    assert not [name for _, name in new.api.writes if "preflight" in name]
    assert "upgrade" not in status(new)


async def test_downgrade_is_refused_and_server_is_unchanged(new: SimulatedCluster) -> None:
    """The old version does not know the schema revision. The message says what to do."""
    before = deployment(new)
    new.update_spec(version=OLD_VERSION)
    await new.reconcile_until_stable()
    state, reason, message = new.condition("UpgradeReady")
    assert (state, reason) == ("False", "SchemaNewerThanImage")
    assert f"revert to version {DEFAULT_VERSION}" in message
    assert "restore a backup" in message
    assert deployment(new) == before
    assert new.condition("ServerAvailable")[0] == "True"
    assert new.condition("Ready")[1] == "SchemaNewerThanImage"
    assert (False, reason, message) in new.events.published
    assert "upgrade" not in status(new)
    new.update_spec(version=DEFAULT_VERSION)
    await new.reconcile_until_ready()
    assert not jobs(new, "preflight")


async def test_downgrade_is_possible_after_restore_of_older_backup(new: SimulatedCluster) -> None:
    """The result of the first preflight is outdated then, and the preflight is repeated."""
    new.update_spec(version=OLD_VERSION)
    await new.reconcile_until_stable()
    new.postgres.revision = SCHEMA_HEADS[OLD_VERSION]
    await new.reconcile_until_ready()
    assert image(new) == IMAGE.format(OLD_VERSION)


async def test_newer_schema_is_refused_at_first_start() -> None:
    """A server that is recreated with an older version on the data of a newer one."""
    simulation = SimulatedCluster({"version": OLD_VERSION})
    simulation.postgres.revision = SCHEMA_HEADS[DEFAULT_VERSION]
    await simulation.reconcile_until_stable()
    state, reason, message = simulation.condition("Ready")
    assert (state, reason) == ("False", "SchemaNewerThanImage")
    assert f"revert to version {DEFAULT_VERSION}" in message
    assert simulation.get("Deployment", "a") is None
    assert simulation.postgres.revision == SCHEMA_HEADS[DEFAULT_VERSION]


def failed_result(code: str, message: str) -> str:
    """Termination message of a preflight with one error."""
    return json.dumps(
        json.loads(preflight_result(IMAGE.format(DEFAULT_VERSION), SCHEMA_HEADS[OLD_VERSION]))
        | {"errors": [{"code": code, "message": message}]}
    )


async def test_failed_preflight_is_reported_and_retried(old: SimulatedCluster) -> None:
    """The old version keeps running. After the cause is fixed, the upgrade continues without further action."""
    before = deployment(old)
    job = await start_preflight(old, version=DEFAULT_VERSION)
    old.finish_job(job, "Failed", failed_result("bucket", "403 Forbidden"))
    await old.reconcile()
    state, reason, message = old.condition("UpgradeReady")
    assert (state, reason) == ("False", "PreflightFailed")
    assert "artifact store: 403 Forbidden" in message
    assert f"Nothing was changed; version {OLD_VERSION} keeps running" in message
    assert f"set spec.version back to {OLD_VERSION}" in message
    (first,) = jobs(old, "preflight")
    old.events.published.clear()
    old.now = "2026-01-01T00:00:15Z"
    await old.reconcile()
    (second,) = jobs(old, "preflight")
    assert second["metadata"]["uid"] != first["metadata"]["uid"]
    await old.reconcile()
    assert old.condition("UpgradeReady") == (state, reason, message), "unchanged until a preflight succeeds"
    assert not old.events.published
    assert deployment(old) == before
    await old.reconcile_until_ready()
    assert image(old) == IMAGE.format(DEFAULT_VERSION)


SUCCESS = preflight_result(IMAGE.format(DEFAULT_VERSION), SCHEMA_HEADS[OLD_VERSION])


@pytest.mark.parametrize(
    ("job_condition", "exit_code", "text"),
    [
        ("Complete", 0, ""),
        ("Complete", 0, "done"),
        ("Complete", 0, SUCCESS.replace('"forward"', '"sideways"')),
        ("Complete", 0, SUCCESS.replace(', "errors": []', "")),
        ("Complete", 0, SUCCESS + " " * 3072),
        ("Complete", 1, SUCCESS),
        ("Failed", 0, SUCCESS),
        ("Failed", 1, "ModuleNotFoundError: No module named 'mlflow'"),
    ],
)
async def test_preflight_without_valid_result_does_not_allow_upgrade(
    old: SimulatedCluster, job_condition: str, exit_code: int, text: str
) -> None:
    """Whatever the Job's condition, the exit code and the termination message are."""
    before = deployment(old)
    job = await start_preflight(old, version=DEFAULT_VERSION)
    old.finish_job(job, job_condition, text or "-")
    old.terminate_container(job, exit_code, text, "Succeeded")
    for _ in range(3):
        await old.reconcile()
    assert old.condition("UpgradeReady")[:2] == ("False", "PreflightFailed")
    assert "without a readable result" in old.condition("UpgradeReady")[2]
    assert deployment(old) == before
    assert len(jobs(old, "migrate")) == 1


async def test_preflight_whose_pod_is_deleted_is_repeated(old: SimulatedCluster) -> None:
    """Its result is deleted with the pod."""
    job = await start_preflight(old, version=DEFAULT_VERSION)
    old.finish_job(job, "Complete")
    del old.api.objects["Pod", f"{job['metadata']['name']}-pod"]
    await old.reconcile()
    assert "without a readable result" in old.condition("UpgradeReady")[2]
    old.now = "2026-01-01T00:00:15Z"
    await old.reconcile_until_ready()
    assert image(old) == IMAGE.format(DEFAULT_VERSION)


async def test_image_with_another_version_is_refused(old: SimulatedCluster) -> None:
    """The tag of a mirrored image may be wrong."""
    text = SUCCESS.replace(f'"version": "{DEFAULT_VERSION}"', '"version": "3.16.9"')
    old.finish_job(await start_preflight(old, version=DEFAULT_VERSION), "Complete", text)
    await old.reconcile()
    state, reason, message = old.condition("UpgradeReady")
    assert (state, reason) == ("False", "PreflightFailed")
    assert f"contains MLflow 3.16.9 instead of {DEFAULT_VERSION}" in message
    assert image(old) == IMAGE.format(OLD_VERSION)


async def test_custom_image_creates_schema_without_preflight() -> None:
    """There is no data to harm. A reconcile during the migration observes intermediate revisions."""
    simulation = SimulatedCluster({"image": "own/mlflow:9"})
    while not jobs(simulation, "migrate"):
        simulation.run_controllers(complete_jobs=False)
        await simulation.reconcile()
    for revision in ("half-way", SCHEMA_HEADS[DEFAULT_VERSION]):
        simulation.postgres.revision = revision
        await simulation.reconcile()
    await simulation.reconcile_until_ready()
    assert not [name for _, name in simulation.api.writes if "-preflight-" in name]


async def test_version_of_custom_image_comes_from_preflight(old: SimulatedCluster) -> None:
    """If the spec sets no version."""
    old.update_spec(version=None, image="own/mlflow:9")
    await old.reconcile_until_ready()
    assert (status(old)["version"], status(old)["image"]) == (DEFAULT_VERSION, "own/mlflow:9")
    assert status(old)["upgrade"]["toVersion"] == DEFAULT_VERSION


async def test_server_is_not_stopped_for_migration_that_would_fail(old: SimulatedCluster) -> None:
    """The operator detects missing privileges in the database itself."""
    old.postgres.obstacle = ConfigurationError(Reason.DATABASE_PRIVILEGE_MISSING, "The user may not.")
    old.finish_job(await start_preflight(old, version=DEFAULT_VERSION), "Complete")
    await old.reconcile()
    assert old.condition("UpgradeReady") == ("False", "DatabasePrivilegeMissing", "The user may not.")
    assert deployment(old)["spec"]["replicas"] == 1


async def test_failed_migration_restarts_old_version(old: SimulatedCluster) -> None:
    """The schema is unchanged. There is no automatic retry, because each attempt would stop the server."""
    old.finish_job(await start_migration(old), "Failed", "boom: no space")
    for now in ("2026-01-01T00:01:00Z", "2026-01-01T09:00:00Z"):
        old.now = now
        await old.reconcile_until_stable()
    state, reason, message = old.condition("SchemaReady")
    assert (state, reason) == ("False", "MigrationFailed")
    assert "boom: no space" in message
    assert "not retried automatically" in message
    assert (image(old), deployment(old)["spec"]["replicas"]) == (IMAGE.format(OLD_VERSION), 1)
    assert old.condition("ServerAvailable")[0] == "True"
    assert old.condition("Ready")[1] == "MigrationFailed"


async def test_deletion_of_failed_job_retries_migration(old: SimulatedCluster) -> None:
    """As the message of the condition says."""
    job = await start_migration(old)
    old.finish_job(job, "Failed", "boom")
    await old.reconcile_until_stable()
    del old.api.objects["Job", job["metadata"]["name"]]
    await old.reconcile_until_ready()
    assert image(old) == IMAGE.format(DEFAULT_VERSION)
    assert status(old)["upgrade"]["completionTime"]


async def test_reverted_version_recovers_from_failed_migration(old: SimulatedCluster) -> None:
    """A later upgrade succeeds."""
    old.finish_job(await start_migration(old), "Failed", "boom")
    await old.reconcile_until_stable()
    old.update_spec(version=OLD_VERSION)
    await old.reconcile_until_ready()
    assert "upgrade" not in status(old)
    assert image(old) == IMAGE.format(OLD_VERSION)
    old.update_spec(version=DEFAULT_VERSION)
    await old.reconcile_until_ready()
    assert image(old) == IMAGE.format(DEFAULT_VERSION)


async def test_migration_that_failed_after_its_commit_counts(old: SimulatedCluster) -> None:
    """The transaction was committed, and the pod failed afterwards."""
    job = await start_migration(old)
    old.postgres.revision = SCHEMA_HEADS[DEFAULT_VERSION]
    old.finish_job(job, "Failed", "")
    await old.reconcile_until_ready()
    assert image(old) == IMAGE.format(DEFAULT_VERSION)


async def test_version_reverted_during_migration_waits_for_its_end(old: SimulatedCluster) -> None:
    """The old version must not start on a schema that is about to change."""
    job = await start_migration(old)
    run_container(old, job)
    old.update_spec(version=OLD_VERSION)
    await old.reconcile()
    assert deployment(old)["spec"]["replicas"] == 0
    assert job["metadata"]["name"] in old.condition("SchemaReady")[2]
    del old.api.objects["Job", job["metadata"]["name"]]  # its pod still runs
    await old.reconcile()
    assert deployment(old)["spec"]["replicas"] == 0
    del old.api.objects["Pod", f"{job['metadata']['name']}-pod"]
    await old.reconcile_until_ready()
    assert (image(old), deployment(old)["spec"]["replicas"]) == (IMAGE.format(OLD_VERSION), 1)


async def test_version_reverted_between_failed_pod_and_end_of_job_waits(old: SimulatedCluster) -> None:
    """The Job may create another pod, for example if the node was drained."""
    job = await start_migration(old)
    old.terminate_container(job, 143, "", "Failed")
    old.update_spec(version=OLD_VERSION)
    await old.reconcile()
    assert deployment(old)["spec"]["replicas"] == 0
    assert job["metadata"]["name"] in old.condition("SchemaReady")[2]


async def test_version_reverted_before_migration_started_deletes_its_job(old: SimulatedCluster) -> None:
    """For example if the image cannot be pulled yet; later it would migrate while the old version runs."""
    job = await start_migration(old)
    old.update_spec(version=OLD_VERSION)
    await old.reconcile()
    assert old.get("Job", job["metadata"]["name"]) is None
    assert (image(old), deployment(old)["spec"]["replicas"]) == (IMAGE.format(OLD_VERSION), 1)


async def test_version_reverted_after_migration_is_refused(old: SimulatedCluster) -> None:
    """Only the new version, or a restored backup, can run now."""
    job = await start_migration(old)
    run_container(old, job)
    old.update_spec(version=OLD_VERSION)
    await old.reconcile()
    old.finish_job(job, "Complete")
    await old.reconcile_until_stable()
    assert old.condition("Ready")[1] == "SchemaNewerThanImage"
    assert f"revert to version {DEFAULT_VERSION}" in old.condition("Ready")[2]
    old.update_spec(version=DEFAULT_VERSION)
    await old.reconcile_until_ready()


async def test_server_is_reconciled_while_upgrade_is_refused() -> None:
    """This may take days: replaced credentials reach the pods, and deleted objects are recreated."""
    simulation = await SimulatedCluster.with_external_stores()
    simulation.update_spec(version=OLD_VERSION)
    await simulation.reconcile_until_stable()
    assert simulation.condition("UpgradeReady")[1] == "SchemaNewerThanImage"
    annotations = deployment(simulation)["spec"]["template"]["metadata"]["annotations"]
    digest = annotations[labels.INPUTS_DIGEST]
    simulation.put_secret("keys", accessKeyID="k", secretAccessKey="another")
    await simulation.reconcile_until_stable()
    annotations = deployment(simulation)["spec"]["template"]["metadata"]["annotations"]
    assert annotations[labels.INPUTS_DIGEST] != digest
    simulation.update_spec(replicas=2)
    await simulation.reconcile_until_stable()
    assert deployment(simulation)["spec"]["replicas"] == 2
    del simulation.api.objects["Deployment", "a"]
    await simulation.reconcile_until_stable()
    assert image(simulation) == IMAGE.format(DEFAULT_VERSION)
    assert simulation.condition("ServerAvailable")[0] == "True"


async def test_suspended_server_resumes_with_desired_version(old: SimulatedCluster) -> None:
    """The pod template changes only then: no pod of one version has the template of another."""
    old.update_spec(suspend=True)
    await old.reconcile_until_stable()
    template = deployment(old)["spec"]["template"]
    old.update_spec(version=DEFAULT_VERSION)
    await old.reconcile_until_stable()
    assert deployment(old)["spec"]["template"] == template
    old.update_spec(suspend=False)
    await old.reconcile_until_ready()
    assert image(old) == IMAGE.format(DEFAULT_VERSION)


async def test_same_upgrade_after_restored_backup_migrates_again(old: SimulatedCluster) -> None:
    """The complete Job of the first upgrade still exists, but does not count."""
    for _ in range(2):
        old.update_spec(version=DEFAULT_VERSION)
        await old.reconcile_until_stable()
        assert (old.postgres.revision, image(old)) == (
            SCHEMA_HEADS[DEFAULT_VERSION],
            IMAGE.format(DEFAULT_VERSION),
        )
        old.update_spec(version=OLD_VERSION)
        old.postgres.revision = SCHEMA_HEADS[OLD_VERSION]
        await old.reconcile_until_stable()
        assert (old.condition("Ready")[0], image(old)) == ("True", IMAGE.format(OLD_VERSION))


class Invariants:
    """Checks invariants with each write, so that they also hold after any crash of the operator."""

    def __init__(self, simulation: SimulatedCluster, *, requires_backup: bool = False) -> None:
        self.simulation, self.record_write = simulation, simulation.api._record_write
        self.requires_backup = requires_backup
        simulation.api._record_write = self  # type: ignore[method-assign]

    def __call__(self, verb: str, obj: Object) -> None:
        """Check the invariants and record the write."""
        if verb == "create" and obj["kind"] == "Job":
            job_kinds = ("migrate", "preflight", "backup")
            unfinished = [
                job for kind in job_kinds for job in jobs(self.simulation, kind) if "status" not in job
            ]
            assert not unfinished, "two Jobs at the same time"
            if "-migrate-" in obj["metadata"]["name"] and self.simulation.get("Deployment", "a"):
                assert deployment(self.simulation)["spec"]["replicas"] == 0
                assert self.simulation.get("Pod", "a-pod") is None, "migration while a pod runs"
                assert jobs(self.simulation, "backup") or not self.requires_backup, "migration without backup"
        if obj["kind"] == "Deployment" and verb == "apply":
            (container,) = obj["spec"]["template"]["spec"]["containers"]
            head = SCHEMA_HEADS[version_of_image(container["image"])]
            assert self.simulation.postgres.revision == head, "pods on the schema of another version"
        self.record_write(verb, obj)


@pytest.mark.parametrize("spec", [{}, {"backup": {}}], ids=["without-backup", "with-backup"])
async def test_upgrade_completes_after_operator_crash_at_any_write(spec: Object) -> None:
    """For each n: the operator crashes after the n-th write of an upgrade, and is restarted."""
    uninterrupted = await running_server(OLD_VERSION, **spec)
    first = len(uninterrupted.api.writes)
    uninterrupted.update_spec(version=DEFAULT_VERSION)
    await uninterrupted.reconcile_until_stable()
    count = len(uninterrupted.api.writes) - first
    assert count > 8, uninterrupted.api.writes[first:]
    for n in range(count):
        simulation = await running_server(OLD_VERSION, **spec)
        Invariants(simulation, requires_backup=bool(spec))
        simulation.api.crash_after_writes = len(simulation.api.writes) + n
        simulation.update_spec(version=DEFAULT_VERSION)
        with pytest.raises((ProcessKilled, BaseExceptionGroup)):
            await simulation.reconcile_until_stable()
        simulation.api.crash_after_writes = None
        await simulation.reconcile_until_stable()
        case = f"crash after write {n}: {uninterrupted.api.writes[first:][n]}"
        assert simulation.condition("Ready")[0] == "True", case
        replicas = deployment(simulation)["spec"]["replicas"]
        assert (image(simulation), replicas) == (IMAGE.format(DEFAULT_VERSION), 1), case
        assert status(simulation)["version"] == DEFAULT_VERSION, case
        counts = [len(jobs(simulation, kind)) for kind in ("migrate", "preflight", "backup")]
        assert counts == [2, 0, 0], case
        upgrade = status(simulation)["upgrade"]
        assert (upgrade["fromVersion"], upgrade["toVersion"]) == (OLD_VERSION, DEFAULT_VERSION), case
        assert upgrade["completionTime"], case


async def test_failing_upgrade_restarts_old_version_after_operator_crash_at_any_write() -> None:
    """The same with a migration that fails."""

    async def reconcile_with_failing_migration(simulation: SimulatedCluster) -> None:
        for _ in range(10):
            simulation.run_controllers(complete_jobs=False)
            for job in jobs(simulation, "preflight"):
                if "status" not in job:
                    simulation.finish_job(job, "Complete")
            for job in jobs(simulation, "migrate"):
                if "status" not in job:
                    simulation.finish_job(job, "Failed", "boom")
            await simulation.reconcile()

    uninterrupted = await running_server(OLD_VERSION)
    first = len(uninterrupted.api.writes)
    uninterrupted.update_spec(version=DEFAULT_VERSION)
    await reconcile_with_failing_migration(uninterrupted)
    for n in range(len(uninterrupted.api.writes) - first):
        simulation = await running_server(OLD_VERSION)
        Invariants(simulation)
        simulation.api.crash_after_writes = len(simulation.api.writes) + n
        simulation.update_spec(version=DEFAULT_VERSION)
        with pytest.raises((ProcessKilled, BaseExceptionGroup)):
            await reconcile_with_failing_migration(simulation)
        simulation.api.crash_after_writes = None
        await reconcile_with_failing_migration(simulation)
        case = f"crash after write {n}: {uninterrupted.api.writes[first:][n]}"
        assert simulation.condition("SchemaReady")[1] == "MigrationFailed", case
        replicas = deployment(simulation)["spec"]["replicas"]
        assert (image(simulation), replicas) == (IMAGE.format(OLD_VERSION), 1), case
        assert simulation.condition("ServerAvailable")[0] == "True", case
        simulation.update_spec(version=OLD_VERSION)
        await simulation.reconcile_until_stable()
        assert simulation.condition("Ready")[0] == "True", case
