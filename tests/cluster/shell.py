"""Runs commands. The output of a step's commands goes to the step's own log file."""

import os
import select
import signal
import subprocess
import threading
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

TERMINATE_SECONDS = 10
"""How long a command has to exit after SIGTERM before it is killed."""
POLL_SECONDS = 0.5
"""How often a running command's step looks whether it must stop."""


class Failed(Exception):  # noqa: N818  a step failed: that is what it says
    """A step cannot continue. `hint` tells the user what to do."""

    def __init__(self, what: str, hint: str = "") -> None:
        super().__init__(what)
        self.hint = hint


class Cancelled(Exception):  # noqa: N818  not an error: another step failed
    """The command was stopped because another step failed, or because the user pressed Ctrl-C."""


Argument = str | Path


def _exited(process: "subprocess.Popen[bytes]") -> bool:
    """Whether the command exits within POLL_SECONDS.

    On Linux the kernel tells. `Popen.wait` with a timeout looks 20 times a second, which took a tenth of a processor
    for six commands at a time.
    """
    try:
        descriptor = os.pidfd_open(process.pid)
    except (AttributeError, OSError):  # another system, or a kernel before 5.3
        try:
            process.wait(POLL_SECONDS)
        except subprocess.TimeoutExpired:
            return False
        return True
    try:
        return bool(select.select([descriptor], [], [], POLL_SECONDS)[0])
    finally:
        os.close(descriptor)


@dataclass
class Shell:
    """Runs commands with `env` on top of the caller's environment and appends their output to `log`.

    Commands inherit the file descriptor `lock`: if this process is killed, its children keep the lock until they exit.
    `cancel` stops running commands, and makes every further one fail with Cancelled.
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
        """Run to the end. Raises Failed, naming the command, if the exit code is not 0, and Cancelled.

        A command that leaves a broken state behind when it is interrupted is not `cancellable`.
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
                # Not a session of its own: Linux shares processors evenly between sessions, whatever `nice` says.
                process_group=0,
                pass_fds=[] if self.lock is None else [self.lock],
            )
            code = self._wait(process, cancellable=cancellable)
        if code:
            raise Failed(f"`{' '.join(map(str, argv[:4]))} ...` exited with code {code}")

    def ok(self, *argv: Argument, timeout: float = 20) -> bool:
        """Whether a command exits with code 0. A missing program and a timeout count as no."""
        return self.ask(*argv, timeout=timeout) is not None

    def ask(self, *argv: Argument, timeout: float = 20) -> str | None:
        """The command's standard output, stripped; None where `ok` is False."""
        try:
            done = subprocess.run(
                argv, env=self._env(None), capture_output=True, text=True, check=False, timeout=timeout
            )
        except (OSError, subprocess.TimeoutExpired):
            return None
        return None if done.returncode else done.stdout.strip()

    def out(self, *argv: Argument) -> str:
        """The command's standard output, stripped. Raises Failed with its standard error."""
        done = subprocess.run(argv, env=self._env(None), capture_output=True, text=True, check=False)
        if done.returncode:
            raise Failed(f"`{' '.join(map(str, argv[:4]))} ...` failed: {done.stderr.strip()}")
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

    def note(self, text: str) -> None:
        """Append the output of another program to the log."""
        with self.log.open("a") as log:
            log.write(text)

    def _wait(self, process: "subprocess.Popen[bytes]", *, cancellable: bool) -> int:
        while True:
            if _exited(process):
                return process.wait()
            if not (cancellable and self.cancel.is_set()):
                continue
            # The command leads a process group of its own, so its children stop with it.
            os.killpg(process.pid, signal.SIGTERM)
            try:
                process.wait(timeout=TERMINATE_SECONDS)
            except subprocess.TimeoutExpired:
                os.killpg(process.pid, signal.SIGKILL)
                process.wait()
            raise Cancelled

    def _env(self, extra: Mapping[str, str] | None) -> dict[str, str]:
        return {**os.environ, **self.env, **(extra or {})}
