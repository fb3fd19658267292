"""The clean-up beside a server: when its CronJob may begin, and what is said of its Jobs."""

import json
from typing import Any

import pytest

from mlflow_operator.kube import kinds
from mlflow_operator.kube.objects import Object
from mlflow_operator.status.conditions import ConditionType, Reason
from tests.unit.components.garbage_collection.test_manifests import SAID
from tests.unit.simulation import NAMESPACE, World

GC = ConditionType.GARBAGE_COLLECTION.value
FAULT = {"kind": "runs", "said": "run 7 of experiment 1: RuntimeError: a.txt is still there"}


@pytest.fixture
async def world(monkeypatch: pytest.MonkeyPatch) -> World:
    """A server that is Ready, with a clean-up."""
    found = World(monkeypatch, {"garbageCollection": {}})
    await found.until_settled()
    return found


def cronjob(world: World) -> Object | None:
    """As it is stored."""
    return world.get("CronJob", "a-gc")


def paused(world: World) -> bool:
    """Whether no Job begins."""
    found = cronjob(world)
    assert found
    return bool(found["spec"]["suspend"])


def status(world: World) -> Object:
    """What the status says of the last round."""
    found = world.get("MLflowServer", "a")
    assert found
    return dict(found["status"].get("garbageCollection") or {})


async def ended(world: World, how: str, at: str, **said: Any) -> Object:
    """A round ends, and the operator hears of it."""
    live = cronjob(world)
    assert live
    name = f"a-gc-{at[-3:-1]}"
    template = live["spec"]["jobTemplate"]
    meta = {"name": name, "namespace": NAMESPACE, "uid": name, "labels": template["metadata"]["labels"]}
    world.api.put(
        {"apiVersion": "batch/v1", "kind": kinds.JOB.kind, "metadata": meta, "spec": template["spec"]}
    )
    job = world.get("Job", name)
    assert job
    world.now = at
    world.end_job(job, how, json.dumps(SAID | said))
    await world.reconcile()
    return job


def told(world: World) -> list[str]:
    """Events about rounds that got through."""
    return [message for _, reason, message in world.events.published if reason == "GarbageCollected"]


async def test_it_is_there_once_the_server_is_and_goes_when_nobody_asks_any_more(world: World) -> None:
    """And nothing is said of it then."""
    assert not paused(world)
    assert world.condition(GC)[:2] == ("True", "Ready")
    await ended(world, "Complete", "2026-01-01T00:00:01Z")
    assert status(world)
    world.api.edit("MLflowServer", "a", lambda live: live["spec"].pop("garbageCollection"))
    await world.until_settled()
    assert cronjob(world) is None
    found = world.get("MLflowServer", "a")
    assert found
    assert GC not in {each["type"] for each in found["status"]["conditions"]}
    assert not status(world)


async def test_it_begins_nothing_before_the_server_serves(monkeypatch: pytest.MonkeyPatch) -> None:
    """There is nothing to clean up, and nobody to speak to."""
    world = World(monkeypatch, {"garbageCollection": {}})
    await world.reconcile()
    assert cronjob(world) is None


async def test_it_is_paused_while_the_server_is_suspended(world: World) -> None:
    """What is under way is ended, for the database goes from under it."""
    job = cronjob(world)
    assert job
    template = job["spec"]["jobTemplate"]
    meta = {
        "name": "a-gc-now",
        "namespace": NAMESPACE,
        "uid": "now",
        "labels": template["metadata"]["labels"],
    }
    world.api.put({"apiVersion": "batch/v1", "kind": "Job", "metadata": meta, "spec": template["spec"]})
    world.change(suspend=True)
    await world.reconcile()
    assert paused(world)
    assert world.condition(GC)[:2] == ("False", Reason.SUSPENDED.value)
    assert world.get("Job", "a-gc-now") is None
    world.change(suspend=False)
    await world.until_settled()
    assert not paused(world)
    assert world.condition(GC)[0] == "True"


async def test_it_is_paused_while_another_version_comes_in(world: World) -> None:
    """What the new image would make of the old tables is not to be tried out."""
    world.change(version="3.14.0")
    await world.reconcile()
    assert paused(world)


async def test_what_it_removed_is_told_once(world: World) -> None:
    """In the status for good, and in one Event."""
    await ended(world, "Complete", "2026-01-01T00:00:01Z")
    assert status(world) == {
        "lastRunTime": "2026-01-01T00:00:01Z",
        "mode": "Delete",
        "deletedRuns": 12,
        "deletedModels": 1,
        "deletedExperiments": 0,
        "deletedTraces": 40,
    }
    writes = len(world.api.writes)
    await world.reconcile()
    assert len(told(world)) == 1
    assert "12 runs" in told(world)[0]
    assert len(world.api.writes) == writes
    await ended(world, "Complete", "2026-01-01T00:00:02Z", runs=0)
    assert status(world)["deletedRuns"] == 0
    assert len(told(world)) == 2


async def test_the_counts_outlive_the_pod(world: World) -> None:
    """A node that goes takes it along."""
    await ended(world, "Complete", "2026-01-01T00:00:01Z")
    before = status(world)
    del world.api.objects["Pod", "a-gc-01-pod"]
    await world.reconcile()
    assert status(world) == before


async def test_a_failure_is_told_until_a_round_gets_through(world: World) -> None:
    """With the cause and the way to try at once; and the server is Ready all the same."""
    await ended(world, "Complete", "2026-01-01T00:00:01Z")
    await ended(world, "Failed", "2026-01-01T00:00:02Z", failed=1, faults=[FAULT])
    state, reason, message = world.condition(GC)
    assert (state, reason) == ("False", Reason.GARBAGE_COLLECTION_FAILED.value)
    assert "a.txt is still there" in message
    assert "kubectl create job -n team --from=cronjob/a-gc a-gc-now" in message
    assert world.condition("Ready")[0] == "True"
    assert status(world)["lastRunTime"] == "2026-01-01T00:00:01Z"
    assert status(world)["lastFailureTime"] == "2026-01-01T00:00:02Z"
    del world.api.objects["Pod", "a-gc-02-pod"]
    await world.reconcile()
    assert world.condition(GC) == (state, reason, message)
    await ended(world, "Complete", "2026-01-01T00:00:03Z")
    assert world.condition(GC)[0] == "True"


async def test_a_schedule_that_never_comes_is_refused_in_a_sentence(world: World) -> None:
    """The API server would refuse the CronJob, in words of its own."""
    world.change(garbageCollection={"schedule": "0 3 31 2 *"})
    await world.reconcile()
    state, _, message = world.condition(GC)
    assert state == "False"
    assert "spec.garbageCollection.schedule" in message
