"""The clean-up's CronJob, and what is made of its answer."""

import json
from typing import Any

import pytest

from mlflow_operator import render as desired
from mlflow_operator.components.garbage_collection import manifests as garbage
from mlflow_operator.kube import labels
from mlflow_operator.kube.objects import Object
from tests.unit.servers import env, server

SAID = {
    "mode": "Delete",
    "version": "3.17.2",
    "runs": 12,
    "models": 1,
    "experiments": 0,
    "traces": 40,
    "kept": 0,
    "failed": 0,
    "missing": [],
    "faults": [],
}


def cronjob(spec: Object | None = None, **more: Any) -> Object:
    """As `render` shows it."""
    made = desired.objects(server({"garbageCollection": spec or {}, **more}))
    (found,) = (obj for obj in made if obj["kind"] == "CronJob")
    return found


def asked(spec: Object) -> Any:
    """What the payload is asked for."""
    pod = cronjob(spec)["spec"]["jobTemplate"]["spec"]["template"]["spec"]
    return json.loads(env(pod["containers"][0])[garbage.SETTINGS])


def answer(**other: Any) -> garbage.CollectionResult:
    """One that can be read, some of it changed."""
    found = garbage.parse(json.dumps(SAID | other))
    assert found
    return found


def test_nothing_is_removed_unless_somebody_asks() -> None:
    """No CronJob for a server that says nothing of it."""
    assert all(obj["kind"] != "CronJob" for obj in desired.objects(server()))


def test_it_says_what_is_asked_for() -> None:
    """Thirty days, all experiments, no traces, where nothing more is said."""
    assert asked({}) == {
        "mode": "Delete",
        "olderThanSeconds": 30 * 86400,
        "experimentIDs": [],
        "tracesOlderThanSeconds": None,
    }
    assert asked(
        {"olderThan": "1h30m", "experimentIDs": ["7", "12"], "mode": "DryRun", "traces": {"olderThan": "0s"}}
    ) == {
        "mode": "DryRun",
        "olderThanSeconds": 5400,
        "experimentIDs": ["12", "7"],
        "tracesOlderThanSeconds": 0,
    }


def test_it_runs_where_the_server_does_and_speaks_to_it() -> None:
    """The same image and environment, so the same plugins and keys; and the labels by which its Jobs are found."""
    made = cronjob()
    template = made["spec"]["jobTemplate"]
    assert template["metadata"]["labels"][labels.COMPONENT] == labels.GARBAGE_COLLECTION_POD
    assert made["metadata"]["name"] == "a-gc"
    (container,) = template["spec"]["template"]["spec"]["containers"]
    wanted = server()
    assert container["image"] == wanted.image
    assert env(container)["MLFLOW_TRACKING_URI"] == wanted.url
    assert {"PYTHONPATH", "MLFLOW_S3_ENDPOINT_URL"} <= env(container).keys()
    assert "ports" not in container
    assert "livenessProbe" not in container


def test_a_suspended_servers_clean_up_is_paused() -> None:
    """There is nobody to speak to."""
    assert cronjob(suspend=True)["spec"]["suspend"] is True
    assert cronjob()["spec"]["suspend"] is False


@pytest.mark.parametrize(
    "text",
    [
        None,
        "",
        "Traceback (most recent call last):",
        json.dumps(SAID)[:-1],
        json.dumps({**SAID, "runs": -1}),
        json.dumps({**SAID, "runs": "12"}),
        json.dumps({**SAID, "more": 1}),
        json.dumps({**SAID, "mode": "Maybe"}),
        json.dumps({**SAID, "faults": [{"kind": "runs", "said": "x" * 4000}]}),
    ],
)
def test_what_can_not_be_read_is_no_answer(text: str | None) -> None:
    """Never taken for a round that got through."""
    assert garbage.parse(text) is None


def test_an_event_tells_the_counts() -> None:
    """And where the list is."""
    assert answer().news("team", "a-gc-1") == (
        "Removed for good: 12 runs, 1 model, 0 experiments and 40 traces. "
        "The list: kubectl logs -n team job/a-gc-1"
    )
    told = answer(mode="DryRun", kept=2, missing=["logged models"]).news("team", "a-gc-1")
    assert told.startswith("Would be removed: 12 runs")
    assert "still of use: 2." in told
    assert "MLflow 3.17.2 has no way to remove logged models." in told


def test_a_dry_run_has_deleted_nothing() -> None:
    """Whatever it counted."""
    assert answer(mode="DryRun").status == {
        "mode": "DryRun",
        "deletedRuns": 0,
        "deletedModels": 0,
        "deletedExperiments": 0,
        "deletedTraces": 0,
    }
    assert answer().status["deletedRuns"] == 12
