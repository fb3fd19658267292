"""Pure functions of the benchmarks: targets, parsing of logs and metrics, tables and charts."""

import json
from pathlib import Path

import pytest
from benchmarks import audit, curve, plain, report, rows, years
from benchmarks.caller import longest_gap
from benchmarks.memory import parse_working_set

METRIC_LINE = (
    'apiserver_flowcontrol_dispatched_requests_total{{flow_schema="{}",priority_level="workload-low"}} {}'
)


def test_ratio_of_medians_may_equal_the_limit() -> None:
    """One slow round of five does not change the result."""
    row = rows.ratio_at_most("start", [12, 13, 90], [10, 10, 10], 1.3, baseline_name="by hand")
    assert (row.ratio, row.met) == ("1.30", True)
    assert rows.ratio_at_most("start", [14, 14, 14], [10, 10, 10], 1.3, baseline_name="by hand").met is False
    assert rows.ratio_at_least("rate", [12], [10], 1.3, unit="/s", baseline_name="plain").met is False
    assert rows.ratio_at_least("rate", [13], [10], 1.3, unit="/s", baseline_name="plain").met is True


def test_limit_applies_to_every_sample() -> None:
    """The median only decides if two sets of samples are compared."""
    assert rows.must_be_below("drift", [0.2, 0.3, 1.1], 1, "s").met is False
    assert rows.must_be_zero("failed", [0, 1]).met is False
    assert rows.must_be_positive("control", 0).met is False


def audit_line(**overrides: object) -> str:
    """Return a line of the audit log, by default a write of the operator."""
    line = {
        "user": {"username": audit.OPERATOR_ACCOUNT},
        "verb": "patch",
        "objectRef": {"resource": "deployments"},
        "requestURI": "/apis/apps/v1/namespaces/a/deployments/b",
        "requestReceivedTimestamp": "2026-01-01T00:00:05.000000Z",
    }
    return json.dumps(line | overrides)


@pytest.mark.parametrize(
    ("line", "counts"),
    [
        (audit_line(), 1),
        (audit_line(verb="create", requestURI="/api/v1/x?dryRun=All"), 1),
        (audit_line(verb="get"), 0),
        (audit_line(objectRef={"resource": "leases"}), 0),
        (audit_line(user={"username": "kubernetes-admin"}), 0),
        (audit_line(requestReceivedTimestamp="2026-01-01T00:00:10.000000Z"), 0),
        ('{"cut off', 0),
    ],
)
def test_operator_writes_within_the_window_are_counted(line: str, counts: int) -> None:
    """Dry runs are counted; Leases and writes of other accounts are not."""
    assert len(audit.operator_writes([line], "2026-01-01T00:00:00Z", "2026-01-01T00:00:10")) == counts


def test_only_the_operators_requests_are_counted() -> None:
    """The API server has one metric per FlowSchema."""
    assert (
        audit.parse_request_count(
            [METRIC_LINE.format(audit.FLOW_SCHEMA, "1.2e+03"), METRIC_LINE.format("others", 7), "# HELP"]
        )
        == 1200
    )


def test_working_set_excludes_inactive_page_cache() -> None:
    """Like in the kubelet."""
    assert parse_working_set("104857600 52428800") == 50
    assert parse_working_set("no such file") is None


def test_init_containers_wait_for_dependencies() -> None:
    """The Job waits for Postgres, the server for the schema; the rendered objects are not changed."""
    uri = {"name": "MLFLOW_BACKEND_STORE_URI", "valueFrom": {"secretKeyRef": {"name": "s", "key": "k"}}}
    rendered = [
        {
            "kind": kind,
            "spec": {"template": {"spec": {"containers": [{"env": [uri], "securityContext": {}}]}}},
        }
        for kind in ("Job", "Deployment")
    ]
    job, deployment = plain.add_init_containers(rendered, "postgres:17", "abc")
    assert "pg_isready" in job["spec"]["template"]["spec"]["initContainers"][0]["command"][-1]
    assert "grep -qx abc" in deployment["spec"]["template"]["spec"]["initContainers"][0]["command"][-1]
    assert "initContainers" not in str(rendered)


def test_results_of_another_build_are_not_loaded(tmp_path: Path) -> None:
    """RESUME=1 must not report figures of another build."""
    stored = [rows.without_target("requests", [1.0, 2.0, 3.0], "")]
    report.save(tmp_path, "x", "one", stored)
    assert report.load(tmp_path, "x", "one") == stored
    assert report.load(tmp_path, "x") == stored
    assert report.load(tmp_path, "x", "another") is None
    assert report.load(tmp_path, "y") is None


def test_new_table_replaces_the_previous_one() -> None:
    """The rest of the page is not changed."""
    page = f"# Figures\n{report.BEGIN}\nold\n{report.END}\nmore\n"
    new = report.insert_table(report.insert_table(page, "first\n"), "second\n")
    assert "second" in new
    assert not {"old", "first"} & set(new.splitlines())
    assert new.endswith("more\n")
    with pytest.raises(ValueError, match="figures: begin"):
        report.insert_table("# Figures\n", "x")


def test_same_points_give_the_same_chart(tmp_path: Path) -> None:
    """Otherwise every run would change a file in the repository."""
    points = [curve.Point(1, 2.0, 40, 70), curve.Point(10, 5.0, 400, 75)]
    for name in ("a.svg", "b.svg"):
        curve.draw(points, tmp_path / name)
    assert (tmp_path / "a.svg").read_bytes() == (tmp_path / "b.svg").read_bytes()


def test_gap_is_the_longest_time_between_two_answers() -> None:
    """At any position in the sequence."""
    assert longest_gap([1.0, 1.5, 9.5, 10.0]) == 8.0
    with pytest.raises(ValueError, match="empty"):
        longest_gap([1.0])


def test_filled_database_has_the_requested_number_of_runs() -> None:
    """All statements with rows per run use the same number."""
    tables = [
        statement.split()[2]
        for statement in years.fill_statements(777)
        if "generate_series(1, 777) AS run" in statement
    ]
    assert tables == ["runs", "params", "tags", "metrics", "latest_metrics"]
    assert years.run_count(quick=True) < years.run_count(quick=False)


def test_durations_are_sorted_with_the_total_last() -> None:
    """The table at the end shows which figures take most of the time."""
    lines = report.durations({"short": 3.2, "long": 61.0, "other": 20.0}, 90.4).splitlines()
    assert [line.split()[-1] for line in lines] == ["long", "other", "short", "total"]
    assert lines[0].split() == ["61", "s", "long"]
    assert lines[-1].split() == ["90", "s", "in", "total"]
