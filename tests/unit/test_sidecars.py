"""A namespace in which every pod gets a container that never exits, such as the proxy of a service mesh."""

import json
from collections.abc import Sequence
from functools import partial
from itertools import chain

import pytest

from mlflow_operator.kube import kinds, labels
from mlflow_operator.kube.client import Forbidden, Invalid
from mlflow_operator.kube.errors import ClusterError
from mlflow_operator.kube.kinds import Kind
from mlflow_operator.kube.objects import Object
from mlflow_operator.model.versions import DEFAULT_VERSION, SCHEMA_HEADS
from tests.unit.components.backup.test_reconcile import success
from tests.unit.components.garbage_collection.test_manifests import RESULT
from tests.unit.job_templates import job_templates
from tests.unit.simulation import NAME, NAMESPACE, SimulatedCluster
from tests.unit.test_cluster_backup import lose_cluster, restored

OLD_VERSION = "3.14.0"
END = "2026-01-01T00:01:00Z"


class MeshCluster(SimulatedCluster):
    """Kubernetes never finishes a Job, because the proxy in its pod keeps running."""

    def finish_job(self, job: Object, job_condition: str, termination_message: str = "") -> None:
        """End the container of the Job, but neither the pod nor the Job."""
        super().finish_job(job, job_condition, termination_message)
        name = job["metadata"]["name"]
        self.api.edit("Job", name, lambda obj: obj.update(status={"active": 1}))
        self.api.edit("Pod", f"{name}-pod", _add_proxy)

    def run_controllers(self, *, complete_jobs: bool = True) -> None:
        """The Job controller deletes the pods of a suspended Job."""
        for (kind, name), obj in list(self.api.objects.items()):
            if kind == "Job" and obj["spec"].get("suspend"):
                self.api.objects.pop(("Pod", f"{name}-pod"), None)
                status = {"conditions": [{"type": "Suspended", "status": "True", "lastTransitionTime": END}]}
                self.api.edit("Job", name, partial(dict.update, status=status))
        super().run_controllers(complete_jobs=complete_jobs)

    def put_run(self, cronjob_name: str, name: str) -> Object:
        """Create a Job like the CronJob controller, with an own container that is running."""
        cronjob = self.api.objects["CronJob", cronjob_name]
        template = cronjob["spec"]["jobTemplate"]
        owner = {"kind": "CronJob", "name": cronjob_name, "uid": cronjob["metadata"]["uid"]}
        meta = {"name": name, "namespace": NAMESPACE, "ownerReferences": [owner], **template["metadata"]}
        return self.api.put(
            {
                "apiVersion": "batch/v1",
                "kind": kinds.JOB.kind,
                "metadata": meta,
                "spec": template["spec"],
                "status": {"active": 1},
            }
        )


def _add_proxy(pod: Object) -> None:
    pod["status"]["phase"] = "Running"
    for status in pod["status"]["containerStatuses"]:
        status["state"]["terminated"]["finishedAt"] = END
    # Some meshes inject their container in front of the others.
    pod["status"]["containerStatuses"].insert(0, {"name": "proxy", "state": {"running": {}}})


def jobs_of(simulation: SimulatedCluster, component: str) -> list[Object]:
    """The Jobs of one component."""
    found = [obj for (kind, _), obj in simulation.api.objects.items() if kind == "Job"]
    return [job for job in found if job["metadata"]["labels"][labels.COMPONENT] == component]


async def test_first_start_and_upgrade_with_backup_succeed() -> None:
    """Preflight, backup and migration. No pod is left, so no proxy holds resources."""
    simulation = MeshCluster({"version": OLD_VERSION, "backup": {}})
    await simulation.reconcile_until_ready()
    assert simulation.postgres.revision == SCHEMA_HEADS[OLD_VERSION]
    simulation.update_spec(version=DEFAULT_VERSION)
    await simulation.reconcile_until_ready()
    assert simulation.postgres.revision == SCHEMA_HEADS[DEFAULT_VERSION]
    simulation.run_controllers()
    pods = [name for kind, name in simulation.api.objects if kind == "Pod"]
    assert pods == ["a-pod"], "only the server"


async def test_restore_succeeds() -> None:
    """The restored schema is migrated."""
    simulation = MeshCluster({"restoreFrom": {"serverName": "old", "backup": "latest"}})
    await simulation.reconcile_until_ready()
    assert simulation.postgres.table_comment


async def test_failed_migration_is_reported_and_retried() -> None:
    """The message is kept although the pod is deleted."""
    simulation = MeshCluster()
    for _ in range(4):
        simulation.run_controllers(complete_jobs=False)
        await simulation.reconcile()
    (first,) = jobs_of(simulation, labels.MIGRATION_POD)
    simulation.finish_job(first, "Failed", "no connection")
    simulation.now = END
    for _ in range(2):
        await simulation.reconcile()
        assert "no connection" in simulation.condition("SchemaReady")[2]
        simulation.run_controllers(complete_jobs=False)
    assert simulation.get("Pod", f"{first['metadata']['name']}-pod") is None
    simulation.now = "2026-01-01T00:02:00Z"
    await simulation.reconcile()
    (second,) = jobs_of(simulation, labels.MIGRATION_POD)
    assert second["metadata"]["uid"] != first["metadata"]["uid"]
    await simulation.reconcile_until_ready()


async def test_scheduled_backups_are_reported_and_do_not_block_the_next_one() -> None:
    """The CronJob starts no Job while one is unfinished. It is deleted once the result is in the status."""
    simulation = MeshCluster({"backup": {}})
    await simulation.reconcile_until_ready()
    run = simulation.put_run("a-backup", "a-backup-1")
    simulation.finish_job(run, "Complete", json.dumps(success(END)))
    await simulation.reconcile()
    assert simulation.condition("BackupReady") == ("True", "Ready", "The last backup is s3://mlflow/b/1.")
    await simulation.reconcile_until_stable()
    assert simulation.get("Job", "a-backup-1") is None
    assert simulation.condition("BackupReady")[0] == "True"


async def test_scheduled_garbage_collections_are_reported_once() -> None:
    """A failure stays reported after its Job was deleted, until a run succeeds."""
    simulation = MeshCluster({"garbageCollection": {}})
    await simulation.reconcile_until_ready()
    simulation.finish_job(simulation.put_run("a-gc", "a-gc-1"), "Failed", "no memory")
    await simulation.reconcile_until_stable()
    assert simulation.get("Job", "a-gc-1") is None
    _, reason, message = simulation.condition("GarbageCollectionReady")
    assert reason == "GarbageCollectionFailed"
    assert "no memory" in message
    run = simulation.put_run("a-gc", "a-gc-2")
    simulation.finish_job(run, "Complete", json.dumps(RESULT))
    simulation.api.edit("Pod", "a-gc-2-pod", _end_later)
    await simulation.reconcile_until_stable()
    assert simulation.get("Job", "a-gc-2") is None
    assert simulation.condition("GarbageCollectionReady")[0] == "True"
    events = [event for event in simulation.events.published if event[1] == "GarbageCollected"]
    assert len(events) == 1


def _end_later(pod: Object) -> None:
    for status in pod["status"]["containerStatuses"]:
        if "terminated" in status["state"]:
            status["state"]["terminated"]["finishedAt"] = "2026-01-01T00:05:00Z"


@pytest.mark.parametrize("error", [Forbidden, Invalid])
async def test_server_starts_without_the_permission_to_change_jobs(
    monkeypatch: pytest.MonkeyPatch, error: type[ClusterError]
) -> None:
    """A custom role of an earlier version does not have it, or an admission policy denies it with the reason Invalid.

    The pods then end at the deadline of the Job.
    """
    simulation = MeshCluster()
    original = simulation.api.json_patch

    async def json_patch(
        kind: Kind, namespace: str | None, name: str, operations: Sequence[Object]
    ) -> Object:
        if kind == kinds.JOB:
            raise error("patch Job: denied")
        return await original(kind, namespace, name, operations)

    monkeypatch.setattr(simulation.api, "json_patch", json_patch)
    await simulation.reconcile_until_ready()


@pytest.mark.parametrize("event", ["restore of a cluster backup", "deletion with orphans"])
async def test_server_does_not_wait_for_suspended_jobs_without_owner(event: str) -> None:
    """Kubernetes never finishes them. A tool that restores a backup skips finished Jobs only, so it restores these."""
    simulation = MeshCluster({"version": OLD_VERSION})
    await simulation.reconcile_until_ready()
    simulation.update_spec(version=DEFAULT_VERSION)
    await simulation.reconcile_until_ready()
    simulation.run_controllers()
    assert len(jobs_of(simulation, labels.MIGRATION_POD)) == 2
    if event == "deletion with orphans":
        simulation.api.orphan(NAME)
        simulation.create_server()
    else:
        objects = [
            obj for (kind, _), obj in simulation.api.objects.items() if kind not in {"Pod", "Namespace"}
        ]
        lose_cluster(simulation)
        for obj in objects:
            simulation.api.put(restored(obj))
    await simulation.reconcile_until_ready()
    assert not jobs_of(simulation, labels.MIGRATION_POD)


async def test_jobs_of_others_are_not_changed() -> None:
    """Anyone may create a Job with the labels of a server."""
    simulation = MeshCluster({"backup": {}})
    await simulation.reconcile_until_ready()
    run = simulation.put_run("a-backup", "a-backup-1")
    simulation.api.edit("Job", "a-backup-1", lambda job: job["metadata"].pop("ownerReferences"))
    simulation.finish_job(run, "Complete", json.dumps(success(END)))
    await simulation.reconcile()
    job = simulation.get("Job", "a-backup-1")
    assert job
    assert "suspend" not in job["spec"]


def test_own_containers_have_the_expected_names() -> None:
    """All other containers of these pods count as injected."""
    names = {
        template["metadata"]["labels"][labels.COMPONENT]: tuple(
            container["name"] for container in template["spec"]["containers"]
        )
        for template in job_templates()
    }
    assert names == dict(labels.JOB_CONTAINERS)
    assert all(chain(names.values()))
