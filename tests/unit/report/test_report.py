"""The report at the end of a run: totals, CPU time per test, and warnings about budgets."""

import sys
from pathlib import Path

import pytest

from tests.report import __main__ as command
from tests.report import budgets, records, servers, summary, usage
from tests.report.records import FAILED, PASSED, SKIPPED, RecordedTest, RecordedTier

BUDGETS = {"unit": 120.0, "e2e": 480.0, "total": 1080.0}


def record(name: str, **known: object) -> RecordedTest:
    """Return a record with these fields and defaults."""
    return RecordedTest(**{"test": name, "outcome": PASSED, **known})  # type: ignore[arg-type]


def tier(name: str, start: float = 0.0, wall: float = 10.0, exit_code: int = 0) -> RecordedTier:
    """Return a tier that used both CPUs."""
    return RecordedTier(name, start, wall, 2 * wall, exit_code)


def report(
    *tiers: RecordedTier, coverage_percent: float | None = None, **tests: list[RecordedTest]
) -> list[str]:
    """Return the lines of the report."""
    return list(summary.lines(tiers, tests, BUDGETS, coverage_percent))


def test_last_line_has_totals_of_all_tiers() -> None:
    lines = report(
        tier("unit"),
        tier("e2e"),
        unit=[record("a"), record("b", outcome=SKIPPED, reason="no")],
        e2e=[record("c"), record("d", outcome=FAILED)],
    )
    assert lines[-1] == "2 passed, 1 failed, 1 skipped"


def test_failed_tier_without_failed_test_counts_as_failed() -> None:
    """For example lint, or a pytest that cannot start."""
    lines = report(tier("lint", exit_code=1), tier("unit", exit_code=1), unit=[record("a", outcome=FAILED)])
    assert lines[-1] == "0 passed, 2 failed, 0 skipped"
    assert "  lint: exit code 1" in lines
    assert "  a" in lines
    assert "  unit: exit code 1" not in lines


def test_report_without_tiers_has_totals() -> None:
    """If the run is interrupted before the end of the first tier."""
    assert report()[-1] == "0 passed, 0 failed, 0 skipped"


def test_only_tiers_over_budget_have_a_warning() -> None:
    rows = report(tier("unit", 0, 121), tier("e2e", 121, 480), tier("lint", 601, 500))
    assert [row for row in rows if "WARNING" in row] == [
        "unit           121 s   242 s   120 s  WARNING: over its budget",
        "total         1101 s  2202 s  1080 s  WARNING: over its budget",
    ]


def test_expensive_tests_are_ranked_by_cpu_time() -> None:
    many = [record(f"t{n}", start=100.0 * n, end=100.0 * n + 50 - n, own_cpu=float(n)) for n in range(30)]
    lines = report(tier("unit"), unit=many)
    first = lines.index("Most CPU time (20 of 30 tests):") + 2
    assert lines[first] == "  29.0 s  21.0 s  t29"
    assert lines[first + 19] == "  10.0 s  40.0 s  t10"
    assert lines[first + 20] == ""


def test_created_servers_are_summed() -> None:
    lines = report(tier("unit"), tier("e2e"), e2e=[record("a", servers=2), record("b", servers=1)])
    assert "MLflowServers created: 3" in lines


@pytest.mark.parametrize(("percent", "rounded"), [(93.04, 93), (99.96, 99), (100.0, 100)])
def test_coverage_is_rounded_down(percent: float, rounded: int) -> None:
    """100 % must mean that no line is missing."""
    lines = report(tier("unit"), coverage_percent=percent)
    assert lines.count(f"coverage: {rounded} % of operator/mlflow_operator (unit tests)") == 1


def test_coverage_that_was_not_measured_is_not_shown() -> None:
    """For example if lint fails."""
    assert not any("coverage" in line for line in report(tier("lint")))


def test_report_shows_the_recorded_coverage(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    records.write_tier(tmp_path, tier("unit"))
    records.write_coverage(tmp_path / "unit", 93.5)
    command.show(tmp_path)
    assert "\ncoverage: 93 % of operator/mlflow_operator (unit tests)\n" in capsys.readouterr().out
    records.begin(tmp_path, "test")
    assert records.coverage(tmp_path, "unit") is None


def test_skipped_tests_are_listed_with_their_reasons() -> None:
    lines = report(tier("unit"), unit=[record("a", outcome=SKIPPED, reason="needs root")])
    assert "  a: needs root" in lines


def test_other_cpu_time_is_divided_among_running_tests() -> None:
    """`a` runs from 0 to 10 s, `b` from 5 to 15 s; the machine uses 2 CPU seconds per second, `a` 0.4."""
    a = record("a", start=0.0, end=10.0, own_cpu=4.0, machine_start=100.0, machine_end=120.0)
    b = record("b", start=5.0, end=15.0, machine_start=110.0, machine_end=130.0)
    # `a`: 4 + 5 * 1.6 + 5 * 0.8, `b`: 5 * 0.8 + 5 * 2
    assert records.cpu_seconds([a, b]) == pytest.approx([16.0, 14.0])
    assert records.cpu_seconds([b, a]) == pytest.approx([14.0, 16.0])


def test_own_cpu_time_is_never_reduced() -> None:
    """The machine's CPU time may be less than the tests' own because of rounding in /proc/stat."""
    a = record("a", start=0.0, end=1.0, own_cpu=1.0, machine_start=50.0, machine_end=50.99)
    idle = record("idle", start=2.0, end=3.0, machine_start=60.0, machine_end=60.0)
    assert records.cpu_seconds([a, idle]) == [1.0, 0.0]


def test_cpu_time_between_tests_is_not_attributed() -> None:
    a = record("a", start=0.0, end=1.0, machine_start=50.0, machine_end=51.0)
    b = record("b", start=9.0, end=10.0, machine_start=66.0, machine_end=67.0)
    assert records.cpu_seconds([a, b]) == [1.0, 1.0]


def test_record_without_figures_has_no_cpu_time() -> None:
    """A module that cannot be imported, or a test whose worker crashed."""
    a = record("a", start=5.0, end=6.0, machine_start=50.0, machine_end=51.0)
    assert records.cpu_seconds([record("broken", outcome=FAILED), a]) == [0.0, 1.0]


def test_machine_cpu_time_excludes_idle_time() -> None:
    ticks = usage.busy_seconds("cpu  100 20 30 99999 8888 4 6 777 0 0") * usage._TICKS_PER_SECOND
    assert ticks == pytest.approx(160)


def test_records_are_stored_in_files(tmp_path: Path) -> None:
    """Records are read although the file contains an incomplete line of a killed process."""
    records.begin(tmp_path, "test-all")
    first = record("a", outcome=SKIPPED, reason="no", start=1.5, end=2.5, servers=1, worker="gw0")
    records.append(tmp_path / "unit" / "1.jsonl", first)
    records.append(tmp_path / "unit" / "2.jsonl", record("b"))
    with (tmp_path / "unit" / "2.jsonl").open("a") as lines:
        lines.write('{"test": "c", "outc')
    records.write_tier(tmp_path, tier("e2e", 20))
    records.write_tier(tmp_path, tier("unit", 10))
    assert records.tests(tmp_path, "unit") == [first, record("b")]
    assert records.tiers(tmp_path) == [tier("unit", 10), tier("e2e", 20)]
    assert records.suite(tmp_path) == "test-all"
    records.begin(tmp_path, "test")
    assert (records.tests(tmp_path, "unit"), records.tiers(tmp_path)) == ([], [])
    assert records.suite(tmp_path) == "test"


def test_every_suite_has_a_budget_per_tier_of_the_makefile() -> None:
    makefile = (records.ROOT / "Makefile").read_text()
    tiers = {
        line.split("$(call TIER,")[1].split(",")[0] for line in makefile.splitlines() if "call TIER," in line
    }
    for suite in ("test", "test-all"):
        assert budgets.of_suite(suite).keys() == tiers | {"total"}


def test_suite_inherits_the_budgets_of_test() -> None:
    text = "[test]\nlint = 45\ne2e = 480\n[test-all]\ne2e = 1800\n"
    assert budgets.of_suite("test-all", text) == {"lint": 45, "e2e": 1800}
    assert budgets.of_suite("test", text) == {"lint": 45, "e2e": 480}


@pytest.mark.parametrize("code", [0, 3])
def test_tier_returns_the_exit_code_of_its_command(tmp_path: Path, code: int) -> None:
    assert command.tier(tmp_path, "unit", [sys.executable, "-c", f"raise SystemExit({code})"]) == code
    (recorded_tier,) = records.tiers(tmp_path)
    assert (recorded_tier.name, recorded_tier.exit_code) == ("unit", code)
    assert recorded_tier.wall > 0


def test_servers_are_counted_per_process() -> None:
    before = servers.created()
    servers.count()
    servers.count(2)
    assert servers.created() - before == 3
    servers._created = before  # this test created none
