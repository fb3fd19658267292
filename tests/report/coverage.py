"""The pytest plugin that measures how many lines of the operator's code the tests run: `-p tests.report.coverage`.

It must be given as an option, because it must start before conftest.py imports the operator. With pytest-xdist, each
worker measures its own process, and the main process adds up the results. Processes that a test starts are not
measured.
"""

import json
from pathlib import Path
from typing import Any

import pytest

from tests.report import records, summary

try:
    import slipcover
except ModuleNotFoundError:
    slipcover = None

SOURCE = records.ROOT / "operator" / "mlflow_operator"
MISSING_LINES_FILE = records.FOLDER / "coverage.txt"
"""Where the lines that no test runs are written, by file."""

KEEP_PROBES = -1
"""Never replace code that has run by code without probes, because SlipCover would search all loaded modules for it. The
probes cost 3 % of the CPU time of the unit tests."""

WORKER_OUTPUT_KEY = "operator_coverage"


def pytest_load_initial_conftests(early_config: pytest.Config) -> None:
    """Start to measure this process. On a platform without SlipCover, nothing is measured."""
    if slipcover is not None:
        early_config.pluginmanager.register(Coverage(SOURCE, MISSING_LINES_FILE), "operator-coverage")


class Coverage:
    """Measures this process, and adds the results of the workers."""

    def __init__(self, source: Path, missing_lines_file: Path) -> None:
        self._missing_lines_file = missing_lines_file
        self._slipcover = slipcover.Slipcover(d_miss_threshold=KEEP_PROBES, source=[str(source)])
        self._worker_results: list[dict[str, Any]] = []
        slipcover.ImportManager(self._slipcover, slipcover.FileMatcher([source])).__enter__()

    def pytest_sessionfinish(self, session: pytest.Session) -> None:
        """Send the result of a worker to the main process."""
        output: dict[str, str] | None = getattr(session.config, "workeroutput", None)
        if output is not None:
            output[WORKER_OUTPUT_KEY] = json.dumps(self._slipcover.get_coverage())

    @pytest.hookimpl(optionalhook=True)
    def pytest_testnodedown(self, node: Any) -> None:
        """Keep the result of a worker. A worker that crashed has none."""
        if result := getattr(node, "workeroutput", {}).get(WORKER_OUTPUT_KEY):
            self._worker_results.append(json.loads(result))

    def pytest_terminal_summary(self, terminalreporter: pytest.TerminalReporter) -> None:
        """Print the coverage, write it to the records of the tier, and list the lines that no test runs in a file."""
        total = self._slipcover.get_coverage()
        for result in self._worker_results:
            slipcover.merge_coverage(total, result)
        percent = float(total["summary"]["percent_covered"])
        terminalreporter.write_line(summary.coverage_line(percent))
        self._missing_lines_file.parent.mkdir(parents=True, exist_ok=True)
        with self._missing_lines_file.open("w") as file:
            slipcover.print_coverage(total, outfile=file, skip_covered=True, missing_width=80)
        folder = records.tier_folder()
        if folder is not None:
            records.write_coverage(folder, percent)
