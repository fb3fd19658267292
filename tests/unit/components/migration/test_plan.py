"""What a change of version means, case by case."""

import json
from typing import Any

import pytest

from mlflow_operator.components.migration import plan as upgrade
from mlflow_operator.components.migration.plan import RunningVersion
from mlflow_operator.components.migration.preflight_result import SchemaChange, parse
from mlflow_operator.model import jobs
from mlflow_operator.model.server import Server
from mlflow_operator.status.conditions import Reason
from tests.unit.servers import env
from tests.unit.servers import server as resolved

HEAD = "dc11669786a5"
OFFICIAL = "ghcr.io/mlflow/mlflow:v3.17.2-full"
OLDER = "ghcr.io/mlflow/mlflow:v3.16.1-full"
SAID = {"version": "3.17.2", "revision": "b7e2c1a4d9f3", "head": HEAD, "movement": "forward", "steps": 2}
BEFORE = RunningVersion("3.16.1", OLDER, "b7e2c1a4d9f3")


def server(**spec: Any) -> Server:
    """As the spec asks for it."""
    return resolved({"version": "3.17.2", **spec})


def said(**other: Any) -> str:
    """An answer, some of it changed."""
    return json.dumps({**SAID, "faults": [], **other})


@pytest.mark.parametrize(
    ("promise", "before", "revision", "head", "needed"),
    [
        ("a first start on an empty database", RunningVersion(None, None, None), None, HEAD, False),
        ("an image of its own there", RunningVersion(None, None, None), None, None, False),
        ("a first start on tables that fit", RunningVersion(None, None, None), HEAD, HEAD, False),
        ("a first start on older tables", RunningVersion(None, None, None), "b7e2c1a4d9f3", HEAD, True),
        ("a first start of an unknown image on tables", RunningVersion(None, None, None), HEAD, None, True),
        ("nothing changed", RunningVersion("3.17.2", OFFICIAL, HEAD), HEAD, HEAD, False),
        (
            "tables moved by somebody else",
            RunningVersion("3.17.2", OFFICIAL, HEAD),
            "f4a9b2c7d1e6",
            HEAD,
            True,
        ),
        ("tables emptied by somebody else", RunningVersion("3.17.2", OFFICIAL, HEAD), None, HEAD, False),
        ("another version", BEFORE, "b7e2c1a4d9f3", HEAD, True),
        (
            "another image whose tables fit",
            RunningVersion("3.17.1", "mirror/mlflow:1", HEAD),
            HEAD,
            HEAD,
            True,
        ),
    ],
)
def test_a_preflight_is_needed_where_something_could_be_harmed(
    promise: str, before: RunningVersion, revision: str | None, head: str | None, needed: bool
) -> None:
    """And costs a first start nothing."""
    assert upgrade.needs_preflight(before, server(), revision, head) is needed, promise


def test_an_answer_is_read() -> None:
    """All of it, and faults instead of what could not be found out."""
    answer = parse(said())
    assert answer
    assert (answer.movement, answer.steps, answer.faults) == (SchemaChange.FORWARD, 2, ())
    broken = parse(said(version=None, head=None, faults=[{"kind": "database", "said": "refused"}]))
    assert broken
    assert broken.faults[0].said == "refused"


@pytest.mark.parametrize(
    "text",
    [
        None,
        "",
        "{}",
        "null",
        "[]",
        said()[:-1],
        f"well: {said()}",
        said(movement="back"),
        said(movement=None),
        said(version=None),
        said(version="3.17.2\n"),
        said(version=3.17),
        said(head=None),
        said(head=""),
        said(steps="2"),
        said(steps=0),
        said(steps=True),
        said(revision=HEAD),
        said(movement="none"),
        said(movement="unknown"),
        said(movement="unknown", steps=None, revision=None),
        said(faults=None),
        said(faults=["boom"]),
        said(faults=[{"kind": "bucket"}]),
        said(more="than was asked"),
        said(faults=[{"kind": "bucket", "said": "x" * 3100}]),
    ],
)
def test_what_is_no_answer_counts_for_nothing(text: str | None) -> None:
    """Cut off, made up, or at odds with itself."""
    assert parse(text) is None


def refused(server: Server, text: str, before: RunningVersion = BEFORE) -> tuple[Reason, str]:
    """Why an answer is no leave to go on."""
    answer = parse(text)
    assert answer
    refusal = upgrade.refusal(before, server, answer)
    assert refusal
    return refusal.reason, refusal.message


@pytest.mark.parametrize(
    ("kind", "told"),
    [
        (
            "driver",
            "lacks a Python package: boto3. Nothing was touched; version 3.16.1 serves on. Take the -full",
        ),
        ("program", "can't run MLflow's server: boto3."),
        ("encoding", "has the encoding boto3, with which MLflow cannot work."),
        ("read-only", "can't work with the database: boto3."),
        ("privilege", "GRANT what is missing"),
        ("bucket", "can't write to the artifact store: boto3."),
        ("time", "The preflight was boto3."),
        ("what a later payload finds", "can't work with the database: boto3."),
    ],
)
def test_each_fault_is_told_with_a_way_out(kind: str, told: str) -> None:
    """Fact, consequence, what to do."""
    reason, message = refused(server(), said(faults=[{"kind": kind, "said": "boto3"}]))
    assert reason is Reason.PREFLIGHT_FAILED
    assert told in message
    assert "or set spec.version back to 3.16.1." in message


def test_an_own_build_of_the_version_asked_for_is_that_version() -> None:
    """`3.17.2+corp` is 3.17.2; and where nobody named one, any will do."""
    answer = parse(said(version="3.17.2+corp"))
    other = parse(said(version="3.15.0"))
    assert answer
    assert other
    own = server(image="own/mlflow:9")
    assert upgrade.refusal(BEFORE, own, answer) is None
    assert upgrade.refusal(BEFORE, resolved({"image": "own/mlflow:9"}), other) is None
    refusal = upgrade.refusal(BEFORE, own, other)
    assert refusal
    assert "holds MLflow 3.15.0, and 3.17.2 was asked for" in refusal.message
    assert "go back to the image" in refusal.message


@pytest.mark.parametrize(
    ("promise", "before", "revision", "way"),
    [
        (
            "what served there",
            RunningVersion("3.19.0", "own:1", "unheard"),
            "unheard",
            "go back to version 3.19.0",
        ),
        ("what is known to stop there", RunningVersion(None, None, None), HEAD, "go back to version 3.17.2"),
        (
            "who knows",
            RunningVersion("3.19.0", "own:1", "another"),
            "unheard",
            "go back to the version that did",
        ),
    ],
)
def test_a_newer_schema_is_told_with_the_version_to_go_back_to(
    promise: str, before: RunningVersion, revision: str, way: str
) -> None:
    """As far as anybody knows it."""
    reason, message = refused(server(), said(revision=revision, movement="unknown", steps=None), before)
    assert reason is Reason.SCHEMA_NEWER_THAN_IMAGE
    assert way in message, promise
    assert "restore one from before" in message


@pytest.mark.parametrize(
    ("promise", "spec", "before", "movement", "stops"),
    [
        ("tables move", {}, BEFORE, "forward", True),
        ("their owner accepts errors", {"upgrade": {"strategy": "RollingUpdate"}}, BEFORE, "forward", False),
        ("tables fit", {}, BEFORE, "none", False),
        ("the same image, on a backup", {}, RunningVersion("3.17.2", OFFICIAL, HEAD), "forward", False),
        ("a first start", {}, RunningVersion(None, None, None), "forward", False),
    ],
)
def test_servers_stop_only_where_tables_move_under_others(
    promise: str, spec: Any, before: RunningVersion, movement: str, stops: bool
) -> None:
    """What is to stop: servers of another version than the tables will be for."""
    still: dict[str, Any] = {} if movement == "forward" else {"revision": HEAD, "steps": 0}
    answer = parse(said(movement=movement, **still))
    assert answer
    assert upgrade.plan(before, server(**spec), answer, None, moving=False).stops is stops, promise


STOPPED = {"metadata": {"annotations": {"mlflow-operator.dev/stopped-at": "2026-01-01T00:00:10Z"}}}
TOLD = {"startTime": "2026-01-01T00:00:00Z"}


def pod(since: str, status: str = "True") -> dict[str, Any]:
    """One that answers since then, or does not."""
    return {"status": {"conditions": [{"type": "Ready", "status": status, "lastTransitionTime": since}]}}


@pytest.mark.parametrize(
    ("promise", "deployment", "told", "seconds"),
    [
        ("until the first one answers", STOPPED, TOLD, 25),
        ("nobody stopped", {"metadata": {}}, TOLD, 0),
        ("stopped for an earlier upgrade", STOPPED, {"startTime": "2026-01-01T00:00:20Z"}, 0),
    ],
)
def test_down_time_is_measured(promise: str, deployment: Any, told: Any, seconds: int) -> None:
    """From the stop until one server of the new version answers, whenever we come to look."""
    pods = [pod("2026-01-01T00:00:50Z"), pod("2026-01-01T00:00:35Z"), pod("2026-01-01T00:00:11Z", "False")]
    ended = upgrade.ended(told, deployment, pods, "2026-01-01T01:00:00Z")
    assert ended["downtimeSeconds"] == seconds, promise


def test_a_preflight_is_the_servers_pod_with_another_question() -> None:
    """What lets a server in, or keeps it out, does so to the preflight."""
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
