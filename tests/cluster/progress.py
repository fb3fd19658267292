"""Runs steps with dependencies in parallel, with one progress line per step."""

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
from tests.cluster.shell import Cancelled, Shell, StepError

LOG_TAIL_LINES = 15
PARALLEL_STEPS = 6
"""Number of parallel steps. Compilation keeps two cores busy; the other steps mostly wait for network and disk."""
REMINDER_INTERVAL_SECONDS = 30
"""How often a running step prints its elapsed time if the output is not a terminal."""
REDRAW_INTERVAL_SECONDS = 0.5
WRITTEN_FOLDERS = (Path(tempfile.gettempdir()), Path("/var/lib/docker"))
"""Folders besides the cache that steps write to."""
ANSI_COLOR = re.compile(r"\x1b\[[0-9;]*m")


@dataclass(frozen=True)
class Step:
    """A step: `is_done` checks whether it is necessary, `run` does it and can be repeated after an interruption.

    `needs` names the steps that must be done first. Names that are not among the steps of the run are ignored, so that
    a run can omit steps. Both functions get a Shell that writes to the step's own log.
    """

    name: str
    is_done: Callable[[Shell], bool]
    run: Callable[[Shell], None]
    needs: tuple[str, ...] = ()
    hint: str = ""


@dataclass
class _Screen:
    """Prints finished steps and, below them on a terminal, one line per running step, which is redrawn."""

    out: TextIO
    running: dict[str, float] = field(default_factory=dict)
    last_reminder: dict[str, float] = field(default_factory=dict)
    drawn_lines: int = 0

    def start(self, name: str) -> None:
        self.running[name] = self.last_reminder[name] = time.monotonic()

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
            self.drawn_lines = len(self.running)
            self.out.flush()
            return
        for name, started in self.running.items():
            if now - self.last_reminder[name] >= REMINDER_INTERVAL_SECONDS:
                self.last_reminder[name] = now
                print(f"  {name:<40} {now - started:6.0f} s ...", file=self.out, flush=True)

    def _erase(self) -> None:
        if self.drawn_lines:
            # move the cursor up by these lines, and clear to the end of the screen
            print(f"\x1b[{self.drawn_lines}A\x1b[J", end="", file=self.out)
        self.drawn_lines = 0


def run_steps(steps: Sequence[Step], sh: Shell, logs: Path, start_time: float) -> bool:
    """Run all steps, each after its dependencies, up to PARALLEL_STEPS in parallel.

    If a step fails, stops the running steps, prints the cause and the next action, and returns False.
    """
    logs.mkdir(parents=True, exist_ok=True)
    out = sys.stdout
    screen = _Screen(out)
    waiting, finished = list(steps), set[str]()
    names = {step.name for step in steps}
    active: dict[Future[float | None], Step] = {}
    failed: list[tuple[Step, Exception]] = []
    with ThreadPoolExecutor(PARALLEL_STEPS) as pool:
        try:
            while active or (waiting and not failed):
                for step in (
                    [] if failed else _startable(waiting, names, finished, PARALLEL_STEPS - len(active))
                ):
                    waiting.remove(step)
                    screen.start(step.name)
                    active[pool.submit(_run_step, step, sh, logs)] = step
                if not active:
                    raise ValueError(f"steps that wait for each other: {', '.join(s.name for s in waiting)}")
                done, _ = wait(active, timeout=REDRAW_INTERVAL_SECONDS, return_when=FIRST_COMPLETED)
                for future in done:
                    step = active.pop(future)
                    if failure := _outcome(future):
                        failed.append((step, failure))
                        sh.cancel.set()
                        screen.finish(step.name, _line(step.name, _failure_text(failure)))
                        continue
                    finished.add(step.name)
                    screen.finish(step.name, _line(step.name, _duration(future.result(), start_time)))
                screen.tick()
        except KeyboardInterrupt:
            sh.cancel.set()
            raise
    for step, failure in failed:
        if isinstance(failure, StepError):
            _explain(failure, step, _log(logs, step), out)
        elif not isinstance(failure, Cancelled):
            raise failure
    return not failed


def _startable(waiting: Sequence[Step], known: set[str], finished: set[str], limit: int) -> list[Step]:
    return [step for step in waiting if set(step.needs) & known <= finished][:limit]


def _run_step(step: Step, sh: Shell, logs: Path) -> float | None:
    """Run a step; returns its duration in seconds, or None if it was already done."""
    step_shell = replace(sh, log=_log(logs, step))
    try:
        step_shell.log.touch()
        if step.is_done(step_shell):
            return None
        started = time.monotonic()
        step_shell.log.write_text("")
        step.run(step_shell)
    except OSError as error:  # for example a full disk, or a program that is not installed
        raise StepError(str(error)) from error
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


def _failure_text(failure: Exception) -> str:
    return "stopped" if isinstance(failure, Cancelled) else "failed"


def _duration(seconds: float | None, begin: float) -> str:
    if seconds is None:
        return "up to date"
    return f"{seconds:6.1f} s   ({time.monotonic() - begin:.0f} s in total)"


def _explain(failure: StepError, step: Step, log: Path, out: TextIO) -> None:
    text = ANSI_COLOR.sub("", log.read_text(errors="replace")) if log.exists() else ""
    problem = problems.full_disk(log.parent, *WRITTEN_FOLDERS) or problems.diagnose(f"{text}\n{failure}")
    if problem is not None:
        print(f"\n{step.name}: {problem}\nLog: {log}", file=out)
        if step.hint:
            print(step.hint, file=out)
        out.flush()
        return
    lines = text.splitlines()[-LOG_TAIL_LINES:]
    print("".join(f"        | {line}\n" for line in lines), end="", file=out)
    print(f"\n{step.name}: {failure}.", file=out)
    if lines:
        print(f"Log: {log}", file=out)
    hint = failure.hint or step.hint
    print(hint or "Run the same command again: finished steps are kept.", file=out, flush=True)
