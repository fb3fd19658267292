"""The upgrade plan for each combination of running version, database and image."""

import json
from typing import Any

import pytest

from mlflow_operator.components.upgrade import preflight_decision
from mlflow_operator.components.upgrade import status as upgrade_status
from mlflow_operator.components.upgrade.preflight_decision import RunningVersion
from mlflow_operator.components.upgrade.preflight_result import SchemaChange, parse
from mlflow_operator.model import jobs
from mlflow_operator.model.server import Server
from mlflow_operator.model.versions import SCHEMA_HEADS
from mlflow_operator.status.conditions import Reason
from tests.unit.servers import env
from tests.unit.servers import server as resolved

HEAD = "dc11669786a5"
DEFAULT_IMAGE = "ghcr.io/mlflow/mlflow:v3.17.2-full"
OLD_IMAGE = "ghcr.io/mlflow/mlflow:v3.16.1-full"
RESULT = {"version": "3.17.2", "revision": "b7e2c1a4d9f3", "head": HEAD, "change": "forward", "steps": 2}
OLD_VERSION = RunningVersion("3.16.1", OLD_IMAGE, "b7e2c1a4d9f3")
NOTHING = RunningVersion(None, None, None)


def server(**spec: Any) -> Server:
    """A server with an explicit version."""
    return resolved({"version": "3.17.2", **spec})


def result_text(**overrides: Any) -> str:
    """Termination message of a preflight, with changes."""
    return json.dumps({**RESULT, "errors": [], **overrides})


@pytest.mark.parametrize(
    ("case", "running", "revision", "head", "needed"),
    [
        ("first start on an empty database", NOTHING, None, HEAD, False),
        ("first start of a custom image on an empty database", NOTHING, None, None, False),
        ("first start on a matching schema", NOTHING, HEAD, HEAD, False),
        ("first start on an older schema", NOTHING, "b7e2c1a4d9f3", HEAD, True),
        ("first start of a custom image on a schema", NOTHING, HEAD, None, True),
        ("no change", RunningVersion("3.17.2", DEFAULT_IMAGE, HEAD), HEAD, HEAD, False),
        (
            "schema migrated by another program",
            RunningVersion("3.17.2", DEFAULT_IMAGE, HEAD),
            "f4a9b2c7d1e6",
            HEAD,
            True,
        ),
        (
            "database emptied by another program",
            RunningVersion("3.17.2", DEFAULT_IMAGE, HEAD),
            None,
            HEAD,
            False,
        ),
        ("another version", OLD_VERSION, "b7e2c1a4d9f3", HEAD, True),
        (
            "another image with a matching schema",
            RunningVersion("3.17.1", "mirror/mlflow:1", HEAD),
            HEAD,
            HEAD,
            True,
        ),
    ],
)
def test_preflight_is_needed_if_data_could_be_harmed(
    case: str, running: RunningVersion, revision: str | None, head: str | None, needed: bool
) -> None:
    """A first start on an empty database needs none."""
    assert preflight_decision.needs_preflight(running, server(), revision, head) is needed, case


def test_result_is_parsed() -> None:
    """With all values, or with errors in the place of unknown values."""
    result = parse(result_text())
    assert result
    assert (result.change, result.steps, result.errors) == (SchemaChange.FORWARD, 2, ())
    errors = [{"code": "database", "message": "refused"}]
    failed = parse(result_text(version=None, head=None, errors=errors))
    assert failed
    assert failed.errors[0].message == "refused"


@pytest.mark.parametrize(
    "text",
    [
        None,
        "",
        "{}",
        "null",
        "[]",
        result_text()[:-1],
        f"well: {result_text()}",
        result_text(change="back"),
        result_text(change=None),
        result_text(version=None),
        result_text(version="3.17.2\n"),
        result_text(version=3.17),
        result_text(head=None),
        result_text(head=""),
        result_text(steps="2"),
        result_text(steps=0),
        result_text(steps=True),
        result_text(revision=HEAD),
        result_text(change="none"),
        result_text(change="unknown"),
        result_text(change="unknown", steps=None, revision=None),
        result_text(errors=None),
        result_text(errors=["boom"]),
        result_text(errors=[{"code": "bucket"}]),
        result_text(more="than was asked"),
        result_text(errors=[{"code": "bucket", "message": "x" * 3100}]),
    ],
)
def test_invalid_termination_message_is_no_result(text: str | None) -> None:
    """Truncated, invalid or contradictory."""
    assert parse(text) is None


def refusal(server: Server, text: str, running: RunningVersion = OLD_VERSION) -> tuple[Reason, str]:
    """Reason and message of the refusal."""
    result = parse(text)
    assert result
    error = preflight_decision.refusal(running, server, result)
    assert error
    return error.reason, error.message


@pytest.mark.parametrize(
    ("code", "text"),
    [
        (
            "driver",
            "lacks a Python package: boto3. Nothing was changed; version 3.16.1 keeps running. Use the -full",
        ),
        ("mlflow", "cannot run the MLflow server: boto3."),
        ("encoding", "has the encoding boto3, which MLflow does not support."),
        ("read-only", "cannot use the database: boto3."),
        ("privilege", "GRANT the missing privileges"),
        ("bucket", "cannot write to the artifact store: boto3."),
        ("timeout", "The preflight timed out: boto3."),
        ("code of a later script", "cannot use the database: boto3."),
    ],
)
def test_error_message_has_fact_consequence_and_advice(code: str, text: str) -> None:
    """And how to revert the change."""
    errors = [{"code": code, "message": "boto3"}]
    reason, message = refusal(server(), result_text(errors=errors))
    assert reason is Reason.PREFLIGHT_FAILED
    assert text in message
    assert "or set spec.version back to 3.16.1." in message


def test_local_version_of_custom_build_is_ignored() -> None:
    """`3.17.2+corp` is 3.17.2. Without an explicit version, any version is accepted."""
    custom_build = parse(result_text(version="3.17.2+corp"))
    other_version = parse(result_text(version="3.15.0"))
    assert custom_build
    assert other_version
    custom_image = server(image="own/mlflow:9")
    assert preflight_decision.refusal(OLD_VERSION, custom_image, custom_build) is None
    assert preflight_decision.refusal(OLD_VERSION, resolved({"image": "own/mlflow:9"}), other_version) is None
    error = preflight_decision.refusal(OLD_VERSION, custom_image, other_version)
    assert error
    assert "contains MLflow 3.15.0 instead of 3.17.2" in error.message
    assert "revert to the image" in error.message


@pytest.mark.parametrize(
    ("case", "running", "revision", "advice"),
    [
        (
            "running version has this revision",
            RunningVersion("3.19.0", "own:1", "unheard"),
            "unheard",
            "revert to version 3.19.0",
        ),
        ("known revision", NOTHING, HEAD, "revert to version 3.17.2"),
        (
            "unknown revision",
            RunningVersion("3.19.0", "own:1", "another"),
            "unheard",
            "revert to the version that migrated it",
        ),
    ],
)
def test_newer_schema_message_names_the_version_to_revert_to(
    case: str, running: RunningVersion, revision: str, advice: str
) -> None:
    """If it is known."""
    text = result_text(revision=revision, change="unknown", steps=None)
    reason, message = refusal(server(), text, running)
    assert reason is Reason.SCHEMA_NEWER_THAN_IMAGE
    assert advice in message, case
    assert "restore a backup from before the migration" in message


@pytest.mark.parametrize(
    ("case", "spec", "running", "change", "stop_servers"),
    [
        ("migration", {}, OLD_VERSION, "forward", True),
        (
            "migration that requires stopped writers, with rolling update",
            {"upgrade": {"strategy": "RollingUpdate"}},
            OLD_VERSION,
            "forward",
            True,
        ),
        ("no migration", {}, OLD_VERSION, "none", False),
        (
            "same image on a restored backup",
            {},
            RunningVersion("3.17.2", DEFAULT_IMAGE, HEAD),
            "forward",
            False,
        ),
        ("first start", {}, NOTHING, "forward", False),
    ],
)
def test_servers_stop_only_for_a_migration_by_another_version(
    case: str, spec: Any, running: RunningVersion, change: str, stop_servers: bool
) -> None:
    """Only servers of another version than the migrated schema must stop."""
    unchanged: dict[str, Any] = {} if change == "forward" else {"revision": HEAD, "steps": 0}
    result = parse(result_text(change=change, **unchanged))
    assert result
    plan = preflight_decision.plan(running, server(**spec), result, None, switching_database=False)
    assert plan.stop_servers is stop_servers, case


def test_servers_keep_running_with_rolling_update() -> None:
    """If no release on the way requires that all writers are stopped."""
    text = result_text(version="3.16.1", revision=SCHEMA_HEADS["3.15.2"], head=SCHEMA_HEADS["3.16.1"])
    result = parse(text)
    assert result
    running = RunningVersion("3.15.2", "mirror/mlflow:1", SCHEMA_HEADS["3.15.2"])
    desired = server(upgrade={"strategy": "RollingUpdate"}, version="3.16.1")
    plan = preflight_decision.plan(running, desired, result, None, switching_database=False)
    assert not plan.stop_servers
    assert preflight_decision.strategy_refusal(running, desired, plan) is None


STOPPED = {"metadata": {"annotations": {"mlflow-operator.dev/stopped-at": "2026-01-01T00:00:10Z"}}}
UPGRADE_STATUS = {"startTime": "2026-01-01T00:00:00Z"}


def pod(since: str, status: str = "True") -> dict[str, Any]:
    """A pod with this status of the condition Ready since then."""
    return {"status": {"conditions": [{"type": "Ready", "status": status, "lastTransitionTime": since}]}}


@pytest.mark.parametrize(
    ("case", "deployment", "status", "seconds"),
    [
        ("until the first pod is ready", STOPPED, UPGRADE_STATUS, 25),
        ("not stopped", {"metadata": {}}, UPGRADE_STATUS, 0),
        ("stopped for an earlier upgrade", STOPPED, {"startTime": "2026-01-01T00:00:20Z"}, 0),
    ],
)
def test_downtime_is_measured(case: str, deployment: Any, status: Any, seconds: int) -> None:
    """From the stop until a pod of the new version is ready, independent of the time of the reconcile."""
    pods = [pod("2026-01-01T00:00:50Z"), pod("2026-01-01T00:00:35Z"), pod("2026-01-01T00:00:11Z", "False")]
    completed = upgrade_status.complete(status, deployment, pods, "2026-01-01T01:00:00Z")
    assert completed["downtimeSeconds"] == seconds, case


def test_preflight_pod_is_the_server_pod_with_another_command() -> None:
    """What affects the access of the server also affects the preflight."""
    spec = {
        "env": [{"name": "HTTPS_PROXY", "value": "http://proxy:3128"}],
        "envFrom": [{"secretRef": {"name": "more"}}],
        "podTemplate": {"spec": {"serviceAccountName": "cloud", "tolerations": [{"operator": "Exists"}]}},
    }
    job = jobs.preflight(server(**spec), "db#1")
    pod = job["spec"]["template"]["spec"]
    (container,) = pod["containers"]
    assert pod["serviceAccountName"] == "cloud"
    assert pod["tolerations"] == [{"operator": "Exists"}]
    assert container["envFrom"] == [{"secretRef": {"name": "more"}}]
    assert {"HTTPS_PROXY", "MLFLOW_ARTIFACTS_DESTINATION", "PYTHONPATH"} <= set(env(container))
    assert not {"ports", "startupProbe", "readinessProbe", "livenessProbe", "lifecycle"} & set(container)
    assert job["spec"]["backoffLimit"] == 0
    assert job["metadata"]["name"] != jobs.preflight(server(**spec), "db#2")["metadata"]["name"]
    older = jobs.preflight(resolved({**spec, "version": "3.16.1"}), "db#1")
    assert job["metadata"]["name"] != older["metadata"]["name"]
