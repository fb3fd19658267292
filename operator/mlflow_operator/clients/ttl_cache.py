"""What is costly to make and worth its memory only while somebody asks for it."""

import threading
import time
from collections import OrderedDict
from collections.abc import Callable, Hashable
from typing import Generic, TypeVar

K = TypeVar("K", bound=Hashable)
V = TypeVar("V")


class TTLCache(Generic[K, V]):
    """At most `most` of them, none longer than `seconds` after it was last asked for; of any threads.

    What is over goes when another one is asked for. `clock` is monotonic, in seconds.
    """

    def __init__(self, most: int, seconds: float, clock: Callable[[], float] = time.monotonic) -> None:
        self._most, self._seconds, self._clock = most, seconds, clock
        self._lock = threading.Lock()
        # in the order in which they were last asked for
        self._known: OrderedDict[K, tuple[V, float]] = OrderedDict()

    def get(self, key: K, make: Callable[[], V]) -> V:
        """The one that is kept, or else what `make` makes now, one at a time; what it raises is raised."""
        with self._lock:
            now = self._clock()
            value = self._known.pop(key)[0] if key in self._known else make()
            self._known[key] = (value, now)
            while len(self._known) > self._most or now - self._oldest() > self._seconds:
                self._known.popitem(last=False)
            return value

    def _oldest(self) -> float:
        return next(iter(self._known.values()))[1]
