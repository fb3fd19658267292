"""Processes that the tests start. They end with the tests."""

import ctypes
import os
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Mapping
from pathlib import Path

from tests.cluster import settings

START_SECONDS = 60.0
"""Time limit for a program to become ready. etcd and kube-apiserver together need 4 s on two busy cores."""

STOP_SECONDS = 20.0
"""Time limit for a program to exit after SIGTERM; then it gets SIGKILL."""

POLL_SECONDS = 0.05
LOG_LINES = 20
_PR_SET_PDEATHSIG = 1


class Missing(Exception):  # noqa: N818 - the message is for the person who runs the tests
    """A program is not installed. The message names the command that installs it."""


class Process:
    """A running program with its output in a log file."""

    def __init__(
        self,
        name: str,
        argv: list[str],
        log: Path,
        env: Mapping[str, str] | None = None,
        user: int | None = None,
    ) -> None:
        """Start `argv`. `user` is the numeric user and group ID to run as. Defaults to those of the tests."""
        self.name = name
        self.log = log
        with log.open("ab") as out:
            self._popen = subprocess.Popen(
                argv,
                stdout=out,
                stderr=out,
                stdin=subprocess.DEVNULL,
                env=None if env is None else {**env},
                user=user,
                group=user,
                extra_groups=None if user is None else [],
                # Ctrl-C in the terminal must reach the tests only, because they stop the programs in the right order.
                process_group=0,
                preexec_fn=_end_with_parent,  # noqa: PLW1509 - the child calls prctl and nothing else
            )

    @property
    def returncode(self) -> int | None:
        """Exit code, or None while the program runs."""
        return self._popen.poll()

    def wait(self, seconds: float) -> int:
        """Wait until the program exits and return its exit code. Raises AssertionError after `seconds`."""
        try:
            return self._popen.wait(seconds)
        except subprocess.TimeoutExpired:
            raise AssertionError(f"{self.name} did not end within {seconds:g} s\n{self.tail()}") from None

    def wait_until_ready(self, ready: Callable[[], bool], seconds: float = START_SECONDS) -> None:
        """Wait until `ready` returns true. Raises AssertionError on timeout or if the program exits, with the end of
        the log.
        """
        deadline = time.monotonic() + seconds
        while not ready():
            if self.returncode is not None:
                raise AssertionError(f"{self.name} ended with {self.returncode}\n{self.tail()}")
            if time.monotonic() > deadline:
                raise AssertionError(f"{self.name} is not ready after {seconds:g} s\n{self.tail()}")
            time.sleep(POLL_SECONDS)

    def kill(self) -> None:
        """Send SIGKILL and wait."""
        self._popen.kill()
        self._popen.wait()

    def send(self, number: signal.Signals) -> None:
        """Send a signal and do not wait."""
        self._popen.send_signal(number)

    def stop(self) -> None:
        """Send SIGTERM, then SIGKILL if the program does not exit. Does nothing if the program has exited."""
        if self.returncode is not None:
            return
        self._popen.terminate()
        try:
            self._popen.wait(STOP_SECONDS)
        except subprocess.TimeoutExpired:
            self.kill()

    def lines(self) -> list[str]:
        """All lines of the log."""
        return self.log.read_text(errors="replace").splitlines()

    def tail(self) -> str:
        """The last lines of the log."""
        return "\n".join(self.lines()[-LOG_LINES:])


def search_path() -> str:
    """PATH with the tools of the project first."""
    return f"{settings.load().bin}{os.pathsep}{os.environ.get('PATH', '')}"


def find(name: str, make_target: str = "apiserver") -> str:
    """Return the path of a program. Raises Missing with the make target that installs it."""
    path = shutil.which(name, path=search_path())
    if path is None:
        raise Missing(f"{name} is not installed. Run: make {make_target}")
    return path


def free_port() -> int:
    """Return a free TCP port of 127.0.0.1."""
    with socket.socket() as sock:
        sock.bind(("127.0.0.1", 0))
        port: int = sock.getsockname()[1]
        return port


def accepts_connections(port: int) -> bool:
    """Return whether a program listens on this port of 127.0.0.1."""
    with socket.socket() as sock:
        return sock.connect_ex(("127.0.0.1", port)) == 0


def _end_with_parent() -> None:
    # The kernel kills the program if the test process ends without stopping it, such as after SIGKILL.
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
