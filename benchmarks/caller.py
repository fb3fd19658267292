"""Somebody who asks a server all the time, and how long nobody answered."""

import itertools
import threading
import time
from types import TracebackType

import requests

from benchmarks.lab import until

PACE = 0.05
"""Seconds between two requests: as exact as a gap is told."""

REQUEST, LONG = 2.0, 300.0
ASKED = "/api/2.0/mlflow/experiments/search?max_results=1"


class Caller:
    """Asks a server again and again, each time by a connection of its own, for as long as the context lasts."""

    def __init__(self, url: str) -> None:
        self._url = url + ASKED
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

    def is_answered_again(self) -> None:
        """Waits for an answer to a request that begins after this."""
        asked = time.monotonic() + REQUEST
        until("the server answers", lambda: bool(self._answers) and self._answers[-1] > asked, LONG)

    @property
    def longest(self) -> float:
        """Seconds between the two answers that lie farthest apart."""
        return gap(self._answers)


def gap(moments: list[float]) -> float:
    """The longest time between one and the next. ValueError: there are fewer than two."""
    return max(later - earlier for earlier, later in itertools.pairwise(moments))
