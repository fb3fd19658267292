"""Reconciliation of garbage collection in a simulated cluster."""

import asyncio
import json
from typing import Any

import pytest

from mlflow_operator.kube import kinds
from mlflow_operator.kube.kinds import Kind
from mlflow_operator.kube.objects import Object
from mlflow_operator.status.conditions import ConditionType, Reason
from tests.unit.components.garbage_collection.test_manifests import RESULT
from tests.unit.simulation import NAMESPACE, SimulatedCluster

CONDITION_TYPE = ConditionType.GARBAGE_COLLECTION.value
ERROR = {"code": "runs", "message": "run 7 of experiment 1: RuntimeError: a.txt is still there"}


@pytest.fixture
async def simulation() -> SimulatedCluster:
    """A Ready server with garbage collection."""
    return await SimulatedCluster.ready({"garbageCollection": {}})


def cronjob(simulation: SimulatedCluster) -> Object | None:
    """The stored CronJob."""
    return simulation.get("CronJob", "a-gc")


def is_suspended(simulation: SimulatedCluster) -> bool:
    """Whether the CronJob is suspended."""
    found = cronjob(simulation)
    assert found
    return bool(found["spec"]["suspend"])


def status(simulation: SimulatedCluster) -> Object:
    """`status.garbageCollection`."""
    resource = simulation.get("MLflowServer", "a")
    assert resource
    return dict(resource["status"].get("garbageCollection") or {})


def start_run(simulation: SimulatedCluster, name: str) -> Object:
    """Create a Job of the CronJob."""
    observed = cronjob(simulation)
    assert observed
    template = observed["spec"]["jobTemplate"]
    meta = {"name": name, "namespace": NAMESPACE, "uid": name, "labels": template["metadata"]["labels"]}
    simulation.api.put(
        {"apiVersion": "batch/v1", "kind": kinds.JOB.kind, "metadata": meta, "spec": template["spec"]}
    )
    job = simulation.get("Job", name)
    assert job
    return job


async def finish_run(
    simulation: SimulatedCluster, job_condition: str, finished_at: str, **result: Any
) -> Object:
    """Create and finish a Job of the CronJob, and reconcile."""
    job = start_run(simulation, f"a-gc-{finished_at[-3:-1]}")
    simulation.now = finished_at
    simulation.finish_job(job, job_condition, json.dumps(RESULT | result))
    await simulation.reconcile()
    return job


def event_messages(simulation: SimulatedCluster) -> list[str]:
    """Messages of the Events about successful runs."""
    return [message for _, reason, message in simulation.events.published if reason == "GarbageCollected"]


async def test_cronjob_and_status_are_deleted_with_the_spec(simulation: SimulatedCluster) -> None:
    """The CronJob exists once the server is Ready."""
    assert not is_suspended(simulation)
    assert simulation.condition(CONDITION_TYPE)[:2] == ("True", "Ready")
    await finish_run(simulation, "Complete", "2026-01-01T00:00:01Z")
    assert status(simulation)
    simulation.api.edit("MLflowServer", "a", lambda resource: resource["spec"].pop("garbageCollection"))
    await simulation.reconcile_until_stable()
    assert cronjob(simulation) is None
    resource = simulation.get("MLflowServer", "a")
    assert resource
    assert CONDITION_TYPE not in {condition["type"] for condition in resource["status"]["conditions"]}
    assert not status(simulation)


async def test_no_cronjob_before_the_server_runs() -> None:
    """There is nothing to delete yet, and no server to send requests to."""
    simulation = SimulatedCluster({"garbageCollection": {}})
    await simulation.reconcile()
    assert cronjob(simulation) is None


async def test_cronjob_is_suspended_and_job_deleted_with_the_server(simulation: SimulatedCluster) -> None:
    """The database is stopped, too."""
    start_run(simulation, "a-gc-now")
    simulation.update_spec(suspend=True)
    await simulation.reconcile()
    assert is_suspended(simulation)
    assert simulation.condition(CONDITION_TYPE)[:2] == ("False", Reason.SUSPENDED.value)
    assert simulation.get("Job", "a-gc-now") is None
    simulation.update_spec(suspend=False)
    await simulation.reconcile_until_stable()
    assert not is_suspended(simulation)
    assert simulation.condition(CONDITION_TYPE)[0] == "True"


async def test_cronjob_is_suspended_during_an_upgrade(simulation: SimulatedCluster) -> None:
    """The effect of the new image on the old schema is unknown."""
    simulation.update_spec(version="3.14.0")
    await simulation.reconcile()
    assert is_suspended(simulation)


async def test_result_is_reported_once(simulation: SimulatedCluster) -> None:
    """In the status, and in one Event."""
    await finish_run(simulation, "Complete", "2026-01-01T00:00:01Z")
    assert status(simulation) == {
        "lastRunTime": "2026-01-01T00:00:01Z",
        "mode": "Delete",
        "deletedRuns": 12,
        "deletedModels": 1,
        "deletedExperiments": 0,
        "deletedTraces": 40,
    }
    write_count = len(simulation.api.writes)
    await simulation.reconcile()
    assert len(event_messages(simulation)) == 1
    assert "12 runs" in event_messages(simulation)[0]
    assert len(simulation.api.writes) == write_count
    await finish_run(simulation, "Complete", "2026-01-01T00:00:02Z", runs=0)
    assert status(simulation)["deletedRuns"] == 0
    assert len(event_messages(simulation)) == 2


async def test_counts_of_a_run_that_ends_during_the_reconcile_are_reported(
    simulation: SimulatedCluster, monkeypatch: pytest.MonkeyPatch
) -> None:
    """They are in the pod only, so the operator must not see a finished Job and an older state of its pod."""
    job, original = start_run(simulation, "a-gc-01"), simulation.api.list

    async def list_while_run_ends(kind: Kind, *args: str, **limits: Any) -> list[Object]:
        if kind == kinds.JOB:
            # Other requests are answered before this one.
            await asyncio.sleep(0)
            simulation.finish_job(job, "Complete", json.dumps(RESULT))
        return await original(kind, *args, **limits)

    with monkeypatch.context() as patched:
        patched.setattr(simulation.api, "list", list_while_run_ends)
        await simulation.reconcile()
    await simulation.reconcile()
    assert status(simulation)["deletedRuns"] == RESULT["runs"]
    assert len(event_messages(simulation)) == 1


async def test_counts_stay_after_the_pod_is_deleted(simulation: SimulatedCluster) -> None:
    """For example with its node."""
    await finish_run(simulation, "Complete", "2026-01-01T00:00:01Z")
    previous = status(simulation)
    del simulation.api.objects["Pod", "a-gc-01-pod"]
    await simulation.reconcile()
    assert status(simulation) == previous


async def test_failure_is_reported_until_a_run_succeeds(simulation: SimulatedCluster) -> None:
    """With the cause and the command for another run. The server stays Ready."""
    await finish_run(simulation, "Complete", "2026-01-01T00:00:01Z")
    await finish_run(simulation, "Failed", "2026-01-01T00:00:02Z", failed=1, errors=[ERROR])
    state, reason, message = simulation.condition(CONDITION_TYPE)
    assert (state, reason) == ("False", Reason.GARBAGE_COLLECTION_FAILED.value)
    assert "a.txt is still there" in message
    assert "kubectl create job -n team --from=cronjob/a-gc a-gc-now" in message
    assert simulation.condition("Ready")[0] == "True"
    assert status(simulation)["lastRunTime"] == "2026-01-01T00:00:01Z"
    assert status(simulation)["lastFailureTime"] == "2026-01-01T00:00:02Z"
    del simulation.api.objects["Pod", "a-gc-02-pod"]
    await simulation.reconcile()
    assert simulation.condition(CONDITION_TYPE) == (state, reason, message)
    await finish_run(simulation, "Complete", "2026-01-01T00:00:03Z")
    assert simulation.condition(CONDITION_TYPE)[0] == "True"


async def test_schedule_without_any_date_is_reported(simulation: SimulatedCluster) -> None:
    """The error names the field, unlike the API server's error for the CronJob."""
    simulation.update_spec(garbageCollection={"schedule": "0 3 31 2 *"})
    await simulation.reconcile()
    state, _, message = simulation.condition(CONDITION_TYPE)
    assert state == "False"
    assert "spec.garbageCollection.schedule" in message
