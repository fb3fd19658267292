"""End the process when its Lease has expired, even if the event loop is blocked.

The leader election stops the work when it cannot renew the Lease, but only while the event loop runs. A process that
was suspended, or whose event loop is blocked, would continue as a second leader. client-go ends the process in the same
case.
"""

import logging
import os
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

logger = logging.getLogger(__name__)

_MAX_WAIT_SECONDS = 5.0
"""Less than the lease duration, so that the guard notices in time that this process has become the leader."""

_LOG_TIMEOUT_SECONDS = 2.0
"""Limit for writing the log line about the exit. The event loop's thread may hold the lock of the log handler."""


@contextmanager
def guard_lease(
    expires_at: Callable[[], float],
    exit_process: Callable[[int], object] = os._exit,
    clock: Callable[[], float] = time.monotonic,
) -> Iterator[None]:
    """Inside the context, call `exit_process(1)` from a separate thread once `clock()` is past `expires_at()`.

    `expires_at` returns the time from which another process may lead, or infinity if this process does not lead. It is
    called from that thread.
    """
    stopped = threading.Event()

    def watch() -> None:
        while not stopped.wait(min(max(expires_at() - clock(), 0.0), _MAX_WAIT_SECONDS)):
            if clock() > expires_at():
                _log_and_exit(exit_process)
                return

    threading.Thread(target=watch, name="lease guard", daemon=True).start()
    try:
        yield
    finally:
        stopped.set()


def _log_and_exit(exit_process: Callable[[int], object]) -> None:
    timer = threading.Timer(_LOG_TIMEOUT_SECONDS, exit_process, (1,))
    timer.daemon = True
    timer.start()
    logger.warning("the lease has expired and another process may lead; exiting")
    timer.cancel()
    exit_process(1)
