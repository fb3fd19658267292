"""Runs commands, with all they print in the log of the step that started them."""

import os
import subprocess
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path


class Failed(Exception):  # noqa: N818  a step failed: that is what it says
    """A step cannot go on. `hint` says what the user can do about it."""

    def __init__(self, what: str, hint: str = "") -> None:
        super().__init__(what)
        self.hint = hint


Argument = str | Path


@dataclass
class Shell:
    """Starts commands with `env` on top of the caller's environment and appends their output to `log`.

    Commands keep the file `lock` open: when this process is killed, what it started holds the lock on.
    """

    log: Path
    env: dict[str, str] = field(default_factory=dict)
    lock: int | None = None

    def run(self, *argv: Argument, cwd: Path | None = None, env: Mapping[str, str] | None = None) -> None:
        """Run to the end. Raises Failed, naming the command, when it exits with anything but 0."""
        with self.log.open("a") as log:
            log.write(f"$ {' '.join(map(str, argv))}\n")
            log.flush()
            code = subprocess.run(
                argv,
                cwd=cwd,
                env=self._env(env),
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                check=False,
                pass_fds=[] if self.lock is None else [self.lock],
            ).returncode
        if code:
            raise Failed(f"`{' '.join(map(str, argv[:4]))} ...` ended with exit code {code}")

    def ok(self, *argv: Argument, timeout: float = 20) -> bool:
        """Whether a command ends with exit code 0; a missing program or a time-out means no."""
        return self.ask(*argv, timeout=timeout) is not None

    def ask(self, *argv: Argument, timeout: float = 20) -> str | None:
        """What a command prints, stripped; None where `ok` would say no."""
        try:
            done = subprocess.run(
                argv, env=self._env(None), capture_output=True, text=True, check=False, timeout=timeout
            )
        except (OSError, subprocess.TimeoutExpired):
            return None
        return None if done.returncode else done.stdout.strip()

    def out(self, *argv: Argument) -> str:
        """What a command prints, stripped. Raises Failed with its stderr when it fails."""
        done = subprocess.run(argv, env=self._env(None), capture_output=True, text=True, check=False)
        if done.returncode:
            raise Failed(f"`{' '.join(map(str, argv[:4]))} ...` failed: {done.stderr.strip()}")
        return done.stdout.strip()

    def spawn(self, argv: Sequence[Argument], log: Path) -> int:
        """Start a daemon that outlives this process; returns its process id."""
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
        """Add to the log what another program wrote elsewhere."""
        with self.log.open("a") as log:
            log.write(text)

    def _env(self, extra: Mapping[str, str] | None) -> dict[str, str]:
        return {**os.environ, **self.env, **(extra or {})}
