"""The pytest plugin that writes a record per test while `python -m tests.report tier` runs.

A process that runs tests measures them and attaches the figures to their reports. The process that prints pytest's
summary writes the records, one file per process: with pytest-xdist that is the one that started the workers. It also
knows of a worker that crashed, so the totals are those of pytest's own summary. What a session fixture costs is part of
the first test that uses it.
"""

import os
from collections.abc import Generator
from pathlib import Path
from typing import Any

import pytest

from tests.report import servers, usage
from tests.report.records import FAILED, PASSED, SKIPPED, RecordedTest, append, tier_folder

FIGURES = "figures"
"""Name of the property of a test's last report that holds what was measured."""


def register(config: pytest.Config) -> None:
    """Starts to measure and record in this process, if it belongs to a tier that is recorded."""
    folder = tier_folder()
    if folder is None:
        return
    config.pluginmanager.register(Meter(_worker(config)), "test-report-meter")
    if not hasattr(config, "workerinput"):
        config.pluginmanager.register(Writer(folder / f"{os.getpid()}.jsonl"), "test-report-writer")


def _worker(config: pytest.Config) -> str:
    found: dict[str, Any] = getattr(config, "workerinput", {})
    return str(found.get("workerid", "main"))


class Meter:
    """Reads the clocks before and after every test that this process runs."""

    def __init__(self, worker: str) -> None:
        self._worker = worker
        self._start = usage.read()
        self._servers = 0

    @pytest.hookimpl(wrapper=True, tryfirst=True)
    def pytest_runtest_protocol(self) -> Generator[None, Any, Any]:
        """Before the setup."""
        self._start, self._servers = usage.read(), servers.created()
        return (yield)

    @pytest.hookimpl(wrapper=True)
    def pytest_runtest_makereport(
        self, call: pytest.CallInfo[None]
    ) -> Generator[None, pytest.TestReport, pytest.TestReport]:
        """After the teardown."""
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
            report.user_properties.append((FIGURES, figures))
        return report


class Writer:
    """Writes a record when the last report of a test has arrived."""

    def __init__(self, file: Path) -> None:
        self._file = file
        self._outcomes: dict[str, tuple[str, str]] = {}

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        """A report of setup, call or teardown, or the only one about a worker that crashed."""
        before = self._outcomes.pop(report.nodeid, (PASSED, ""))
        now = _outcome(report)
        # A failed teardown outweighs a passed or skipped call, but nothing outweighs a failure.
        outcome = before if before[0] == FAILED or now[0] == PASSED else now
        if report.when in {"setup", "call"}:
            self._outcomes[report.nodeid] = outcome
            return
        figures: dict[str, Any] = dict(report.user_properties).get(FIGURES) or {}  # type: ignore[assignment]
        append(self._file, RecordedTest(report.nodeid, *outcome, **figures))

    def pytest_collectreport(self, report: pytest.CollectReport) -> None:
        """A module that cannot be imported counts as a failed test, one that skips itself as a skipped test."""
        outcome = _outcome(report)
        if outcome[0] != PASSED:
            append(self._file, RecordedTest(report.nodeid, *outcome))


def _outcome(report: pytest.TestReport | pytest.CollectReport) -> tuple[str, str]:
    if report.failed:
        return FAILED, ""
    if not report.skipped:
        return PASSED, ""
    if expected := getattr(report, "wasxfail", ""):
        return SKIPPED, f"expected to fail: {expected}"
    reason = report.longrepr[2] if isinstance(report.longrepr, tuple) else str(report.longrepr)
    return SKIPPED, reason.removeprefix("Skipped: ")
