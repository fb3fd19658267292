"""The queue through days drawn at random, in virtual time: whatever is asked for is looked at, by one at a time."""

import asyncio
from collections.abc import Awaitable, Callable, Coroutine
from dataclasses import dataclass, field
from itertools import pairwise
from typing import Any

from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from mlflow_operator.runtime.workqueue import RECONCILE_TIMEOUT_SECONDS, WorkQueue
from mlflow_operator.runtime.workqueue_schedule import (
    INITIAL_BACKOFF_SECONDS,
    JITTER,
    MAX_BACKOFF_SECONDS,
    RESYNC_SECONDS,
)
from mlflow_operator.status.metrics import Metrics

Run = Callable[[Awaitable[None]], None]

KEYS = "abc"
DAY = 400.0
SLACK = 0.001


@dataclass(frozen=True)
class Look:
    """What one call of the handler does: how long it takes, and how it ends."""

    seconds: float
    fails: bool
    again: float | None


LOOKS = st.builds(Look, st.sampled_from([0.0, 0.1, 3.0, 20.0]), st.booleans(), st.none() | st.floats(0, 100))
EVENTS = st.lists(st.tuples(st.floats(0, DAY / 2), st.sampled_from(KEYS)), max_size=12)


@dataclass
class Day:
    """What happened: who asked when, each look as (key, start, end, whether it failed), those under way since when,
    and how many at most of those that had not been under way for long."""

    asked: list[tuple[float, str]] = field(default_factory=list)
    looks: list[tuple[str, float, float, bool]] = field(default_factory=list)
    inside: dict[str, float] = field(default_factory=dict)
    most: int = 0

    def of(self, key: str) -> list[tuple[str, float, float, bool]]:
        return [look for look in self.looks if look[0] == key]


async def lived(events: list[tuple[float, str]], looks: dict[str, list[Look]], workers: int) -> Day:
    """Lets the queue work for a day, then stops it."""
    day, loop = Day(), asyncio.get_running_loop()
    start = loop.time()
    plans = {key: iter(looks[key]) for key in KEYS}

    async def handle(key: str) -> float | None:
        assert key not in day.inside, "a key in two pairs of hands"
        day.inside[key] = loop.time()
        young = [
            since for since in day.inside.values() if loop.time() - since < RECONCILE_TIMEOUT_SECONDS - SLACK
        ]
        day.most = max(day.most, len(young))
        began, look = loop.time() - start, next(plans[key], Look(0.1, False, None))
        try:
            await asyncio.sleep(look.seconds)
        finally:
            del day.inside[key]
        day.looks.append((key, began, loop.time() - start, look.fails))
        if look.fails:
            raise ValueError("as planned")
        return look.again

    def ask(key: str) -> None:
        day.asked.append((loop.time() - start, key))
        queue.add(key)

    queue = WorkQueue(handle, Metrics(), at_once=workers)
    for at, key in events:
        loop.call_later(at, ask, key)
    task = asyncio.create_task(queue.run())
    done, _ = await asyncio.wait([task], timeout=DAY)
    assert not done, "a worker ended"
    task.cancel()
    await asyncio.gather(task, return_exceptions=True)
    assert not day.inside, "stopped, with a look still under way"
    return day


@settings(deadline=None, max_examples=150, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(EVENTS, st.fixed_dictionaries({key: st.lists(LOOKS, max_size=8) for key in KEYS}), st.integers(1, 4))
def test_any_day_of_the_queue(
    virtual: Run, events: list[tuple[float, str]], looks: dict[str, list[Look]], workers: int
) -> None:
    """No wish is lost, no key is hot or with two workers, pauses grow with failures and end with them."""

    async def story() -> None:
        day = await lived(events, looks, workers)
        assert day.most <= workers
        # who waits for a worker waits for looks of others at the most
        busy = 0.0 if workers >= len(KEYS) else sum(look.seconds for key in KEYS for look in looks[key]) + 1
        for at, key in day.asked:
            _looked_at(day, key, at, busy)
        for key in KEYS:
            assert bool(day.of(key)) == any(asked == key for _, asked in day.asked)
            _paused_as_it_should(day, key, busy)

    coroutine: Coroutine[Any, Any, None] = story()
    virtual(coroutine)


def _looked_at(day: Day, key: str, at: float, busy: float) -> None:
    """An event leads to a look that began after it, at the latest when the look under way and a first pause end."""
    under_way = max((end for _, start, end, _ in day.of(key) if start <= at), default=at)
    latest = max(at, under_way + INITIAL_BACKOFF_SECONDS) + busy + SLACK
    assert latest > DAY or any(at - SLACK <= start <= latest for _, start, _, _ in day.of(key)), (key, at)


def _paused_as_it_should(day: Day, key: str, busy: float) -> None:
    failures = 0
    for (_, _, end, failed), (_, start, _, _) in pairwise(day.of(key)):
        failures = failures + 1 if failed else 0
        began = next(since for _, since, until, _ in day.of(key) if until == end)
        asked = any(asked == key and began - SLACK <= at <= start for at, asked in day.asked)
        if failed:
            pause = min(INITIAL_BACKOFF_SECONDS * 2 ** (failures - 1), MAX_BACKOFF_SECONDS)
            least = INITIAL_BACKOFF_SECONDS * (1 - JITTER) if asked else pause * (1 - JITTER)
            assert least - SLACK <= start - end <= pause * (1 + JITTER) + busy + SLACK
        else:
            assert start - end <= RESYNC_SECONDS * (1 + JITTER) + busy + SLACK
