"""Rules of the work queue: when each key is due. Contains no tasks and reads no clock.

- A key that is added several times is due once, at the earliest of the requested times.
- A taken key cannot be taken again until it is done. If it is added meanwhile, it is due once more after that.
- After a failure, a key is due after an exponential backoff. If it is added meanwhile, it is due earlier, but not
  before the initial backoff, so that a failure that causes watch events of its own does not create a hot loop.
- A forgotten key is due only if it is added again.
- Keys belong to groups. Among the due keys, one of the group with the fewest taken keys is taken next. A group may have
  at most as many taken keys as remain for all others, so that a group of any size leaves some for a further group.

Times are seconds of one monotonic clock, which the caller reads.
"""

import heapq
import itertools
import random
import sys
from collections import deque
from collections.abc import Callable, Hashable
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
    """The keys and their due times. `rng` generates the jitter.

    `group_of` returns the group of a key; by default each key has its own. The caller takes at most `max_taken` keys at
    the same time.
    """

    def __init__(
        self,
        rng: random.Random | None = None,
        resync: float = RESYNC_SECONDS,
        group_of: Callable[[K], Hashable] | None = None,
        max_taken: int = sys.maxsize,
    ) -> None:
        # The jitter is not security-relevant.
        self._rng = rng or random.Random()  # noqa: S311
        self._resync = resync
        self._due: dict[K, float] = {}
        # May contain outdated entries, like `_ready` and `_idle`; `_due` is authoritative.
        self._heap: list[tuple[float, int, K]] = []
        self._group_of: Callable[[K], Hashable] = group_of or (lambda key: key)
        self._max_taken = max_taken
        # The keys of each group that were due at the last `take`, in the order of their due times.
        self._ready: dict[Hashable, deque[tuple[float, K]]] = {}
        # The groups without a taken key that have ready keys, with the due time of the first.
        self._idle: list[tuple[float, int, Hashable]] = []
        self._taken: dict[Hashable, int] = {}
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
        """Take a due key; None if no key may be taken now. Call `done` or `failed` after.

        Of the same group, and of groups without a taken key, it is the one that has been due for the longest time.
        """
        self._move_due_keys(now)
        group = self._next_group()
        if group is None:
            return None
        _, key = self._ready[group].popleft()
        del self._due[key]
        self._not_before.pop(key, None)
        self._processing[key] = None
        self._taken[group] = self._taken.get(group, 0) + 1
        self._first_ready(group)
        return key

    def next_due(self) -> float | None:
        """Time from which `take` returns a key if none is returned until then; None if there is no such time.

        In the past if a key can be taken now.
        """
        group = self._next_group()
        ready_at = None if group is None else self._first_ready(group)
        while self._heap and self._due.get(self._heap[0][2]) != self._heap[0][0]:
            heapq.heappop(self._heap)
        times = (ready_at, self._heap[0][0] if self._heap else None)
        return min((at for at in times if at is not None), default=None)

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

    def _move_due_keys(self, now: float) -> None:
        while self._heap and self._heap[0][0] <= now:
            at, _, key = heapq.heappop(self._heap)
            if self._due.get(key) == at:
                group = self._group_of(key)
                self._ready.setdefault(group, deque()).append((at, key))
                if len(self._ready[group]) == 1:
                    self._offer(group)

    def _next_group(self) -> Hashable | None:
        """The group whose key is taken next; None if no group may take one."""
        while self._idle:
            group = self._idle[0][2]
            if group not in self._taken and self._first_ready(group) is not None:
                return group
            heapq.heappop(self._idle)
        free = self._max_taken - len(self._processing)
        candidates = [
            (count, at, group)
            for group, count in self._taken.items()
            if count < free and (at := self._first_ready(group)) is not None
        ]
        return min(candidates, key=lambda candidate: candidate[:2])[2] if candidates else None

    def _first_ready(self, group: Hashable) -> float | None:
        """Due time of the first ready key of a group; None if it has none. Removes outdated entries."""
        ready = self._ready.get(group)
        while ready and self._due.get(ready[0][1]) != ready[0][0]:
            ready.popleft()
        if ready:
            return ready[0][0]
        self._ready.pop(group, None)
        return None

    def _offer(self, group: Hashable) -> None:
        at = self._first_ready(group)
        if at is not None and group not in self._taken:
            heapq.heappush(self._idle, (at, next(self._order), group))

    def _requeue(self, key: K, at: float) -> None:
        requested = self._processing.pop(key)
        group = self._group_of(key)
        self._taken[group] -= 1
        if not self._taken[group]:
            del self._taken[group]
            self._offer(group)
        if key in self._forgotten:
            self._forgotten.discard(key)
            if requested is not None:
                self.add(key, requested)
            return
        self.add(key, at if requested is None else min(at, requested))

    def _with_jitter(self, seconds: float) -> float:
        return seconds * self._rng.uniform(1 - JITTER, 1 + JITTER)
