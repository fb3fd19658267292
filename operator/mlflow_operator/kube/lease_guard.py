"""Ends the process when its Lease has expired, even if the event loop no longer runs.

The election stops the work itself as soon as it could not renew the Lease. It can only do so from the event loop. A
process that was suspended, or whose event loop waits for something that never comes, would go on as a second leader.
client-go ends the process in the same case.
"""

import logging
import os
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

logger = logging.getLogger(__name__)

_LONGEST_WAIT = 5.0
"""Seconds. Less than the lease duration, so that the guard notices in time that this process has become the leader."""

_LOG_SECONDS = 2.0
"""Limit for the log line that says why the process ends. The event loop's thread may hold the lock of the log."""


@contextmanager
def guarding(
    expires: Callable[[], float],
    end: Callable[[int], object] = os._exit,
    clock: Callable[[], float] = time.monotonic,
) -> Iterator[None]:
    """While inside, call `end(1)` from a thread of its own once `clock()` is past `expires()`.

    `expires` returns the time from which another process may lead, or infinity if this process does not lead. It is
    called from the thread.
    """
    stopped = threading.Event()

    def watch() -> None:
        while not stopped.wait(min(max(expires() - clock(), 0.0), _LONGEST_WAIT)):
            if clock() > expires():
                _end(end)
                return

    threading.Thread(target=watch, name="lease guard", daemon=True).start()
    try:
        yield
    finally:
        stopped.set()


def _end(end: Callable[[int], object]) -> None:
    timer = threading.Timer(_LOG_SECONDS, end, (1,))
    timer.daemon = True
    timer.start()
    logger.warning("the lease has expired and another process may lead; this process ends now")
    timer.cancel()
    end(1)
