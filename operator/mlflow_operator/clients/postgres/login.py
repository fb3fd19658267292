"""Logins that do not block the event loop: a Postgres chooses how much its clients compute.

With SCRAM, the server sends the number of iterations, up to 2,147,483,647. libpq computes them before it
returns, at the maximum for more than half an hour, and nothing can stop it.
"""

import contextlib
import os
import socket
import threading
import time
from collections.abc import Generator
from dataclasses import dataclass
from typing import Generic, TypeVar, cast
from weakref import WeakValueDictionary

import psycopg
from psycopg.waiting import Ready, Wait

R = TypeVar("R")
Steps = Generator[tuple[int, Wait], Ready | int, R]
"""A login of psycopg: it yields the descriptor that it waits for, and returns the connection."""

_LOWEST_PRIORITY = 19
_USUAL_SECONDS = 0.2
"""A step with the default of 4096 iterations takes some milliseconds."""


class LoginBlocked(psycopg.OperationalError):
    """Another login of the namespace still computes."""


@dataclass(frozen=True)
class _Computation:
    """A running step of a login to the Postgres at `address`. `started_at` is in seconds of the monotonic clock."""

    address: str
    started_at: float


class _Turn:
    """The right to compute, which one login of a namespace has at a time."""

    def __init__(self) -> None:
        self.lock = threading.Lock()
        self.computation: _Computation | None = None

    def slow_address(self) -> str | None:
        """The Postgres of the step that runs, if it takes longer than usual."""
        computation = self.computation
        is_slow = computation and time.monotonic() - computation.started_at > _USUAL_SECONDS
        return computation.address if computation and is_slow else None


class Logins:
    """Runs the steps of logins in threads. One login of each namespace computes at a time."""

    def __init__(self) -> None:
        self._turns: WeakValueDictionary[str, _Turn] = WeakValueDictionary()

    def begin(self, namespace: str, address: str, timeout_seconds: float) -> "Login":
        """Return a login for a server in `namespace` at the Postgres at `address`.

        A step waits up to `timeout_seconds` for other logins of the namespace.
        """
        turn = self._turns.get(namespace)
        if turn is None:
            turn = self._turns[namespace] = _Turn()
        return Login(turn, address, timeout_seconds)


class Login:
    """One login, or one attempt after the other."""

    def __init__(self, turn: _Turn, address: str, timeout_seconds: float) -> None:
        self._turn = turn
        self._address = address
        self._timeout_seconds = timeout_seconds
        self._is_running = self._is_given_up = False

    @property
    def is_computing(self) -> bool:
        """Whether a step takes too long, of this login or of an earlier one to the same Postgres that it waits for.

        Also if the caller has stopped waiting.
        """
        return self._is_running and self._turn.slow_address() == self._address

    @property
    def is_blocked(self) -> bool:
        """Whether this login waits, or has waited for too long, for one to another Postgres."""
        slow_address = self._turn.slow_address()
        return self._is_given_up or (self._is_running and slow_address not in {None, self._address})

    def in_threads(self, steps: Steps[R]) -> Steps[R]:
        """Return a generator that psycopg can use like `steps`, but which runs each step in a thread.

        While a step runs, the generator waits for a socket that is closed at its end. If psycopg stops waiting, the
        thread continues and the connection is closed after it.
        Raises LoginBlocked if another login of the namespace computes for too long.
        """
        ready: Ready | int | None = None
        while True:
            step = _Step(steps, ready)
            thread = threading.Thread(target=self._run, args=(step,), name="postgres-login", daemon=True)
            thread.start()
            with step.ended:
                while not step.is_finished:
                    yield step.ended.fileno(), Wait.R
                    if not step.is_finished:
                        _lower_priority(thread)
            if step.error:
                raise step.error
            if step.wanted is None:
                return cast("R", step.result)
            ready = 0
            while not ready:
                # psycopg also resumes the generator ten times a second when nothing is ready, to check its timeout.
                ready = yield step.wanted

    def _run(self, step: "_Step[R]") -> None:
        with step:
            self._is_running, self._is_given_up = True, False
            if not self._turn.lock.acquire(timeout=self._timeout_seconds):
                self._is_given_up = True
                step.error = LoginBlocked("another login of the namespace is still computing")
                return
            self._turn.computation = _Computation(self._address, time.monotonic())
            try:
                step.run()
            finally:
                self._turn.computation = None
                self._turn.lock.release()
                self._is_running = False


class _Step(Generic[R]):
    """One step: `wanted` is what the login waits for next; if it is None, `result` is the connection.

    A context manager: at the end of the context, the step is finished.
    """

    def __init__(self, steps: Steps[R], ready: Ready | int | None) -> None:
        self._steps = steps
        self._ready = ready
        self.ended, self._end = socket.socketpair()
        self.is_finished = False
        self.error: Exception | None = None
        self.wanted: tuple[int, Wait] | None = None
        self.result: R | None = None

    def __enter__(self) -> None:
        pass

    def __exit__(self, *_: object) -> None:
        self.is_finished = True
        self._end.close()

    def run(self) -> None:
        try:
            # A generator's first step gets None.
            self.wanted = self._steps.send(cast("Ready", self._ready))
        except StopIteration as end:
            self.result = end.value
        except Exception as error:
            self.error = error


def _lower_priority(thread: threading.Thread) -> None:
    """Leave the CPU to the event loop. Linux has a priority for each thread."""
    with contextlib.suppress(OSError):
        os.setpriority(os.PRIO_PROCESS, cast("int", thread.native_id), _LOWEST_PRIORITY)
