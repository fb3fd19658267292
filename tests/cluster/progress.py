"""Steps with dependencies, run side by side, with one progress line each."""

import re
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TextIO

from tests.cluster import problems
from tests.cluster.shell import Cancelled, Failed, Shell

LAST_LINES = 15
PARALLEL = 6
"""Steps at a time. Two cores are busy with compilation; the others mostly wait for the network and the disk."""
REMIND_SECONDS = 30
"""How often a step that is still running prints its elapsed time where the output is not a terminal."""
REDRAW_SECONDS = 0.5
WRITTEN = (Path(tempfile.gettempdir()), Path("/var/lib/docker"))
"""Folders besides the cache that steps write to."""
COLOUR = re.compile(r"\x1b\[[0-9;]*m")


@dataclass(frozen=True)
class Step:
    """One state to reach. `done` checks for it, `run` reaches it and can be repeated after an interruption.

    `needs` names the steps that must be done first. A name that is not among the steps of the run is ignored, so that a
    run can leave steps out. Both functions get a Shell that writes to the step's own log.
    """

    name: str
    done: Callable[[Shell], bool]
    run: Callable[[Shell], None]
    needs: tuple[str, ...] = ()
    hint: str = ""


@dataclass
class _Screen:
    """Prints finished steps for good, and below them, on a terminal, a line per running step that is redrawn."""

    out: TextIO
    running: dict[str, float] = field(default_factory=dict)
    reminded: dict[str, float] = field(default_factory=dict)
    drawn: int = 0

    def start(self, name: str) -> None:
        self.running[name] = self.reminded[name] = time.monotonic()

    def finish(self, name: str, line: str) -> None:
        self._erase()
        self.running.pop(name, None)
        print(line, file=self.out, flush=True)

    def tick(self) -> None:
        now = time.monotonic()
        if self.out.isatty():
            self._erase()
            for name, started in self.running.items():
                print(f"  {name:<40} {now - started:6.0f} s ...", file=self.out)
            self.drawn = len(self.running)
            self.out.flush()
            return
        for name, started in self.running.items():
            if now - self.reminded[name] >= REMIND_SECONDS:
                self.reminded[name] = now
                print(f"  {name:<40} {now - started:6.0f} s ...", file=self.out, flush=True)

    def _erase(self) -> None:
        if self.drawn:
            # up by as many lines, and clear to the end of the screen
            print(f"\x1b[{self.drawn}A\x1b[J", end="", file=self.out)
        self.drawn = 0


def run_steps(steps: Sequence[Step], sh: Shell, logs: Path, begin: float) -> bool:
    """Run every step whose dependencies are done, up to PARALLEL at a time.

    Returns False if one fails; the reason and the next action are printed, and the running steps are stopped.
    """
    logs.mkdir(parents=True, exist_ok=True)
    out = sys.stdout
    screen = _Screen(out)
    waiting, finished = list(steps), set[str]()
    known = {step.name for step in steps}
    active: dict[Future[float | None], Step] = {}
    failed: list[tuple[Step, Exception]] = []
    with ThreadPoolExecutor(PARALLEL) as pool:
        try:
            while active or (waiting and not failed):
                for step in [] if failed else _startable(waiting, known, finished, PARALLEL - len(active)):
                    waiting.remove(step)
                    screen.start(step.name)
                    active[pool.submit(_reach, step, sh, logs)] = step
                if not active:
                    raise ValueError(f"steps that wait for each other: {', '.join(s.name for s in waiting)}")
                done, _ = wait(active, timeout=REDRAW_SECONDS, return_when=FIRST_COMPLETED)
                for future in done:
                    step = active.pop(future)
                    if failure := _outcome(future):
                        failed.append((step, failure))
                        sh.cancel.set()
                        screen.finish(step.name, _line(step.name, _verdict(failure)))
                        continue
                    finished.add(step.name)
                    screen.finish(step.name, _line(step.name, _took(future.result(), begin)))
                screen.tick()
        except KeyboardInterrupt:
            sh.cancel.set()
            raise
    for step, failure in failed:
        if isinstance(failure, Failed):
            _explain(failure, step, _log(logs, step), out)
        elif not isinstance(failure, Cancelled):
            raise failure
    return not failed


def _startable(waiting: Sequence[Step], known: set[str], finished: set[str], room: int) -> list[Step]:
    return [step for step in waiting if set(step.needs) & known <= finished][:room]


def _reach(step: Step, sh: Shell, logs: Path) -> float | None:
    """The seconds that the step took; None if there was nothing to do."""
    mine = replace(sh, log=_log(logs, step))
    try:
        mine.log.touch()
        if step.done(mine):
            return None
        started = time.monotonic()
        mine.log.write_text("")
        step.run(mine)
    except OSError as error:  # such as a full disk, or a program that is not installed
        raise Failed(str(error)) from error
    return time.monotonic() - started


def _outcome(future: Future[float | None]) -> Exception | None:
    error = future.exception()
    if error is not None and not isinstance(error, Exception):
        raise error
    return error


def _log(logs: Path, step: Step) -> Path:
    return logs / f"{re.sub(r'[^a-z0-9.]+', '-', step.name.lower())}.log"


def _line(name: str, text: str) -> str:
    return f"  {name:<40} {text}"


def _verdict(failure: Exception) -> str:
    return "stopped" if isinstance(failure, Cancelled) else "failed"


def _took(seconds: float | None, begin: float) -> str:
    if seconds is None:
        return "up to date"
    return f"{seconds:6.1f} s   ({time.monotonic() - begin:.0f} s in total)"


def _explain(failure: Failed, step: Step, log: Path, out: TextIO) -> None:
    text = COLOUR.sub("", log.read_text(errors="replace")) if log.exists() else ""
    known = problems.full_disk(log.parent, *WRITTEN) or problems.diagnose(f"{text}\n{failure}")
    if known is not None:
        print(f"\n{step.name}: {known}\nLog: {log}", file=out)
        if step.hint:
            print(step.hint, file=out)
        out.flush()
        return
    lines = text.splitlines()[-LAST_LINES:]
    print("".join(f"        | {line}\n" for line in lines), end="", file=out)
    print(f"\n{step.name}: {failure}.", file=out)
    if lines:
        print(f"Log: {log}", file=out)
    hint = failure.hint or step.hint
    print(hint or "Run the same command again: finished steps are kept.", file=out, flush=True)
