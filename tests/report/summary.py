"""The report as text."""

import math
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence

from tests.report.budgets import TOTAL
from tests.report.records import FAILED, PASSED, SKIPPED, RecordedTest, RecordedTier, cpu_seconds

EXPENSIVE_COUNT = 20


def lines(
    tiers: Sequence[RecordedTier],
    tests: Mapping[str, Sequence[RecordedTest]],
    budgets: Mapping[str, float],
    coverage_percent: float | None = None,
) -> Iterator[str]:
    """Yield all lines. `tests` has the tests by tier. The last line is for programs that parse the result."""
    all_tests = [test for tier in tiers for test in tests.get(tier.name, ())]
    yield from ("", *_times(tiers, budgets))
    if all_tests:
        yield from ("", *_expensive(all_tests))
    yield from ("", f"MLflowServers created: {sum(test.servers for test in all_tests)}")
    if coverage_percent is not None:
        yield coverage_line(coverage_percent)
    yield from _skipped(all_tests)
    yield from _failures(tiers, tests)
    yield from ("", totals(tiers, tests))


def coverage_line(percent: float) -> str:
    """Return the line about the coverage. It is rounded down, so that 100 % means all lines."""
    return f"coverage: {math.floor(percent)} % of operator/mlflow_operator (unit tests)"


def totals(tiers: Sequence[RecordedTier], tests: Mapping[str, Sequence[RecordedTest]]) -> str:
    """Return `N passed, N failed, N skipped` of all tiers. A failed tier without a failed test counts as one failed."""
    counts = Counter(test.outcome for tier in tiers for test in tests.get(tier.name, ()))
    counts[FAILED] += sum(_failed_without_test(tier, tests) for tier in tiers)
    return ", ".join(f"{counts[outcome]} {outcome}" for outcome in (PASSED, FAILED, SKIPPED))


def _failed_without_test(tier: RecordedTier, tests: Mapping[str, Sequence[RecordedTest]]) -> bool:
    return tier.exit_code != 0 and all(test.outcome != FAILED for test in tests.get(tier.name, ()))


def _times(tiers: Sequence[RecordedTier], budgets: Mapping[str, float]) -> Iterator[str]:
    yield f"{'tier':<12}{'wall':>8}{'CPU':>8}{'budget':>8}"
    rows = [(tier.name, tier.wall, tier.cpu) for tier in tiers]
    start = min((tier.start for tier in tiers), default=0.0)
    end = max((tier.start + tier.wall for tier in tiers), default=0.0)
    rows.append((TOTAL, end - start, sum(tier.cpu for tier in tiers)))
    for name, wall, cpu in rows:
        budget = budgets.get(name)
        budget_text = "" if budget is None else f"{budget:.0f} s"
        is_over = budget is not None and wall > budget
        yield (
            f"{name:<12}{f'{wall:.0f} s':>8}{f'{cpu:.0f} s':>8}{budget_text:>8}"
            + ("  WARNING: over its budget" if is_over else "")
        ).rstrip()


def _expensive(tests: Sequence[RecordedTest]) -> Iterator[str]:
    ranked = sorted(zip(cpu_seconds(tests), tests, strict=True), key=lambda pair: -pair[0])[:EXPENSIVE_COUNT]
    yield f"Most CPU time ({len(ranked)} of {len(tests)} tests):"
    yield f"{'CPU':>8}{'wall':>8}"
    for cpu, test in ranked:
        yield f"{f'{cpu:.1f} s':>8}{f'{test.wall:.1f} s':>8}  {test.test}"


def _skipped(tests: Sequence[RecordedTest]) -> Iterator[str]:
    skipped = [test for test in tests if test.outcome == SKIPPED]
    if skipped:
        yield from ("", "Skipped:")
    for test in skipped:
        yield f"  {test.test}: {test.reason}"


def _failures(tiers: Sequence[RecordedTier], tests: Mapping[str, Sequence[RecordedTest]]) -> Iterator[str]:
    if any(tier.exit_code for tier in tiers):
        yield from ("", "Failed:")
    for tier in tiers:
        for test in tests.get(tier.name, ()):
            if test.outcome == FAILED:
                yield f"  {test.test}"
        if _failed_without_test(tier, tests):
            yield f"  {tier.name}: exit code {tier.exit_code}"
