"""What decides whether a figure meets its target, and what is read from logs, without a cluster."""

import json
from pathlib import Path

import pytest
from benchmarks import audit, curve, plain, report, rows, years
from benchmarks.caller import gap
from benchmarks.memory import working_set

COUNTED = (
    'apiserver_flowcontrol_dispatched_requests_total{{flow_schema="{}",priority_level="workload-low"}} {}'
)


def test_a_ratio_is_that_of_medians_and_may_just_reach_its_limit() -> None:
    """One slow round of five decides nothing."""
    row = rows.at_most("start", [12, 13, 90], [10, 10, 10], 1.3, what="by hand")
    assert (row.ratio, row.met) == ("1.30", True)
    assert rows.at_most("start", [14, 14, 14], [10, 10, 10], 1.3, what="by hand").met is False
    assert rows.at_least("rate", [12], [10], 1.3, unit="/s", what="plain").met is False
    assert rows.at_least("rate", [13], [10], 1.3, unit="/s", what="plain").met is True


def test_a_limit_holds_for_every_sample() -> None:
    """The median decides only where two samples are compared."""
    assert rows.below("drift", [0.2, 0.3, 1.1], 1, "s").met is False
    assert rows.none_of("failed", [0, 1]).met is False
    assert rows.at_least_one("control", 0).met is False


def entry(**what: object) -> str:
    """A line of the audit log: a write of the operator unless `what` overrides it."""
    line = {
        "user": {"username": audit.ACCOUNT},
        "verb": "patch",
        "objectRef": {"resource": "deployments"},
        "requestURI": "/apis/apps/v1/namespaces/a/deployments/b",
        "requestReceivedTimestamp": "2026-01-01T00:00:05.000000Z",
    }
    return json.dumps(line | what)


@pytest.mark.parametrize(
    ("line", "counts"),
    [
        (entry(), 1),
        (entry(verb="create", requestURI="/api/v1/x?dryRun=All"), 1),
        (entry(verb="get"), 0),
        (entry(objectRef={"resource": "leases"}), 0),
        (entry(user={"username": "kubernetes-admin"}), 0),
        (entry(requestReceivedTimestamp="2026-01-01T00:00:10.000000Z"), 0),
        ('{"cut off', 0),
    ],
)
def test_every_write_of_the_operator_within_the_window_counts(line: str, counts: int) -> None:
    """Dry runs count; Leases and writes of other accounts do not."""
    assert len(audit.writes([line], "2026-01-01T00:00:00Z", "2026-01-01T00:00:10")) == counts


def test_only_the_operators_requests_are_counted() -> None:
    """The API server counts for every flow schema."""
    assert (
        audit.dispatched([COUNTED.format(audit.FLOW, "1.2e+03"), COUNTED.format("others", 7), "# HELP"])
        == 1200
    )


def test_the_working_set_excludes_inactive_page_cache() -> None:
    """As in the kubelet."""
    assert working_set("104857600 52428800") == 50
    assert working_set("no such file") is None


def test_what_is_applied_by_hand_waits_for_what_it_needs() -> None:
    """The Job waits for Postgres, the server for the schema; the rendered objects are not changed."""
    uri = {"name": "MLFLOW_BACKEND_STORE_URI", "valueFrom": {"secretKeyRef": {"name": "s", "key": "k"}}}
    rendered = [
        {
            "kind": kind,
            "spec": {"template": {"spec": {"containers": [{"env": [uri], "securityContext": {}}]}}},
        }
        for kind in ("Job", "Deployment")
    ]
    job, deployment = plain.waiting(rendered, "postgres:17", "abc")
    assert "pg_isready" in job["spec"]["template"]["spec"]["initContainers"][0]["command"][-1]
    assert "grep -qx abc" in deployment["spec"]["template"]["spec"]["initContainers"][0]["command"][-1]
    assert "initContainers" not in str(rendered)


def test_results_are_loaded_only_for_the_build_they_were_measured_with(tmp_path: Path) -> None:
    """RESUME=1 must not report figures of another build."""
    found = [rows.reported("requests", [1.0, 2.0, 3.0], "")]
    report.save(tmp_path, "x", "one", found)
    assert report.load(tmp_path, "x", "one") == found
    assert report.load(tmp_path, "x") == found
    assert report.load(tmp_path, "x", "another") is None
    assert report.load(tmp_path, "y") is None


def test_a_new_table_replaces_the_previous_one() -> None:
    """The rest of the page stays."""
    page = f"# Figures\n{report.BEGIN}\nold\n{report.END}\nmore\n"
    new = report.into(report.into(page, "first\n"), "second\n")
    assert "second" in new
    assert not {"old", "first"} & set(new.splitlines())
    assert new.endswith("more\n")
    with pytest.raises(ValueError, match="figures: begin"):
        report.into("# Figures\n", "x")


def test_the_same_points_give_the_same_picture(tmp_path: Path) -> None:
    """Otherwise every run would change the repository."""
    points = [curve.Point(1, 2.0, 40, 70), curve.Point(10, 5.0, 400, 75)]
    for name in ("a.svg", "b.svg"):
        curve.draw(points, tmp_path / name)
    assert (tmp_path / "a.svg").read_bytes() == (tmp_path / "b.svg").read_bytes()


def test_the_gap_is_the_longest_time_between_two_answers() -> None:
    """Wherever it is in the sequence."""
    assert gap([1.0, 1.5, 9.5, 10.0]) == 8.0
    with pytest.raises(ValueError, match="empty"):
        gap([1.0])


def test_a_filled_database_has_the_requested_number_of_runs() -> None:
    """The number of rows of each table follows from it."""
    tables = [each.split()[2] for each in years.filled(777) if "generate_series(1, 777) AS run" in each]
    assert tables == ["runs", "params", "tags", "metrics", "latest_metrics"]
    assert years.runs(quick=True) < years.runs(quick=False)


def test_the_longest_steps_are_named_first_and_the_total_last() -> None:
    """The table at the end says where the time goes."""
    lines = report.durations({"short": 3.2, "long": 61.0, "other": 20.0}, 90.4).splitlines()
    assert [line.split()[-1] for line in lines] == ["long", "other", "short", "total"]
    assert lines[0].split() == ["61", "s", "long"]
    assert lines[-1].split() == ["90", "s", "in", "total"]
