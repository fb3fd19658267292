"""A client that sends requests continuously, and measures the longest time without an answer."""

import itertools
import threading
import time
from types import TracebackType

import requests

from benchmarks.waits import SEARCH_PATH, Waits

INTERVAL_SECONDS = 0.05
"""Interval between two requests, which is the precision of the measured gap."""

REQUEST_TIMEOUT_SECONDS, ANSWER_TIMEOUT_SECONDS = 2.0, 300.0


class RequestLoop:
    """Sends requests to a server, each on a new connection, for the duration of the context."""

    def __init__(self, waits: Waits, url: str) -> None:
        self._waits, self._url = waits, url + SEARCH_PATH
        self._answer_times: list[float] = []
        self._stopped = threading.Event()
        self._thread = threading.Thread(target=self._run, daemon=True)

    def __enter__(self) -> "RequestLoop":
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._stopped.set()
        self._thread.join()

    def _run(self) -> None:
        while not self._stopped.wait(INTERVAL_SECONDS):
            try:
                if requests.get(self._url, timeout=REQUEST_TIMEOUT_SECONDS).ok:
                    self._answer_times.append(time.monotonic())
            except requests.RequestException:
                continue

    def wait_answered(self) -> None:
        """Wait for the answer to a request that is sent after this call."""
        sent_after = time.monotonic() + REQUEST_TIMEOUT_SECONDS
        self._waits.wait_for(
            "the server answers",
            lambda: bool(self._answer_times) and self._answer_times[-1] > sent_after,
            ANSWER_TIMEOUT_SECONDS,
        )

    @property
    def longest_gap_seconds(self) -> float:
        """Longest time between two consecutive answers."""
        return longest_gap(self._answer_times)


def longest_gap(times: list[float]) -> float:
    """Return the longest difference between two consecutive times. Raises ValueError for fewer than two times."""
    return max(later - earlier for earlier, later in itertools.pairwise(times))
