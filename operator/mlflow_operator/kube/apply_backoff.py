"""Who undoes our repairs: a memory of what was put right again and again.

A repair that does not last is a fight with another controller, or a field that the API server itself
rewrites. To go on would be a write a second for ever, so after a few rounds we step back, say who it is, and
try again ever more rarely.
"""

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

ROUNDS = 10
"""Repairs of the same fields of the same object before it is called a fight. A person who edits by hand gives
up earlier."""

WINDOW = 600.0
"""Seconds within which they count as one fight."""

FIRST_PAUSE = 60.0
LONGEST_PAUSE = 1800.0
"""Seconds without a write once it is a fight; doubled for each further round."""

ConflictKey = tuple[str, int, tuple[str, ...]]


@dataclass
class _Conflict:
    repairs: list[float] = field(default_factory=list)
    pause: float = 0.0
    until: float = 0.0
    tried: bool = False


class ApplyBackoff:
    """Remembers repairs for as long as the process lives. `clock` is monotonic, in seconds."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._known: dict[ConflictKey, _Conflict] = {}

    def pause(self, uid: str, wish: int, paths: Sequence[str]) -> float:
        """Note that a repair is due. 0: go ahead. Else it is a fight: write nothing for so many seconds.

        `wish` is a hash of what is wanted: to want something else is no repair, and worth a new try.
        """
        now = self._clock()
        self._forget(now)
        fight = self._known.setdefault((uid, wish, tuple(paths)), _Conflict())
        if now < fight.until:
            return fight.until - now
        if not fight.pause:
            fight.repairs = [*(time for time in fight.repairs if now - time < WINDOW), now]
            if len(fight.repairs) <= ROUNDS:
                return 0.0
            fight.pause = FIRST_PAUSE
        elif not fight.tried:
            # After each pause one repair: the other side may have given up.
            fight.tried = True
            return 0.0
        else:
            fight.pause = min(fight.pause * 2, LONGEST_PAUSE)
        fight.until, fight.tried = now + fight.pause, False
        return fight.pause

    def _forget(self, now: float) -> None:
        over = [
            key
            for key, fight in self._known.items()
            if now - max(fight.until, *fight.repairs, 0.0) >= WINDOW and not now < fight.until
        ]
        for key in over:
            del self._known[key]
