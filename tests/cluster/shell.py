"""Runs commands. Each step writes the output of its commands to its own log file."""

import os
import select
import signal
import subprocess
import threading
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

TERMINATE_TIMEOUT_SECONDS = 10
"""Time for a command to exit after SIGTERM before it is killed."""
POLL_INTERVAL_SECONDS = 0.5
"""How often a step with a running command checks whether it must stop."""


class StepError(Exception):
    """A step failed. `hint` tells the user what to do."""

    def __init__(self, what: str, hint: str = "") -> None:
        super().__init__(what)
        self.hint = hint


class Cancelled(Exception):  # noqa: N818  not an error of this step
    """The command was stopped because another step failed, or because the user pressed Ctrl-C."""


Argument = str | Path


def _has_exited(process: "subprocess.Popen[bytes]") -> bool:
    """Whether the command exits within POLL_INTERVAL_SECONDS.

    On Linux the kernel reports the exit. `Popen.wait` with a timeout polls 20 times a second, which took a tenth of a
    core with six parallel commands.
    """
    try:
        descriptor = os.pidfd_open(process.pid)
    except (AttributeError, OSError):  # another system, or a kernel before 5.3
        try:
            process.wait(POLL_INTERVAL_SECONDS)
        except subprocess.TimeoutExpired:
            return False
        return True
    try:
        return bool(select.select([descriptor], [], [], POLL_INTERVAL_SECONDS)[0])
    finally:
        os.close(descriptor)


@dataclass
class Shell:
    """Runs commands with `env` in addition to the environment of this process, and appends their output to `log`.

    Commands inherit the file descriptor `lock`: if this process is killed, its children keep the lock until they exit.
    `cancel` stops the running commands, and all further commands raise Cancelled.
    """

    log: Path
    env: dict[str, str] = field(default_factory=dict)
    lock: int | None = None
    cancel: threading.Event = field(default_factory=threading.Event)

    def run(
        self,
        *argv: Argument,
        cwd: Path | None = None,
        env: Mapping[str, str] | None = None,
        cancellable: bool = True,
    ) -> None:
        """Run a command to its end. Raises StepError with the command if the exit code is not 0, and Cancelled.

        `cancellable=False`: the command would leave a broken state behind if it were interrupted.
        """
        with self.log.open("a") as log:
            log.write(f"$ {' '.join(map(str, argv))}\n")
            log.flush()
            if self.cancel.is_set():
                raise Cancelled
            process = subprocess.Popen(
                argv,
                cwd=cwd,
                env=self._env(env),
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                # Not a new session: Linux divides CPU time evenly between sessions, regardless of `nice`.
                process_group=0,
                pass_fds=[] if self.lock is None else [self.lock],
            )
            code = self._wait(process, cancellable=cancellable)
        if code:
            raise StepError(f"`{' '.join(map(str, argv[:4]))} ...` exited with code {code}")

    def succeeds(self, *argv: Argument, timeout: float = 20) -> bool:
        """Whether a command exits with code 0. False for a missing program and for a timeout."""
        return self.try_output(*argv, timeout=timeout) is not None

    def try_output(self, *argv: Argument, timeout: float = 20) -> str | None:
        """Return the command's standard output, stripped, or None if it does not succeed."""
        try:
            done = subprocess.run(
                argv, env=self._env(None), capture_output=True, text=True, check=False, timeout=timeout
            )
        except (OSError, subprocess.TimeoutExpired):
            return None
        return None if done.returncode else done.stdout.strip()

    def output(self, *argv: Argument) -> str:
        """Return the command's standard output, stripped. Raises StepError with its standard error."""
        done = subprocess.run(argv, env=self._env(None), capture_output=True, text=True, check=False)
        if done.returncode:
            raise StepError(f"`{' '.join(map(str, argv[:4]))} ...` failed: {done.stderr.strip()}")
        return done.stdout.strip()

    def spawn(self, argv: Sequence[Argument], log: Path) -> int:
        """Start a daemon that outlives this process. Returns its process ID."""
        with log.open("a") as out:
            return subprocess.Popen(
                argv,
                env=self._env(None),
                stdin=subprocess.DEVNULL,
                stdout=out,
                stderr=out,
                start_new_session=True,
            ).pid

    def append_to_log(self, text: str) -> None:
        """Append text to the log."""
        with self.log.open("a") as log:
            log.write(text)

    def _wait(self, process: "subprocess.Popen[bytes]", *, cancellable: bool) -> int:
        while True:
            if _has_exited(process):
                return process.wait()
            if not (cancellable and self.cancel.is_set()):
                continue
            # The command is the leader of its own process group, so this also stops its children.
            os.killpg(process.pid, signal.SIGTERM)
            try:
                process.wait(timeout=TERMINATE_TIMEOUT_SECONDS)
            except subprocess.TimeoutExpired:
                os.killpg(process.pid, signal.SIGKILL)
                process.wait()
            raise Cancelled

    def _env(self, extra: Mapping[str, str] | None) -> dict[str, str]:
        return {**os.environ, **self.env, **(extra or {})}
