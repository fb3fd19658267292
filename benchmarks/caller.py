"""A client that sends requests all the time, and the longest time without an answer."""

import itertools
import threading
import time
from types import TracebackType

import requests

from benchmarks.waits import ASKED, Waits

PACE = 0.05
"""Seconds between two requests: the precision of the measured gap."""

REQUEST, LONG = 2.0, 300.0


class Caller:
    """Sends requests to a server, each on a new connection, for as long as the context lasts."""

    def __init__(self, waits: Waits, url: str) -> None:
        self._waits, self._url = waits, url + ASKED
        self._answers: list[float] = []
        self._ends = threading.Event()
        self._thread = threading.Thread(target=self._ask, daemon=True)

    def __enter__(self) -> "Caller":
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._ends.set()
        self._thread.join()

    def _ask(self) -> None:
        while not self._ends.wait(PACE):
            try:
                if requests.get(self._url, timeout=REQUEST).ok:
                    self._answers.append(time.monotonic())
            except requests.RequestException:
                continue

    def wait_answered(self) -> None:
        """Waits for the answer to a request that is sent after this call."""
        asked = time.monotonic() + REQUEST
        self._waits.until(
            "the server answers", lambda: bool(self._answers) and self._answers[-1] > asked, LONG
        )

    @property
    def longest(self) -> float:
        """Seconds of the longest time between two consecutive answers."""
        return gap(self._answers)


def gap(moments: list[float]) -> float:
    """The longest time between two consecutive moments. Raises ValueError if there are fewer than two."""
    return max(later - earlier for earlier, later in itertools.pairwise(moments))
