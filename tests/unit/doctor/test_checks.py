"""Single checks with tables of inputs; test_command.py tests the complete command."""

from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from mlflow_operator.doctor import operators
from mlflow_operator.doctor.checks import backup, url
from mlflow_operator.doctor.checks.crd import schema_differences
from mlflow_operator.doctor.checks.operators import format_permissions
from mlflow_operator.doctor.checks.servers import check
from mlflow_operator.doctor.finding import Finding, State, Unobserved, exit_code
from mlflow_operator.doctor.observed import ObservedCluster, ObservedPlatforms, ProbeResult, Server
from mlflow_operator.doctor.permissions import Permission
from mlflow_operator.doctor.report import summary, table
from mlflow_operator.kube.objects import Object
from tests.unit.doctor.recorded_api_server import condition, deployment, server

NOW = datetime(2026, 11, 21, 12, tzinfo=UTC)


def findings(resource: Object) -> dict[str, Finding]:
    """Findings by check for one server. The operators could not be listed."""
    no_platforms = ObservedPlatforms(None, (), frozenset(), {})
    operators = Unobserved("no permission")
    cluster = ObservedCluster(NOW, "0.1.0", "header", {}, operators, (), no_platforms)
    return {finding.check: finding for finding in check(Server(resource), cluster)}


@pytest.mark.parametrize(
    ("auth", "available", "status", "state"),
    [
        ({"type": "Basic"}, "True", 401, State.OK),
        ({"type": "Basic"}, "True", 200, State.FAILED),
        ({"type": "Basic"}, "False", 200, State.OK),
        ({"type": "None"}, "True", 200, State.OK),
        (None, "True", 200, State.OK),
    ],
)
def test_server_that_accepts_requests_without_credentials_is_reported(
    auth: Object | None, available: str, status: int, state: State
) -> None:
    """Only if it must refuse them. During a rollout, earlier pods may still accept them."""
    resource = server()
    resource["status"]["conditions"] = [condition("ServerAvailable", available)]
    if auth:
        resource["status"]["auth"] = auth
    probed = Server(resource, in_cluster=ProbeResult(status), in_cluster_source="from this pod")
    (finding,) = url.check(probed)
    assert finding.state is state
    if state is State.FAILED:
        assert finding.message.startswith("Accepts requests without credentials (")
    if status == 401:
        assert finding.message.startswith("responds and requires authentication")


BACKUPS: dict[str, tuple[Object, Object, State, str]] = {
    "no backup yet": ({"schedule": "0 2 * * *"}, {}, State.PENDING, "There is no backup yet."),
    "successful backup": (
        {"schedule": "0 2 * * *"},
        {"lastSuccessTime": "2026-11-21T02:00:09Z", "lastSizeBytes": 5 * 1024**2, "lastURI": "s3://b/1"},
        State.OK,
        "last backup 9 hours ago, 5.0 MiB, s3://b/1",
    ),
    "failure after a success": (
        {"schedule": "0 2 * * *"},
        {"lastSuccessTime": "2026-11-18T02:00:00Z", "lastFailureTime": "2026-11-21T02:00:00Z"},
        State.FAILED,
        "The last backup failed; the last successful one is 3 days old.",
    ),
    "only a failure": (
        {"schedule": "0 2 * * *"},
        {"lastFailureTime": "2026-11-21T02:00:00Z"},
        State.FAILED,
        "none has succeeded yet",
    ),
    "success after a failure": (
        {"schedule": "0 2 * * *"},
        {"lastSuccessTime": "2026-11-21T03:00:00Z", "lastFailureTime": "2026-11-21T02:00:00Z"},
        State.OK,
        "9 hours ago",
    ),
    "invalid time from another version": (
        {"schedule": "x"},
        {"lastSuccessTime": "lately"},
        State.PENDING,
        "no backup yet",
    ),
}


@pytest.mark.parametrize("case", BACKUPS)
def test_last_backup_is_reported(case: str) -> None:
    """Its age, or that there is none, or that the last one failed."""
    spec, status, state, expected = BACKUPS[case]
    (finding,) = backup.check("s", {**server(backup=status), "spec": {"backup": spec}}, NOW)
    assert finding.state is state
    assert expected in finding.message


def test_a_server_without_backups_has_no_backup_finding() -> None:
    """Its database may be backed up by other means, or the operator may not support backups."""
    assert "backup" not in findings(server())


@pytest.mark.parametrize(
    ("seconds", "expected"),
    [(0, "0 seconds"), (119, "119 seconds"), (120, "2 minutes"), (7200, "2 hours"), (172800, "2 days"), (-5, "0 s")],
)  # fmt: skip
def test_age_is_readable(seconds: int, expected: str) -> None:
    assert backup.age(timedelta(seconds=seconds)).startswith(expected)


def test_ready_refers_to_the_condition_with_the_same_message() -> None:
    """A problem is only reported once."""
    problem = ("False", "BucketNotFound", "The bucket b does not exist. Create it.")
    by_check = findings(server(condition("ArtifactStoreReady", *problem), condition("Ready", *problem)))
    assert by_check["ArtifactStoreReady"].next_step == problem[2]
    assert by_check["Ready"].next_step == "See ArtifactStoreReady."
    assert by_check["Ready"].state is State.FAILED


@pytest.mark.parametrize(
    ("status", "reason", "state"),
    [
        ("False", "Progressing", State.PENDING),
        ("Unknown", "WaitingForDependency", State.PENDING),
        ("False", "Suspended", State.NOTE),
        ("False", "BucketNotFound", State.FAILED),
        ("Unknown", "ReasonOfANewerVersion", State.FAILED),
    ],
)
def test_state_depends_on_the_reason(status: str, reason: str, state: State) -> None:
    """An unknown reason fails, so that the user looks at it."""
    assert findings(server(condition("SchemaReady", status, reason)))["SchemaReady"].state is state


def test_a_new_server_is_pending() -> None:
    """An operator needs some time for a new server, and for a changed spec."""
    new_server = server()
    new_server["metadata"]["creationTimestamp"] = (NOW - timedelta(seconds=5)).isoformat()
    del new_server["status"]
    assert findings(new_server)["status"].state is State.PENDING
    assert findings(server(observedGeneration=2))["status"].state is State.PENDING


def test_a_deletion_is_reported() -> None:
    deleted = server()
    deleted["metadata"]["deletionTimestamp"] = "2026-11-21T11:59:00Z"
    assert findings(deleted)["deletion"].state is State.PENDING


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
    ({"additionalProperties": {"type": "string"}}, {"additionalProperties": True}, ([], [], ["the root"])),
)


@pytest.mark.parametrize(("expected_schema", "observed_schema", "differences"), SCHEMAS)
def test_schemas_are_compared_by_their_fields(
    expected_schema: Object, observed_schema: Object, differences: tuple[list[str], list[str], list[str]]
) -> None:
    """Descriptions are ignored."""
    assert schema_differences(expected_schema, observed_schema) == differences


def test_permissions_are_grouped_by_resource() -> None:
    permissions = (
        Permission("apps", "statefulsets", "create", "team-a"),
        Permission("apps", "statefulsets", "delete", "team-a"),
        Permission("coordination.k8s.io", "leases", "update", "ops", "mine"),
        Permission("", "secrets", "get"),
    )
    assert format_permissions(permissions) == (
        "statefulsets.apps (create, delete) in team-a; leases.coordination.k8s.io mine (update) in ops; secrets (get)"
    )


@pytest.mark.parametrize(
    ("renew_time", "is_renewed"),
    [
        ("2026-11-21T11:59:50.123456Z", True),
        ("2026-11-21T11:59:40Z", False),
        ("2026-11-21T12:00:10Z", True),
        ("2026-11-21T12:10:00Z", False),
        ("yesterday", False),
        (None, False),
    ],
)
def test_a_lease_is_renewed_within_its_duration(renew_time: str | None, is_renewed: bool) -> None:
    """A time far in the future only shows that the clocks differ."""
    spec = {"renewTime": renew_time, "leaseDurationSeconds": 15}
    assert operators.is_recently_renewed(spec, NOW) is is_renewed


def test_other_operators_with_the_same_label_are_ignored() -> None:
    """The arguments of the container identify this operator."""
    other = deployment()
    other["spec"]["template"]["spec"]["containers"][0]["args"] = ["--lease-name=x"]
    assert operators.lease_name(deployment()) == "mlflow-operator"
    assert operators.lease_name(other) == ""
    both_forms = deployment(1, 1, "0.1.0", "--namespace", "team-a", "--namespace=team-b")
    assert operators.watched_namespaces(both_forms) == ("team-a", "team-b")


PASSED = Finding("cluster", "CRD", State.OK, "matches version 0.1.0")
FAILED = Finding(
    "server a/b", "DatabaseReady", State.FAILED, "SecretNotFound", "kubectl create secret generic b"
)


@pytest.mark.parametrize(
    ("states", "code", "expected"),
    [
        ([State.OK, State.NOTE], 0, "All checks passed."),
        ([State.OK, State.UNKNOWN], 0, "No check failed, 1 unknown."),
        ([State.OK, State.PENDING], 1, "1 pending."),
        ([State.FAILED, State.FAILED, State.UNKNOWN], 1, "2 failed, 1 unknown."),
        ([], 0, "All checks passed."),
    ],
)
def test_exit_code_and_summary_agree(states: list[State], code: int, expected: str) -> None:
    state_findings = [Finding("cluster", "x", state, "y") for state in states]
    assert (exit_code(state_findings), summary(state_findings)) == (code, expected)


def test_the_table_wraps_lines_but_not_commands() -> None:
    """One block per subject, with the next step below a finding. Long lines are wrapped between words."""
    assert table("header", [PASSED, FAILED], 110) == (
        "header\n"
        "\n"
        "cluster\n"
        "  ok      CRD            matches version 0.1.0\n"
        "\n"
        "server a/b\n"
        "  FAILED  DatabaseReady  SecretNotFound\n"
        "                      -> kubectl create secret generic b\n"
        "\n"
        "1 failed.\n"
    )
    command = "kubectl logs -n " + "x" * 63 + " -l " + "y" * 80
    narrow = table("header", [Finding("s", "c", State.FAILED, "long " * 40, f"{command}\nsecond line")], 20)
    assert all(part in narrow for part in ("x" * 63, "y" * 80, "second line"))
    assert max(len(line) for line in narrow.splitlines() if "y" not in line) < 90
