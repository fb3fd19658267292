"""Manifest of the garbage collection CronJob, and the results of its pods."""

import json
from typing import Any

import pytest

from mlflow_operator import render
from mlflow_operator.components.garbage_collection import manifests
from mlflow_operator.kube import labels
from mlflow_operator.kube.objects import Object
from tests.unit.servers import env, server

RESULT = {
    "mode": "Delete",
    "version": "3.17.2",
    "runs": 12,
    "models": 1,
    "experiments": 0,
    "traces": 40,
    "kept": 0,
    "failed": 0,
    "unsupported": [],
    "errors": [],
}


def cronjob(spec: Object | None = None, **server_spec: Any) -> Object:
    """The rendered CronJob."""
    objects = render.objects(server({"garbageCollection": spec or {}, **server_spec}))
    (found,) = (obj for obj in objects if obj["kind"] == "CronJob")
    return found


def job_settings(spec: Object) -> Any:
    """The settings of the script."""
    pod = cronjob(spec)["spec"]["jobTemplate"]["spec"]["template"]["spec"]
    return json.loads(env(pod["containers"][0])[manifests.SETTINGS_VARIABLE])


def result(**overrides: Any) -> manifests.CollectionResult:
    """A valid result with changes."""
    parsed = manifests.parse(json.dumps(RESULT | overrides))
    assert parsed
    return parsed


def test_no_cronjob_by_default() -> None:
    """Without `spec.garbageCollection` nothing is deleted."""
    assert all(obj["kind"] != "CronJob" for obj in render.objects(server()))


def test_settings_follow_spec() -> None:
    """Defaults: 30 days, all experiments, no traces."""
    assert job_settings({}) == {
        "mode": "Delete",
        "olderThanSeconds": 30 * 86400,
        "experimentIDs": [],
        "tracesOlderThanSeconds": None,
    }
    assert job_settings(
        {"olderThan": "1h30m", "experimentIDs": ["7", "12"], "mode": "DryRun", "traces": {"olderThan": "0s"}}
    ) == {
        "mode": "DryRun",
        "olderThanSeconds": 5400,
        "experimentIDs": ["12", "7"],
        "tracesOlderThanSeconds": 0,
    }


def test_pod_has_image_and_environment_of_the_server() -> None:
    """So it has the same plugins and keys. Its Jobs have the labels by which the operator finds them."""
    found = cronjob()
    template = found["spec"]["jobTemplate"]
    assert template["metadata"]["labels"][labels.COMPONENT] == labels.GARBAGE_COLLECTION_POD
    assert found["metadata"]["name"] == "a-gc"
    (container,) = template["spec"]["template"]["spec"]["containers"]
    expected = server()
    assert container["image"] == expected.image
    assert env(container)["MLFLOW_TRACKING_URI"] == expected.url
    assert {"PYTHONPATH", "MLFLOW_S3_ENDPOINT_URL"} <= env(container).keys()
    assert "ports" not in container
    assert "livenessProbe" not in container


def test_cronjob_is_suspended_with_the_server() -> None:
    """There is no server to send requests to."""
    assert cronjob(suspend=True)["spec"]["suspend"] is True
    assert cronjob()["spec"]["suspend"] is False


@pytest.mark.parametrize(
    "text",
    [
        None,
        "",
        "Traceback (most recent call last):",
        json.dumps(RESULT)[:-1],
        json.dumps({**RESULT, "runs": -1}),
        json.dumps({**RESULT, "runs": "12"}),
        json.dumps({**RESULT, "more": 1}),
        json.dumps({**RESULT, "mode": "Maybe"}),
        json.dumps({**RESULT, "errors": [{"code": "runs", "message": "x" * 4000}]}),
    ],
)
def test_invalid_termination_message_is_no_result(text: str | None) -> None:
    """It does not count as a successful run."""
    assert manifests.parse(text) is None


def test_event_message_has_counts() -> None:
    """And the command that shows the list."""
    assert result().event_message("team", "a-gc-1") == (
        "Permanently deleted: 12 runs, 1 model, 0 experiments and 40 traces. "
        "For the list, run: kubectl logs -n team job/a-gc-1"
    )
    dry_run = result(mode="DryRun", kept=2, unsupported=["logged models"])
    message = dry_run.event_message("team", "a-gc-1")
    assert message.startswith("Would delete: 12 runs")
    assert "still in use: 2." in message
    assert "MLflow 3.17.2 cannot delete logged models." in message


def test_dry_run_reports_no_deletions() -> None:
    """Whatever its counts are."""
    assert result(mode="DryRun").status == {
        "mode": "DryRun",
        "deletedRuns": 0,
        "deletedModels": 0,
        "deletedExperiments": 0,
        "deletedTraces": 0,
    }
    assert result().status["deletedRuns"] == 12
