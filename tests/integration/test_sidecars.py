"""The real Job controller ends the pod of a Job in which only an injected container still runs."""

import json

from mlflow_operator.kube import kinds, labels
from mlflow_operator.kube.objects import Object
from tests.apiserver.client import Client
from tests.integration.operator import Operator
from tests.integration.server import Server
from tests.polling import eventually

RUN = "by-hand"
STARTED_AT, FINISHED_AT = "2026-01-01T00:00:00Z", "2026-01-01T00:01:00Z"
RESULT: Object = {
    "mode": "Delete",
    "version": None,
    "runs": 3,
    "models": 0,
    "experiments": 0,
    "traces": 0,
    "kept": 0,
    "failed": 0,
    "unsupported": [],
    "errors": [],
}


def create_run(server: Server) -> Object:
    """Create a Job of the garbage collection CronJob, like `kubectl create job --from`."""
    name = server.names.garbage_collection

    def active_cronjob() -> Object | None:
        found = server.get(kinds.CRONJOB, name)
        return found if found and not found["spec"]["suspend"] else None

    cronjob = eventually("the CronJob is not suspended", active_cronjob)
    owner = {
        "apiVersion": kinds.CRONJOB.api_version,
        "kind": kinds.CRONJOB.kind,
        "name": name,
        "uid": cronjob["metadata"]["uid"],
        "controller": True,
    }
    template = cronjob["spec"]["jobTemplate"]
    metadata = {
        **template["metadata"],
        "name": RUN,
        "namespace": server.namespace,
        "ownerReferences": [owner],
    }
    job = {"apiVersion": kinds.JOB.api_version, "kind": kinds.JOB.kind, "metadata": metadata}
    return server.client.create(kinds.JOB, {**job, "spec": template["spec"]})


def running_pod(server: Server, job: Object) -> Object | None:
    """Return the pod of a Job once it runs."""
    for pod in server.objects(kinds.POD):
        owners = {owner["uid"] for owner in pod["metadata"].get("ownerReferences") or ()}
        if job["metadata"]["uid"] in owners and (pod.get("status") or {}).get("phase") == "Running":
            return pod
    return None


def end_own_container(server: Server, pod: Object) -> None:
    """Report, as the kubelet would, that the own container has ended and that an injected one runs."""
    (own,) = pod["status"]["containerStatuses"]
    terminated = {
        "exitCode": 0,
        "reason": "Completed",
        "message": json.dumps(RESULT),
        "startedAt": STARTED_AT,
        "finishedAt": FINISHED_AT,
    }
    ended = own | {"ready": False, "started": False, "state": {"terminated": terminated}}
    proxy = own | {"name": "proxy", "state": {"running": {"startedAt": STARTED_AT}}}
    statuses = {"containerStatuses": [proxy, ended]}
    name = pod["metadata"]["name"]
    server.client.merge(kinds.POD, server.namespace, name, {"status": statuses}, "status")


def test_run_with_a_sidecar_that_never_exits_ends(
    operator: Operator, admin: Client, namespace: str, spec: Object
) -> None:
    """The pod is deleted, the result is reported, and the Job does not keep the CronJob from starting the next one."""
    server = Server(admin, namespace).apply(spec | {"garbageCollection": {}}).wait_ready()
    job = create_run(server)
    pod = eventually("the pod of the Job runs", lambda: running_pod(server, job))
    assert pod["metadata"]["labels"][labels.COMPONENT] == labels.GARBAGE_COLLECTION_POD
    end_own_container(server, pod)

    eventually(
        "the status has the result",
        lambda: (server.status.get("garbageCollection") or {}).get("lastRunTime") == FINISHED_AT,
    )
    assert server.status["garbageCollection"]["deletedRuns"] == RESULT["runs"]
    assert server.wait_for("GarbageCollectionReady")
    eventually("the pod is deleted", lambda: not server.get(kinds.POD, pod["metadata"]["name"]))
    eventually("the Job is deleted", lambda: not server.get(kinds.JOB, RUN))
