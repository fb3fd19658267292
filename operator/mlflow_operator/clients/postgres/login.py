"""Logins that do not block the event loop: a Postgres chooses how much its clients compute.

With SCRAM, the server sends the number of iterations, up to 2,147,483,647. libpq computes them before it
returns, at the maximum for more than half an hour, and nothing can stop it.
"""

import contextlib
import os
import socket
import threading
from collections.abc import Generator
from typing import Generic, TypeVar, cast
from weakref import WeakValueDictionary

import psycopg
from psycopg.waiting import Ready, Wait

R = TypeVar("R")
Steps = Generator[tuple[int, Wait], Ready | int, R]
"""A login of psycopg: it yields the descriptor that it waits for, and returns the connection."""

_LOWEST_PRIORITY = 19


class LoginBlocked(psycopg.OperationalError):
    """Another login of the namespace still computes."""


class Logins:
    """Runs the steps of logins in threads. One login of each namespace computes at a time."""

    def __init__(self) -> None:
        self._locks: WeakValueDictionary[str, threading.Lock] = WeakValueDictionary()

    def begin(self, namespace: str, timeout_seconds: float) -> "Login":
        """Return a login for a server in `namespace`. A step waits up to `timeout_seconds` for other logins there."""
        lock = self._locks.get(namespace)
        if lock is None:
            lock = self._locks[namespace] = threading.Lock()
        return Login(lock, timeout_seconds)


class Login:
    """One login, or one attempt after the other."""

    def __init__(self, lock: threading.Lock, timeout_seconds: float) -> None:
        self._lock = lock
        self._timeout_seconds = timeout_seconds
        self._is_computing = threading.Event()

    @property
    def is_computing(self) -> bool:
        """Whether a step is running, also if the caller has stopped waiting for it."""
        return self._is_computing.is_set()

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
            ready = yield step.wanted

    def _run(self, step: "_Step[R]") -> None:
        with step:
            if not self._lock.acquire(timeout=self._timeout_seconds):
                step.error = LoginBlocked("another login of the namespace is still computing")
                return
            self._is_computing.set()
            try:
                step.run()
            finally:
                self._is_computing.clear()
                self._lock.release()


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
