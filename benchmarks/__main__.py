"""`python -m benchmarks [take|docs]`: what `make bench` and `make bench-docs` call."""

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
    backup,
    capacity,
    cold_start,
    demo,
    drift,
    external_start,
    no_failed_request,
    provisioned,
    report,
    scale,
    throughput,
    upgrade,
)
from benchmarks.capacity import Resources
from benchmarks.lab import BusyError, Lab
from benchmarks.pods import PodBlockedError
from benchmarks.rows import Row


@dataclass(frozen=True)
class Figure:
    """`take` measures it; `requests` is what its pods request at the same time, in a quick run or a full one."""

    take: Callable[[Lab], list[Row]]
    requests: Callable[[bool], Resources]


FIGURES = {
    "cold-start": Figure(cold_start.take, cold_start.peak_requests),
    "external-start": Figure(external_start.take, external_start.peak_requests),
    "drift": Figure(drift.take, drift.peak_requests),
    "throughput": Figure(throughput.take, throughput.peak_requests),
    "no-failed-request": Figure(no_failed_request.take, no_failed_request.peak_requests),
    "at-rest": Figure(at_rest.take, at_rest.peak_requests),
    "scale": Figure(scale.take, scale.peak_requests),
    "provisioned": Figure(provisioned.take, provisioned.peak_requests),
    "artifacts": Figure(artifacts.take, artifacts.peak_requests),
    "upgrade": Figure(upgrade.take, upgrade.peak_requests),
    "backup": Figure(backup.take, backup.peak_requests),
}
"""In the order in which they are taken."""

ROUNDS, QUICK_ROUNDS = 5, 1
PAGE = ROOT / "docs" / "figures.md"
PICTURE = ROOT / "docs" / "images" / "servers.svg"
INTERRUPTED = 130
EXPECTED = (AssertionError, CommandError, PodBlockedError, RuntimeError, TimeoutError)
"""Errors whose message says enough; the others are reported with their type."""


@dataclass
class Run:
    """What has become of the figures so far: their rows, why others were not taken, and the seconds each step took."""

    rows: dict[str, list[Row]] = field(default_factory=dict)
    not_taken: dict[str, str] = field(default_factory=dict)
    seconds: dict[str, float] = field(default_factory=dict)


def take(asked: argparse.Namespace) -> int:
    """Takes the figures; one that fails does not keep the others from being taken."""
    # also after these signals the demo's server is resumed and namespaces are deleted
    for ending in (signal.SIGTERM, signal.SIGHUP):
        signal.signal(ending, _interrupt)
    chosen = [name for name in FIGURES if not asked.only or name in asked.only]
    lab = Lab(asked.rounds or (QUICK_ROUNDS if asked.quick else ROUNDS), asked.quick)
    run = Run()
    interrupted: KeyboardInterrupt | None = None
    try:
        with lab:
            _take(lab, chosen, run, resume=asked.resume)
    except KeyboardInterrupt as error:
        interrupted = error
    rows = [row for name in run.rows for row in run.rows[name]]
    lab.out.mkdir(parents=True, exist_ok=True)
    (lab.out / "figures.md").write_text(report.markdown(rows))
    print(f"\n{report.text(rows)}\n\n{report.durations(run.seconds, time.monotonic() - lab.begin)}")
    print(f"\nThis table and all samples are in {lab.out}.")
    for name, why in run.not_taken.items():
        print(f"\nNOT TAKEN: {name}: {why}\nTo take it alone, run: make bench ONLY={name}{_options(asked)}")
    if interrupted is not None:
        print(f"\nInterrupted by {str(interrupted) or 'Ctrl-C'}.")
        print(f"To take the figures that are missing, run: make bench RESUME=1{_options(asked)}")
        return INTERRUPTED
    return 1 if run.not_taken or any(row.met is False for row in rows) else 0


def _interrupt(number: int, _frame: FrameType | None) -> None:
    raise KeyboardInterrupt(signal.Signals(number).name)


def _options(asked: argparse.Namespace) -> str:
    return " QUICK=1" if asked.quick else ""


def _take(lab: Lab, chosen: list[str], run: Run, *, resume: bool) -> None:
    build = lab.build()
    with _timed(run, "preparation"):
        lab.install()
    with ExitStack() as stack:
        with _timed(run, "preparation"):
            stack.enter_context(demo.suspended(lab))
            run.not_taken.update(_preflight(lab, chosen))
        for name in chosen:
            if resume and (known := report.load(lab.out, name, build)) is not None:
                run.rows[name] = known
                run.not_taken.pop(name, None)
                lab.say(f"{name}: taken in an earlier run of the same build")
            elif name not in run.not_taken:
                with _timed(run, name):
                    _take_one(lab, name, build, run)


def _preflight(lab: Lab, chosen: list[str]) -> dict[str, str]:
    """Compares the node's free requests with what the figures need; returns why some of them do not fit."""
    cluster = lab.cluster()
    needed = {name: FIGURES[name].requests(lab.quick) for name in chosen}
    lab.say(capacity.summary(cluster))
    others = capacity.others(cluster)
    if others:
        lab.say(f"Other pods share the CPU, so figures are not comparable: {others}.")
    unfit = capacity.preflight(cluster, needed, lab.kubectl, lab.namespaces)
    for name, why in unfit.items():
        lab.say(f"{name} will not be taken: {why}")
    return unfit


def _take_one(lab: Lab, name: str, build: str, run: Run) -> None:
    began = time.monotonic()
    lab.say(f"{name} ...")
    try:
        run.rows[name] = FIGURES[name].take(lab)
    except Exception as error:
        log = lab.out / f"{name}.log"
        log.parent.mkdir(parents=True, exist_ok=True)
        log.write_text(traceback.format_exc())
        kind = "" if isinstance(error, EXPECTED) else f"{type(error).__name__}: "
        run.not_taken[name] = f"{kind}{error}\nThe traceback is in {log}."
        lab.say(f"{name} could not be taken: {kind}{error}")
    else:
        report.save(lab.out, name, build, run.rows[name])
        lab.say(f"{name}: taken in {time.monotonic() - began:.0f} s")


@contextmanager
def _timed(run: Run, step: str) -> Iterator[None]:
    """Adds the seconds that the context lasts to those of the step."""
    began = time.monotonic()
    try:
        yield
    finally:
        run.seconds[step] = run.seconds.get(step, 0.0) + time.monotonic() - began


def docs(_: argparse.Namespace) -> int:
    """Puts the table and the picture of the last full run into the docs."""
    folder = ROOT / "out" / "bench"
    rows = [row for name in FIGURES for row in report.load(folder, name) or ()]
    if not rows:
        print("There are no figures yet. Run: make bench", file=sys.stderr)
        return 1
    PAGE.write_text(report.into(PAGE.read_text(), report.markdown(rows)))
    picture = Path(folder, "servers.svg")
    if picture.exists():
        PICTURE.parent.mkdir(exist_ok=True)
        shutil.copyfile(picture, PICTURE)
    print(f"{PAGE.relative_to(ROOT)} shows the figures of {folder}.")
    return 0


def main() -> int:
    """Exit code 0 if every figure was taken and meets its target, 1 if not, 2 for a usage error."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks", description="Benchmarks of the operator.")
    parser.add_argument("command", choices=("take", "docs"))
    parser.add_argument("--only", nargs="*", choices=FIGURES, help="take these figures only")
    parser.add_argument(
        "--rounds",
        type=int,
        help=f"how often to repeat what takes seconds (default: {ROUNDS}; {QUICK_ROUNDS} with --quick)",
    )
    parser.add_argument(
        "--quick", action="store_true", help="take every figure once, the longer ones shortened: a preview"
    )
    parser.add_argument(
        "--resume", action="store_true", help="keep figures of an earlier run of the same build"
    )
    asked = parser.parse_args()
    try:
        return {"take": take, "docs": docs}[asked.command](asked)
    except (BusyError, PodBlockedError, TimeoutError) as error:
        print(error, file=sys.stderr)
    except (FileNotFoundError, CommandError) as missing:
        print(f"{missing}\nIf the test cluster does not answer, run: make cluster", file=sys.stderr)
    return 1


if __name__ == "__main__":
    sys.exit(main())
