"""Exponential backoff for updates that another client reverts again and again.

If an update does not last, another controller changes the same fields, or the API server itself rewrites them. Without
backoff the operator would write once per second forever. After a few updates it reports which client reverts them, and
retries with a growing delay.
"""

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

MAX_IMMEDIATE_UPDATES = 10
"""Updates of the same fields of the same object before they count as a conflict. A person who edits the object by hand
gives up earlier."""

WINDOW_SECONDS = 600.0
"""Updates within this time count toward one conflict."""

INITIAL_BACKOFF_SECONDS = 60.0
MAX_BACKOFF_SECONDS = 1800.0
"""Limits of the delay between updates of a conflict; it doubles after each reverted update."""

ConflictKey = tuple[str, int, tuple[str, ...]]


@dataclass
class _Conflict:
    update_times: list[float] = field(default_factory=list)
    backoff_seconds: float = 0.0
    retry_at: float = 0.0
    retried: bool = False


class ApplyBackoff:
    """Backoff per object and fields, kept in memory. `clock` is monotonic, in seconds."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._conflicts: dict[ConflictKey, _Conflict] = {}

    def request_update(self, uid: str, desired_hash: int, paths: Sequence[str]) -> float:
        """Record that an update is due and return the delay in seconds.

        At 0 the caller must update the object now. Otherwise the update is a conflict, and the caller must not write
        for that long. `desired_hash` is a hash of the desired object: a changed desired state is no conflict and is
        tried at once.
        """
        now = self._clock()
        self._remove_expired(now)
        conflict = self._conflicts.setdefault((uid, desired_hash, tuple(paths)), _Conflict())
        if now < conflict.retry_at:
            return conflict.retry_at - now
        if not conflict.backoff_seconds:
            recent = (time for time in conflict.update_times if now - time < WINDOW_SECONDS)
            conflict.update_times = [*recent, now]
            if len(conflict.update_times) <= MAX_IMMEDIATE_UPDATES:
                return 0.0
            conflict.backoff_seconds = INITIAL_BACKOFF_SECONDS
        elif not conflict.retried:
            # One update after each delay: the other client may have stopped.
            conflict.retried = True
            return 0.0
        else:
            conflict.backoff_seconds = min(conflict.backoff_seconds * 2, MAX_BACKOFF_SECONDS)
        conflict.retry_at, conflict.retried = now + conflict.backoff_seconds, False
        return conflict.backoff_seconds

    def _remove_expired(self, now: float) -> None:
        expired = [
            key
            for key, conflict in self._conflicts.items()
            if now - max(conflict.retry_at, *conflict.update_times, 0.0) >= WINDOW_SECONDS
            and not now < conflict.retry_at
        ]
        for key in expired:
            del self._conflicts[key]
