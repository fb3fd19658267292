"""The pytest plugin that writes a record per test while `python -m tests.report tier` runs.

Each process that runs tests measures them and attaches the figures to their reports. The process that prints pytest's
summary writes the records, one file per process: with pytest-xdist, that is the process that started the workers. It
also knows of crashed workers, so the totals equal those of pytest's own summary. The first test that uses a session
fixture includes the fixture's time.
"""

import os
from collections.abc import Generator
from pathlib import Path
from typing import Any

import pytest

from tests.report import servers, usage
from tests.report.records import FAILED, PASSED, SKIPPED, RecordedTest, append, tier_folder

FIGURES_PROPERTY = "figures"
"""Name of the property with the figures, in a test's last report."""


def register(config: pytest.Config) -> None:
    """Register the plugins that measure and record, if this process belongs to a recorded tier."""
    folder = tier_folder()
    if folder is None:
        return
    config.pluginmanager.register(Measurements(_worker_id(config)), "test-report-meter")
    if not hasattr(config, "workerinput"):
        config.pluginmanager.register(RecordWriter(folder / f"{os.getpid()}.jsonl"), "test-report-writer")


def _worker_id(config: pytest.Config) -> str:
    worker_input: dict[str, Any] = getattr(config, "workerinput", {})
    return str(worker_input.get("workerid", "main"))


class Measurements:
    """Reads the clocks before and after every test in this process."""

    def __init__(self, worker: str) -> None:
        self._worker = worker
        self._start = usage.read()
        self._servers = 0

    @pytest.hookimpl(wrapper=True, tryfirst=True)
    def pytest_runtest_protocol(self) -> Generator[None, Any, Any]:
        """Read the clocks before the setup."""
        self._start, self._servers = usage.read(), servers.created()
        return (yield)

    @pytest.hookimpl(wrapper=True)
    def pytest_runtest_makereport(
        self, call: pytest.CallInfo[None]
    ) -> Generator[None, pytest.TestReport, pytest.TestReport]:
        """Attach the figures after the teardown."""
        report = yield
        if call.when == "teardown":
            start, end = self._start, usage.read()
            figures = {
                "start": start.time,
                "end": end.time,
                "own_cpu": end.own_cpu - start.own_cpu,
                "machine_start": start.machine_cpu,
                "machine_end": end.machine_cpu,
                "servers": servers.created() - self._servers,
                "worker": self._worker,
            }
            report.user_properties.append((FIGURES_PROPERTY, figures))
        return report


class RecordWriter:
    """Writes a record after the last report of each test."""

    def __init__(self, file: Path) -> None:
        self._file = file
        self._outcomes: dict[str, tuple[str, str]] = {}

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        """Handle a report of setup, call or teardown, or the only report about a crashed worker."""
        previous = self._outcomes.pop(report.nodeid, (PASSED, ""))
        current = _outcome(report)
        # A failed teardown overrides a passed or skipped call, but nothing overrides a failure.
        outcome = previous if previous[0] == FAILED or current[0] == PASSED else current
        if report.when in {"setup", "call"}:
            self._outcomes[report.nodeid] = outcome
            return
        figures: dict[str, Any] = dict(report.user_properties).get(FIGURES_PROPERTY) or {}  # type: ignore[assignment]
        append(self._file, RecordedTest(report.nodeid, *outcome, **figures))

    def pytest_collectreport(self, report: pytest.CollectReport) -> None:
        """Record a module that cannot be imported as a failed test, and a module that is skipped as a skipped test."""
        outcome = _outcome(report)
        if outcome[0] != PASSED:
            append(self._file, RecordedTest(report.nodeid, *outcome))


def _outcome(report: pytest.TestReport | pytest.CollectReport) -> tuple[str, str]:
    if report.failed:
        return FAILED, ""
    if not report.skipped:
        return PASSED, ""
    if xfail_reason := getattr(report, "wasxfail", ""):
        return SKIPPED, f"expected to fail: {xfail_reason}"
    reason = report.longrepr[2] if isinstance(report.longrepr, tuple) else str(report.longrepr)
    return SKIPPED, reason.removeprefix("Skipped: ")
