"""Waiting for conditions."""

import time
from collections.abc import Callable
from typing import TypeVar

T = TypeVar("T")

TIMEOUT_SECONDS = 60.0
"""Default timeout of each wait. The operator reacts within a second on an idle machine."""

POLL_INTERVAL_SECONDS = 0.1


def eventually(
    what: str,
    check: Callable[[], T | None],
    seconds: float = TIMEOUT_SECONDS,
    interval_seconds: float = POLL_INTERVAL_SECONDS,
) -> T:
    """Poll `check` and return its first true result. Raises AssertionError with `what` after the timeout."""
    deadline = time.monotonic() + seconds
    while True:
        if result := check():
            return result
        assert time.monotonic() < deadline, f"not within {seconds:g} s: {what}"
        time.sleep(interval_seconds)
