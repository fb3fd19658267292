"""Namespaces with a ResourceQuota on limits, and with a container that is injected into every pod.

docs/guides/quotas-and-sidecars.md describes both.
"""

from collections.abc import Mapping

import pytest

from mlflow_operator.kube import labels
from tests.e2e import namespaces, sidecars, timeouts
from tests.e2e.kube import Kube, Object
from tests.e2e.mlflow_workload import Workload
from tests.e2e.server import Server, eventually, small_spec
from tests.e2e.shared_stores import Platform
from tests.e2e.test_garbage_collection import collect_garbage
from tests.e2e.test_upgrade import jobs

RARE_SCHEDULE = "0 0 29 2 *"
"""Runs only on February 29: the tests create the Jobs by `kubectl create job`."""

LIMITED: Object = {
    "requests": {"cpu": "25m", "memory": "128Mi"},
    "limits": {"cpu": "1", "memory": "2Gi"},
}
SCHEDULED: Mapping[str, Object] = {
    "backup": {"schedule": RARE_SCHEDULE},
    "garbageCollection": {"schedule": RARE_SCHEDULE},
}


def back_up(server: Server, name: str) -> None:
    """Start a backup by `kubectl create job`, as documented, and wait until the status reports it."""
    server.kube.kubectl("create", "job", f"--from=cronjob/{server.names.backup}", name)
    eventually(
        f"the status reports Job {name}",
        lambda: (server.status.get("backup") or {}).get("lastID"),
        timeouts.READY_SECONDS,
    )
    server.wait_for("BackupReady", within=timeouts.STATUS_SECONDS)


def job_pods(server: Server) -> list[str]:
    """Return the names of the pods of Jobs that still use resources of the node."""
    pods = server.running_pods()
    return [
        pod["metadata"]["name"]
        for pod in pods
        if pod["metadata"]["labels"][labels.COMPONENT] in labels.JOB_PODS
    ]


@pytest.mark.long_running(
    reason="embedded stores and three Jobs; tests/unit/model/test_resources.py tests the resources of each Job"
)
def test_server_runs_in_a_namespace_with_a_quota_on_limits(ns: Kube) -> None:
    """The condition names the fields. With them, the server, its stores and all of its Jobs get their pods."""
    namespaces.set_quota(ns, {"limits.cpu": "8", "limits.memory": "32Gi"})
    server = Server(ns).apply(small_spec(**SCHEDULED))
    for condition, field in (
        ("DatabaseReady", "spec.database.embedded.resources"),
        ("ArtifactStoreReady", "spec.artifacts.embedded.resources"),
    ):
        found = server.wait_for(condition, "False", "QuotaExceeded", within=timeouts.RESYNC_SECONDS)
        assert "must specify limits.cpu" in found["message"]
        assert f"Set {field} accordingly" in found["message"]

    embedded = {"embedded": {"resources": LIMITED}}
    server.patch_spec(resources=LIMITED, database=embedded, artifacts=embedded)
    server.wait_ready()
    (migration,) = jobs(server, labels.MIGRATION_POD)
    assert migration["spec"]["template"]["spec"]["containers"][0]["resources"]["limits"]["cpu"] == "1"
    back_up(server, "backup-in-quota")
    collect_garbage(server, "collection-in-quota")


@pytest.mark.long_running(
    reason="an admission webhook and four Jobs; tests/unit/test_sidecars.py and tests/integration/test_sidecars.py "
    "simulate the containers"
)
def test_jobs_complete_with_a_sidecar_that_never_exits(ns: Kube, other_ns: Kube, platform: Platform) -> None:
    """Migration, backup and garbage collection. No pod of a Job is left that would hold resources."""
    stores = {"database": platform.provision_spec(ns), "artifacts": platform.bucket_spec(ns, ns.namespace)}
    with sidecars.inject(ns, other_ns):
        server = Server(ns).apply(small_spec(**stores, **SCHEDULED)).wait_ready()
        containers = [container["name"] for container in server.pod()["spec"]["containers"]]
        assert containers == [sidecars.NAME, "mlflow"]
        (migration,) = jobs(server, labels.MIGRATION_POD)
        assert migration["spec"]["suspend"] is True
        assert '"exitCode": 0' in migration["metadata"]["annotations"][labels.OUTCOME]
        workload = Workload(server.url)
        data = workload.log_data()

        # The CronJobs start no other Job before these are deleted.
        back_up(server, "first-backup")
        eventually(
            "the Job of the backup is deleted",
            lambda: ns.get("Job", "first-backup") is None,
            timeouts.STATUS_SECONDS,
        )
        workload.client.delete_run(workload.create_run())
        collect_garbage(server, "first-collection")
        eventually(
            "the Job of the garbage collection is deleted",
            lambda: ns.get("Job", "first-collection") is None,
            timeouts.STATUS_SECONDS,
        )
        eventually("no pod of a Job runs", lambda: not job_pods(server), timeouts.DELETION_SECONDS)
        workload.check_data(data)
        assert server.conditions()["Ready"]["status"] == "True"
