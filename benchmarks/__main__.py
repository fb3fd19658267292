"""`python -m benchmarks [take|docs]`, which `make bench` and `make bench-docs` call."""

import argparse
import shutil
import signal
import sys
import time
import traceback
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from types import FrameType

from tests.cluster.settings import ROOT
from tests.e2e.kube import CommandError

from benchmarks import (
    artifacts,
    at_rest,
    authentication,
    backup,
    capacity,
    cold_start,
    demo,
    drift,
    external_start,
    no_failed_request,
    platform,
    provisioned,
    report,
    scale,
    server_memory,
    throughput,
    upgrade,
)
from benchmarks.capacity import Resources
from benchmarks.lab import BusyError, Lab
from benchmarks.pods import PodBlockedError
from benchmarks.rows import Row


@dataclass(frozen=True)
class Figure:
    """`measure` returns the rows; `peak_requests` returns the peak requests of its pods, in a quick or a full run."""

    measure: Callable[[Lab], list[Row]]
    peak_requests: Callable[[bool], Resources]


FIGURES = {
    "cold-start": Figure(cold_start.measure, cold_start.peak_requests),
    "external-start": Figure(external_start.measure, external_start.peak_requests),
    "drift": Figure(drift.measure, drift.peak_requests),
    "throughput": Figure(throughput.measure, throughput.peak_requests),
    "authentication": Figure(authentication.measure, authentication.peak_requests),
    "no-failed-request": Figure(no_failed_request.measure, no_failed_request.peak_requests),
    "server-memory": Figure(server_memory.measure, server_memory.peak_requests),
    "at-rest": Figure(at_rest.measure, at_rest.peak_requests),
    "scale": Figure(scale.measure, scale.peak_requests),
    "provisioned": Figure(provisioned.measure, provisioned.peak_requests),
    "platform": Figure(platform.measure, platform.peak_requests),
    "artifacts": Figure(artifacts.measure, artifacts.peak_requests),
    "upgrade": Figure(upgrade.measure, upgrade.peak_requests),
    "backup": Figure(backup.measure, backup.peak_requests),
}
"""Figures in the order in which they are measured."""

ROUNDS, QUICK_ROUNDS = 5, 1
FIGURES_PAGE = ROOT / "docs" / "figures.md"
CHART = ROOT / "docs" / "images" / "servers.svg"
INTERRUPTED_EXIT_CODE = 130
SELF_EXPLANATORY_ERRORS = (AssertionError, CommandError, PodBlockedError, RuntimeError, TimeoutError)
"""Errors whose message is sufficient. Other errors are reported with their type."""


@dataclass
class RunResults:
    """Results so far: rows of figures, error messages of figures that failed, and the duration of each step."""

    rows: dict[str, list[Row]] = field(default_factory=dict)
    failures: dict[str, str] = field(default_factory=dict)
    seconds: dict[str, float] = field(default_factory=dict)


def take(arguments: argparse.Namespace) -> int:
    """Measure the figures. If one fails, the others are still measured."""
    # after these signals, too, the demo's server is resumed and namespaces are deleted
    for signal_number in (signal.SIGTERM, signal.SIGHUP):
        signal.signal(signal_number, _interrupt)
    names = [name for name in FIGURES if not arguments.only or name in arguments.only]
    lab = Lab(arguments.rounds or (QUICK_ROUNDS if arguments.quick else ROUNDS), arguments.quick)
    run = RunResults()
    interrupted: KeyboardInterrupt | None = None
    try:
        with lab:
            _measure_all(lab, names, run, resume=arguments.resume)
    except KeyboardInterrupt as error:
        interrupted = error
    rows = [row for name in run.rows for row in run.rows[name]]
    lab.results_folder.mkdir(parents=True, exist_ok=True)
    (lab.results_folder / "figures.md").write_text(report.markdown(rows))
    print(f"\n{report.text(rows)}\n\n{report.durations(run.seconds, time.monotonic() - lab.start_time)}")
    print(f"\nThe table and all samples are in {lab.results_folder}.")
    for name, message in run.failures.items():
        print(f"\nFAILED: {name}: {message}")
        print(f"To measure only this figure, run: make bench ONLY={name}{_options(arguments)}")
    if interrupted is not None:
        print(f"\nInterrupted by {str(interrupted) or 'Ctrl-C'}.")
        print(f"To measure the remaining figures, run: make bench RESUME=1{_options(arguments)}")
        return INTERRUPTED_EXIT_CODE
    return 1 if run.failures or any(row.met is False for row in rows) else 0


def _interrupt(number: int, _frame: FrameType | None) -> None:
    raise KeyboardInterrupt(signal.Signals(number).name)


def _options(arguments: argparse.Namespace) -> str:
    return " QUICK=1" if arguments.quick else ""


def _measure_all(lab: Lab, names: list[str], run: RunResults, *, resume: bool) -> None:
    build = lab.build()
    with _timed(run, "preparation"):
        lab.install()
    with ExitStack() as stack:
        with _timed(run, "preparation"):
            stack.enter_context(demo.suspended(lab))
            run.failures.update(_preflight(lab, names))
        for name in names:
            if resume and (saved_rows := report.load(lab.results_folder, name, build)) is not None:
                run.rows[name] = saved_rows
                run.failures.pop(name, None)
                lab.log(f"{name}: already measured in an earlier run of the same build")
            elif name not in run.failures:
                with _timed(run, name):
                    _measure_one(lab, name, build, run)


def _preflight(lab: Lab, names: list[str]) -> dict[str, str]:
    """Compare the node's free resources with the figures' requests; returns messages for figures that do not fit."""
    cluster = lab.cluster()
    needed = {name: FIGURES[name].peak_requests(lab.quick) for name in names}
    lab.log(capacity.summary(cluster))
    others = capacity.other_namespaces(cluster)
    if others:
        lab.log(f"Other pods use the CPU, so the figures are not comparable: {others}.")
    blocked = capacity.preflight(cluster, needed, lab.kubectl, lab.namespaces)
    for name, message in blocked.items():
        lab.log(f"{name} will not be measured: {message}")
    return blocked


def _measure_one(lab: Lab, name: str, build: str, run: RunResults) -> None:
    start = time.monotonic()
    lab.log(f"{name} ...")
    try:
        run.rows[name] = FIGURES[name].measure(lab)
    except Exception as error:
        log = lab.results_folder / f"{name}.log"
        log.parent.mkdir(parents=True, exist_ok=True)
        log.write_text(traceback.format_exc())
        prefix = "" if isinstance(error, SELF_EXPLANATORY_ERRORS) else f"{type(error).__name__}: "
        run.failures[name] = f"{prefix}{error}\nThe traceback is in {log}."
        lab.log(f"{name} failed: {prefix}{error}")
    else:
        report.save(lab.results_folder, name, build, run.rows[name])
        lab.log(f"{name}: measured in {time.monotonic() - start:.0f} s")


@contextmanager
def _timed(run: RunResults, step: str) -> Iterator[None]:
    """Add the duration of the context to that of the step."""
    start = time.monotonic()
    try:
        yield
    finally:
        run.seconds[step] = run.seconds.get(step, 0.0) + time.monotonic() - start


def docs(_: argparse.Namespace) -> int:
    """Write the table and the chart of the last full run to the docs."""
    folder = ROOT / "out" / "bench"
    rows = [row for name in FIGURES for row in report.load(folder, name) or ()]
    if not rows:
        print("There are no results yet. Run: make bench", file=sys.stderr)
        return 1
    FIGURES_PAGE.write_text(report.insert_table(FIGURES_PAGE.read_text(), report.markdown(rows)))
    chart = Path(folder, "servers.svg")
    if chart.exists():
        CHART.parent.mkdir(exist_ok=True)
        shutil.copyfile(chart, CHART)
    print(f"Updated {FIGURES_PAGE.relative_to(ROOT)} with the results in {folder}.")
    return 0


def main() -> int:
    """Run a command. Returns 0 if every figure was measured and meets its target, otherwise 1; 2 for wrong usage."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks", description="Benchmarks of the operator.")
    parser.add_argument("command", choices=("take", "docs"))
    parser.add_argument("--only", nargs="*", choices=FIGURES, help="only measure these figures")
    parser.add_argument(
        "--rounds",
        type=int,
        help=f"how often to repeat short measurements (default: {ROUNDS}; {QUICK_ROUNDS} with --quick)",
    )
    parser.add_argument(
        "--quick",
        action="store_true",
        help="measure every figure once and shorten the long ones, as a preview",
    )
    parser.add_argument(
        "--resume", action="store_true", help="keep the results of an earlier run of the same build"
    )
    arguments = parser.parse_args()
    try:
        return {"take": take, "docs": docs}[arguments.command](arguments)
    except (BusyError, PodBlockedError, TimeoutError) as error:
        print(error, file=sys.stderr)
    except (FileNotFoundError, CommandError) as error:
        print(f"{error}\nIf the test cluster does not answer, run: make cluster", file=sys.stderr)
    return 1


if __name__ == "__main__":
    sys.exit(main())
