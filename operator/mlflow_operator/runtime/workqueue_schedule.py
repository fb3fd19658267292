"""When which key is due: the queue's rules, without tasks and without a clock.

- A key is due once, however often it is asked for, and at the earliest time anybody asked for.
- A key that is taken is nobody else's until it is done; asked for meanwhile, it is due once more then.
- After a failure it waits, ever longer; asked for meanwhile, it still waits the first pause, so that a
  failure that causes events of its own makes no hot loop.
- A key that is forgotten comes back only if it is asked for again.

Times are seconds of one monotonic clock, which the caller reads.
"""

import heapq
import itertools
import random
from collections.abc import Hashable
from typing import Generic, TypeVar

K = TypeVar("K", bound=Hashable)

RESYNC_SECONDS = 60.0
"""Seconds until a key that is fine is due again, for all that no event tells: a Secret of the user's that
changed, a database that went away."""

INITIAL_BACKOFF_SECONDS = 1.0
MAX_BACKOFF_SECONDS = 60.0
"""Seconds to wait after a failure: doubled each time, never longer than a resync."""

JITTER = 0.1
"""Part of a pause by which it varies either way, so that what failed together does not come back together."""


class Schedule(Generic[K]):
    """The keys and when they are due. `rng` gives the jitter."""

    def __init__(self, rng: random.Random | None = None, resync: float = RESYNC_SECONDS) -> None:
        # Jitter needs no secrecy.
        self._rng = rng or random.Random()  # noqa: S311
        self._resync = resync
        self._due: dict[K, float] = {}
        # May hold times that are no longer so; `_due` is the truth.
        self._heap: list[tuple[float, int, K]] = []
        self._order = itertools.count()
        self._taken: dict[K, float | None] = {}
        self._forgotten: set[K] = set()
        self._failures: dict[K, int] = {}
        self._not_before: dict[K, float] = {}

    def ask(self, key: K, at: float) -> None:
        """`key` is due at `at`, if it is not due earlier."""
        if key in self._taken:
            before = self._taken[key]
            self._taken[key] = at if before is None else min(before, at)
            return
        at = max(at, self._not_before.get(key, at))
        if key not in self._due or at < self._due[key]:
            self._due[key] = at
            heapq.heappush(self._heap, (at, next(self._order), key))

    def take(self, now: float) -> K | None:
        """The key that is due the longest, from now on the caller's; None if none is due."""
        at = self.next_due()
        if at is None or at > now:
            return None
        _, _, key = heapq.heappop(self._heap)
        del self._due[key]
        self._not_before.pop(key, None)
        self._taken[key] = None
        return key

    def next_due(self) -> float | None:
        """When the next key is due; in the past if one is due now, None if none ever is."""
        while self._heap and self._due.get(self._heap[0][2]) != self._heap[0][0]:
            heapq.heappop(self._heap)
        return self._heap[0][0] if self._heap else None

    def done(self, key: K, now: float, again: float | None = None) -> None:
        """What was taken is fine. Due in `again` seconds, when anybody asked meanwhile, or at the resync."""
        self._failures.pop(key, None)
        wait = self._varied(self._resync)
        self._put_back(key, now + (wait if again is None else min(wait, again)))

    def failed(self, key: K, now: float, at_least: float = 0.0) -> float:
        """What was taken went wrong. Returns for how many seconds it waits: `at_least` so long."""
        count = self._failures.get(key, 0)
        pause = max(
            self._varied(min(INITIAL_BACKOFF_SECONDS * 2 ** min(count, 16), MAX_BACKOFF_SECONDS)), at_least
        )
        if key not in self._forgotten:
            self._failures[key] = count + 1
            self._not_before[key] = now + max(INITIAL_BACKOFF_SECONDS, at_least)
        self._put_back(key, now + pause)
        return pause

    def forget(self, key: K) -> None:
        """`key` is gone. Whoever has it may finish; then it is due only if it was asked for meanwhile.

        For it may be back already: what was asked for while it was being looked at is never dropped.
        """
        for known in (self._due, self._failures, self._not_before):
            known.pop(key, None)
        if key in self._taken:
            self._forgotten.add(key)

    def depth(self, now: float) -> int:
        """How many keys are due and not taken."""
        return sum(at <= now for at in self._due.values())

    def _put_back(self, key: K, at: float) -> None:
        asked = self._taken.pop(key)
        if key in self._forgotten:
            self._forgotten.discard(key)
            if asked is not None:
                self.ask(key, asked)
            return
        self.ask(key, at if asked is None else min(at, asked))

    def _varied(self, seconds: float) -> float:
        return seconds * self._rng.uniform(1 - JITTER, 1 + JITTER)
