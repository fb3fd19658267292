"""Rules of the work queue: when each key is due. Contains no tasks and reads no clock.

- A key that is added several times is due once, at the earliest of the requested times.
- A taken key cannot be taken again until it is done. If it is added meanwhile, it is due once more after that.
- After a failure, a key is due after an exponential backoff. If it is added meanwhile, it is due earlier, but not
  before the initial backoff, so that a failure that causes watch events of its own does not create a hot loop.
- A forgotten key is due only if it is added again.

Times are seconds of one monotonic clock, which the caller reads.
"""

import heapq
import itertools
import random
from collections.abc import Hashable
from typing import Generic, TypeVar

K = TypeVar("K", bound=Hashable)

RESYNC_SECONDS = 60.0
"""Seconds until a key is due again after a success, for changes without a watch event: a user's Secret that has
changed, a database that has become unavailable."""

INITIAL_BACKOFF_SECONDS = 1.0
MAX_BACKOFF_SECONDS = 60.0
"""Backoff after a failure: doubled with each failure up to the maximum, which is not longer than a resync."""

JITTER = 0.1
"""Fraction by which delays vary in both directions, so that keys that failed together are not retried together."""


class Schedule(Generic[K]):
    """The keys and their due times. `rng` generates the jitter."""

    def __init__(self, rng: random.Random | None = None, resync: float = RESYNC_SECONDS) -> None:
        # The jitter is not security-relevant.
        self._rng = rng or random.Random()  # noqa: S311
        self._resync = resync
        self._due: dict[K, float] = {}
        # May contain outdated entries; `_due` is authoritative.
        self._heap: list[tuple[float, int, K]] = []
        self._order = itertools.count()
        self._processing: dict[K, float | None] = {}
        self._forgotten: set[K] = set()
        self._failures: dict[K, int] = {}
        self._not_before: dict[K, float] = {}

    def add(self, key: K, at: float) -> None:
        """Make `key` due at the time `at`, unless it is due earlier."""
        if key in self._processing:
            requested = self._processing[key]
            self._processing[key] = at if requested is None else min(requested, at)
            return
        at = max(at, self._not_before.get(key, at))
        if key not in self._due or at < self._due[key]:
            self._due[key] = at
            heapq.heappush(self._heap, (at, next(self._order), key))

    def take(self, now: float) -> K | None:
        """Take the key that has been due for the longest time; None if no key is due. Call `done` or `failed` after."""
        at = self.next_due()
        if at is None or at > now:
            return None
        _, _, key = heapq.heappop(self._heap)
        del self._due[key]
        self._not_before.pop(key, None)
        self._processing[key] = None
        return key

    def next_due(self) -> float | None:
        """Due time of the next key. In the past if a key is due now, None if there is no key."""
        while self._heap and self._due.get(self._heap[0][2]) != self._heap[0][0]:
            heapq.heappop(self._heap)
        return self._heap[0][0] if self._heap else None

    def done(self, key: K, now: float, requeue_after: float | None = None) -> None:
        """Requeue a taken key after a success.

        It is due after `requeue_after` seconds, at the time requested meanwhile, or at the resync: whichever is first.
        """
        self._failures.pop(key, None)
        delay = self._with_jitter(self._resync)
        self._requeue(key, now + (delay if requeue_after is None else min(delay, requeue_after)))

    def failed(self, key: K, now: float, min_delay: float = 0.0) -> float:
        """Requeue a taken key after a failure. Returns the delay in seconds, which is at least `min_delay`."""
        count = self._failures.get(key, 0)
        delay = max(
            self._with_jitter(min(INITIAL_BACKOFF_SECONDS * 2 ** min(count, 16), MAX_BACKOFF_SECONDS)),
            min_delay,
        )
        if key not in self._forgotten:
            self._failures[key] = count + 1
            self._not_before[key] = now + max(INITIAL_BACKOFF_SECONDS, min_delay)
        self._requeue(key, now + delay)
        return delay

    def forget(self, key: K) -> None:
        """Remove `key`, whose object was deleted. If it is taken, it is due after that only if it was added meanwhile.

        A key added while it is taken is never dropped, because the object may have been recreated.
        """
        for entries in (self._due, self._failures, self._not_before):
            entries.pop(key, None)
        if key in self._processing:
            self._forgotten.add(key)

    def depth(self, now: float) -> int:
        """Number of keys that are due and not taken."""
        return sum(at <= now for at in self._due.values())

    def _requeue(self, key: K, at: float) -> None:
        requested = self._processing.pop(key)
        if key in self._forgotten:
            self._forgotten.discard(key)
            if requested is not None:
                self.add(key, requested)
            return
        self.add(key, at if requested is None else min(at, requested))

    def _with_jitter(self, seconds: float) -> float:
        return seconds * self._rng.uniform(1 - JITTER, 1 + JITTER)
