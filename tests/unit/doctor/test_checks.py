"""What is thought of what was seen, where a table says it better than a whole call."""

from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from mlflow_operator.doctor import operators
from mlflow_operator.doctor.checks import backup
from mlflow_operator.doctor.checks.definition import sorted_differences
from mlflow_operator.doctor.checks.operators import spelled
from mlflow_operator.doctor.checks.servers import check
from mlflow_operator.doctor.finding import Finding, State, Unobserved, exit_code
from mlflow_operator.doctor.needs import Permission
from mlflow_operator.doctor.report import summary, table
from mlflow_operator.doctor.seen import ObservedCluster, Server
from mlflow_operator.kube.objects import Object
from tests.unit.doctor.recorded_api_server import condition, deployment, server

NOW = datetime(2026, 11, 21, 12, tzinfo=UTC)


def findings(resource: Object) -> dict[str, Finding]:
    """Of one server, by check; nobody could look for operators."""
    seen = ObservedCluster(NOW, "0.1.0", "here", {}, Unobserved("no"), ())
    return {one.check: one for one in check(Server(resource), seen)}


BACKUPS: dict[str, tuple[Object, Object, State, str]] = {
    "none yet": ({"schedule": "0 2 * * *"}, {}, State.WAIT, "There is none yet."),
    "a good one": (
        {"schedule": "0 2 * * *"},
        {"lastSuccessTime": "2026-11-21T02:00:09Z", "lastSizeBytes": 5 * 1024**2, "lastURI": "s3://b/1"},
        State.OK,
        "9 hours old, 5.0 MiB, s3://b/1",
    ),
    "a failure after a good one": (
        {"schedule": "0 2 * * *"},
        {"lastSuccessTime": "2026-11-18T02:00:00Z", "lastFailureTime": "2026-11-21T02:00:00Z"},
        State.FAULT,
        "The last backup failed; the last good one is 3 days old.",
    ),
    "a failure and nothing else": (
        {"schedule": "0 2 * * *"},
        {"lastFailureTime": "2026-11-21T02:00:00Z"},
        State.FAULT,
        "there is no good one",
    ),
    "a failure that was made good": (
        {"schedule": "0 2 * * *"},
        {"lastSuccessTime": "2026-11-21T03:00:00Z", "lastFailureTime": "2026-11-21T02:00:00Z"},
        State.OK,
        "9 hours old",
    ),
    "words of another version": ({"schedule": "x"}, {"lastSuccessTime": "lately"}, State.WAIT, "none yet"),
}


@pytest.mark.parametrize("case", BACKUPS)
def test_a_backup_s_age_is_told(case: str) -> None:
    """Or that there is none, or that the last one failed."""
    spec, status, state, says = BACKUPS[case]
    (found,) = backup.check("s", {**server(backup=status), "spec": {"backup": spec}}, NOW)
    assert found.state is state
    assert says in found.found


def test_a_server_without_backups_is_not_scolded() -> None:
    """Others may back its database up; and an operator that knows no backups says nothing of them."""
    assert "backup" not in findings(server())


@pytest.mark.parametrize(
    ("seconds", "says"),
    [(0, "0 seconds"), (119, "119 seconds"), (120, "2 minutes"), (7200, "2 hours"), (172800, "2 days"), (-5, "0 s")],
)  # fmt: skip
def test_ages_read_well(seconds: int, says: str) -> None:
    assert backup.age(timedelta(seconds=seconds)).startswith(says)


def test_ready_does_not_repeat_what_another_condition_says() -> None:
    """One fault is read once, where it belongs."""
    said = ("False", "BucketNotFound", "The bucket b is not there. Create it.")
    found = findings(server(condition("ArtifactStoreReady", *said), condition("Ready", *said)))
    assert found["ArtifactStoreReady"].next == said[2]
    assert found["Ready"].next == "See ArtifactStoreReady."
    assert found["Ready"].state is State.FAULT


@pytest.mark.parametrize(
    ("status", "reason", "state"),
    [
        ("False", "Progressing", State.WAIT),
        ("Unknown", "WaitingForDependency", State.WAIT),
        ("False", "Suspended", State.NOTE),
        ("False", "BucketNotFound", State.FAULT),
        ("Unknown", "OfANewerVersion", State.FAULT),
    ],
)
def test_a_reason_tells_a_fault_from_a_wait(status: str, reason: str, state: State) -> None:
    """One that this version does not know is a fault: somebody should look."""
    assert findings(server(condition("SchemaReady", status, reason)))["SchemaReady"].state is state


def test_a_new_server_has_a_moment() -> None:
    """Nobody has looked at it because it has only just been made; a changed spec likewise is on its way."""
    fresh = server()
    fresh["metadata"]["creationTimestamp"] = (NOW - timedelta(seconds=5)).isoformat()
    del fresh["status"]
    assert findings(fresh)["status"].state is State.WAIT
    assert findings(server(observedGeneration=2))["status"].state is State.WAIT


def test_a_deletion_is_said() -> None:
    going = server()
    going["metadata"]["deletionTimestamp"] = "2026-11-21T11:59:00Z"
    assert findings(going)["deletion"].state is State.WAIT


SCHEMAS: tuple[tuple[Any, Any, tuple[list[str], list[str], list[str]]], ...] = (
    ({"description": "a"}, {"description": "b"}, ([], [], [])),
    ({"properties": {"a": {}}}, {"properties": {"b": {}}}, (["a"], ["b"], [])),
    (
        {"properties": {"a": {"properties": {"b": {"maxLength": 1}}}}},
        {"properties": {"a": {"properties": {"b": {"maxLength": 2}}}}},
        ([], [], ["a.b"]),
    ),
    (
        {"properties": {"a": {"items": {"properties": {"b": {}, "description": {}}}}}},
        {"properties": {"a": {"items": {"properties": {"b": {}}}}}},
        (["a[].description"], [], []),
    ),
    ({"additionalProperties": {"type": "string"}}, {"additionalProperties": True}, ([], [], ["its root"])),
)


@pytest.mark.parametrize(("ours", "theirs", "told"), SCHEMAS)
def test_definitions_are_told_apart_by_their_fields(
    ours: Object, theirs: Object, told: tuple[list[str], list[str], list[str]]
) -> None:
    """And words about a field are no difference."""
    assert sorted_differences(ours, theirs) == told


def test_what_is_not_allowed_reads_like_a_rule() -> None:
    asked = (
        Permission("apps", "statefulsets", "create", "team-a"),
        Permission("apps", "statefulsets", "delete", "team-a"),
        Permission("coordination.k8s.io", "leases", "update", "ops", "mine"),
        Permission("", "secrets", "get"),
    )
    assert spelled(asked) == (
        "statefulsets.apps (create, delete) in team-a; leases.coordination.k8s.io mine (update) in ops; secrets (get)"
    )


@pytest.mark.parametrize(
    ("renewed", "fresh"),
    [
        ("2026-11-21T11:59:50.123456Z", True),
        ("2026-11-21T11:59:40Z", False),
        ("2026-11-21T12:00:10Z", True),
        ("2026-11-21T12:10:00Z", False),
        ("yesterday", False),
        (None, False),
    ],
)
def test_a_lease_is_fresh_for_as_long_as_it_lasts(renewed: str | None, fresh: bool) -> None:
    """One from far ahead tells that the clocks differ, so nothing by itself."""
    assert operators.renewed_lately({"renewTime": renewed, "leaseDurationSeconds": 15}, NOW) is fresh


def test_only_our_operator_is_taken_for_it() -> None:
    """Others label their Deployments alike."""
    other = deployment()
    other["spec"]["template"]["spec"]["containers"][0]["args"] = ["--lease-name=x"]
    assert operators.lease_name(deployment()) == "mlflow-operator"
    assert operators.lease_name(other) == ""
    written = deployment(1, 1, "0.1.0", "--namespace", "team-a", "--namespace=team-b")
    assert operators.watched_namespaces(written) == ("team-a", "team-b")


WELL = Finding("cluster", "definition", State.OK, "as it should be")
FAULT = Finding(
    "server a/b", "DatabaseReady", State.FAULT, "SecretNotFound", "kubectl create secret generic b"
)


@pytest.mark.parametrize(
    ("states", "code", "says"),
    [
        ([State.OK, State.NOTE], 0, "All well."),
        ([State.OK, State.UNKNOWN], 0, "All well that was looked at, 1 not looked at."),
        ([State.OK, State.WAIT], 1, "1 on the way."),
        ([State.FAULT, State.FAULT, State.UNKNOWN], 1, "2 at fault, 1 not looked at."),
        ([], 0, "All well."),
    ],
)
def test_the_exit_code_and_the_last_line_agree(states: list[State], code: int, says: str) -> None:
    found = [Finding("cluster", "x", state, "y") for state in states]
    assert (exit_code(found), summary(found)) == (code, says)


def test_the_table_can_be_read_and_its_commands_copied() -> None:
    """A block a subject, what to do beneath; long lines are folded between words, and no word is broken."""
    assert table("here", [WELL, FAULT], 110) == (
        "here\n"
        "\n"
        "cluster\n"
        "  ok     definition     as it should be\n"
        "\n"
        "server a/b\n"
        "  FAULT  DatabaseReady  SecretNotFound\n"
        "                     -> kubectl create secret generic b\n"
        "\n"
        "1 at fault.\n"
    )
    command = "kubectl logs -n " + "x" * 63 + " -l " + "y" * 80
    narrow = table("here", [Finding("s", "c", State.FAULT, "long " * 40, f"{command}\nsecond line")], 20)
    assert all(part in narrow for part in ("x" * 63, "y" * 80, "second line"))
    assert max(len(line) for line in narrow.splitlines() if "y" not in line) < 90
