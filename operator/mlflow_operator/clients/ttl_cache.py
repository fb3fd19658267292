"""Cache for objects that are expensive to create and use memory only as long as they are in use."""

import threading
import time
from collections import OrderedDict
from collections.abc import Callable, Hashable
from typing import Generic, TypeVar

K = TypeVar("K", bound=Hashable)
V = TypeVar("V")


class TTLCache(Generic[K, V]):
    """Thread-safe cache of at most `max_entries` objects, each kept for `ttl_seconds` after its last use.

    Expired entries are removed on the next call. `clock` is monotonic, in seconds.
    """

    def __init__(
        self, max_entries: int, ttl_seconds: float, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self._max_entries, self._ttl_seconds, self._clock = max_entries, ttl_seconds, clock
        self._lock = threading.Lock()
        # Ordered by last use, oldest first.
        self._entries: OrderedDict[K, tuple[V, float]] = OrderedDict()

    def get_or_create(self, key: K, create: Callable[[], V]) -> V:
        """Return the cached object, or cache and return the result of `create`, which runs under the lock."""
        with self._lock:
            now = self._clock()
            value = self._entries.pop(key)[0] if key in self._entries else create()
            self._entries[key] = (value, now)
            while len(self._entries) > self._max_entries or now - self._oldest_access() > self._ttl_seconds:
                self._entries.popitem(last=False)
            return value

    def _oldest_access(self) -> float:
        return next(iter(self._entries.values()))[1]
