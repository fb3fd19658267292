"""A Job's outcome is that of the operator's own containers, whatever injected containers do."""

import json

import pytest

from mlflow_operator.kube import job_outcome, labels, pod_diagnosis
from mlflow_operator.kube.objects import Object

RUNNING: Object = {"running": {}}
END = "2026-01-01T00:01:00Z"


def terminated(exit_code: int, message: str = "") -> Object:
    """State of a container that has ended."""
    return {"terminated": {"exitCode": exit_code, "message": message, "finishedAt": END}}


def pod(component: str, conditions: list[Object] | None = None, **states: Object) -> Object:
    """A running pod with these container states. Underscores in names stand for hyphens."""
    statuses = [{"name": name.replace("_", "-"), "state": state} for name, state in states.items()]
    return {
        "kind": "Pod",
        "metadata": {"name": "a-pod", "labels": labels.for_component("a", component)},
        "status": {"phase": "Running", "containerStatuses": statuses, "conditions": conditions or []},
    }


def job(condition: str | None = None) -> Object:
    """A Job, finished with `condition` if there is one."""
    conditions = [{"type": condition, "status": "True", "lastTransitionTime": "t"}] if condition else []
    return {"metadata": {"name": "a", "uid": "u"}, "spec": {}, "status": {"conditions": conditions}}


def condition_of(job_pod: Object, condition: str | None = None) -> str | None:
    """The condition that is recorded; None if nothing is."""
    outcome = job_outcome.to_record(job(condition), [job_pod])
    return outcome.condition_type if outcome else None


@pytest.mark.parametrize(("exit_code", "expected"), [(0, "Complete"), (1, "Failed")])
@pytest.mark.parametrize("sidecar", [RUNNING, {"waiting": {"reason": "CrashLoopBackOff"}}])
def test_sidecar_that_never_exits_does_not_delay_the_outcome(
    exit_code: int, expected: str, sidecar: Object
) -> None:
    """For example the proxy of a service mesh. It may be the first container of the pod."""
    assert condition_of(pod(labels.MIGRATION_POD, proxy=sidecar, migrate=terminated(exit_code))) == expected


def test_all_own_containers_must_have_ended() -> None:
    """A backup has two."""
    running = pod(labels.BACKUP_POD, backup=terminated(0), pg_dump=RUNNING, proxy=RUNNING)
    assert condition_of(running) is None
    assert pod_diagnosis.is_active(running)
    ended = pod(labels.BACKUP_POD, backup=terminated(0), pg_dump=terminated(1), proxy=RUNNING)
    assert condition_of(ended) == "Failed"
    assert not pod_diagnosis.is_active(ended), "it no longer writes"


def test_failed_sidecar_does_not_fail_the_job() -> None:
    """Kubernetes reports that the Job failed."""
    job_pod = pod(labels.RESTORE_POD, restore=terminated(0), pg_restore=terminated(0), proxy=terminated(1))
    assert condition_of(job_pod, "Failed") == "Complete"
    failed = pod(labels.RESTORE_POD, restore=terminated(1), pg_restore=terminated(0), proxy=terminated(1))
    assert condition_of(failed, "Failed") is None


def test_nothing_is_recorded_without_injected_containers() -> None:
    """Kubernetes' own condition follows."""
    assert condition_of(pod(labels.MIGRATION_POD, migrate=terminated(0))) is None
    assert condition_of(pod(labels.MIGRATION_POD, migrate=terminated(0)), "Failed") is None
    assert condition_of(pod(labels.MIGRATION_POD, migrate=terminated(0), proxy=terminated(0))) is None


def test_evicted_pod_is_replaced() -> None:
    """An evicted pod is not an attempt. A success before the eviction counts."""
    evicted: list[Object] = [{"type": "DisruptionTarget", "status": "True"}]
    assert condition_of(pod(labels.MIGRATION_POD, evicted, migrate=terminated(143), proxy=RUNNING)) is None
    assert (
        condition_of(pod(labels.MIGRATION_POD, evicted, migrate=terminated(0), proxy=RUNNING)) == "Complete"
    )


def test_outcome_is_recorded_and_pod_deleted_in_one_request() -> None:
    """The termination message contains the result, and the pod is deleted with it."""
    job_pod = pod(labels.PREFLIGHT_POD, preflight=terminated(0, "result"), proxy=RUNNING)
    outcome = job_outcome.to_record(job(), [job_pod])
    assert outcome
    operations = {op["path"]: op["value"] for op in job_outcome.patch(job(), outcome)}
    assert operations["/spec/suspend"] is True
    assert operations["/metadata/uid"] == "u"
    annotations = operations["/metadata/annotations"]
    stored = job()
    stored["metadata"]["annotations"] = annotations
    assert job_outcome.recorded(stored) == outcome
    assert outcome.containers["preflight"]["message"] == "result"
    assert json.loads(annotations[labels.OUTCOME])["time"] == END
    finished = job_outcome.with_outcome(stored, outcome)
    assert finished["status"]["conditions"] == [
        {"type": "Complete", "status": "True", "lastTransitionTime": END}
    ]
    assert "/spec/suspend" not in {op["path"] for op in job_outcome.patch(job("Failed"), outcome)}


@pytest.mark.parametrize(
    "text", ["", "x", "[]", "{}", '{"time": "t", "containers": ["a"]}', '{"containers": {}}']
)
def test_invalid_annotation_is_ignored(text: str) -> None:
    """It does not stop the reconcile."""
    stored = job()
    stored["metadata"]["annotations"] = {labels.OUTCOME: text}
    assert job_outcome.recorded(stored) is None
