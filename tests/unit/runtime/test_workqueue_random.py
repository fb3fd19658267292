"""The work queue with random events, in virtual time: every added key is processed, one call at a time per key."""

import asyncio
from dataclasses import dataclass, field
from itertools import pairwise

from hypothesis import given, settings
from hypothesis import strategies as st

from mlflow_operator.runtime.workqueue import SLOW_RECONCILE_SECONDS, WorkQueue
from mlflow_operator.runtime.workqueue_schedule import (
    INITIAL_BACKOFF_SECONDS,
    JITTER,
    MAX_BACKOFF_SECONDS,
    RESYNC_SECONDS,
)
from mlflow_operator.status.metrics import Metrics
from tests.unit.virtual_time import in_virtual_time

KEYS = "abc"
DURATION_SECONDS = 400.0
TOLERANCE_SECONDS = 0.001


@dataclass(frozen=True)
class PlannedCall:
    """What one call of the handler does: how long it takes, whether it fails, and what it returns."""

    seconds: float
    fails: bool
    requeue_after: float | None


PLANNED_CALLS = st.builds(
    PlannedCall, st.sampled_from([0.0, 0.1, 3.0, 20.0]), st.booleans(), st.none() | st.floats(0, 100)
)
EVENTS = st.lists(st.tuples(st.floats(0, DURATION_SECONDS / 2), st.sampled_from(KEYS)), max_size=12)


@dataclass
class Recording:
    """What happened during one run.

    `added`: (time, key). `calls`: (key, start, end, whether it failed). `running`: start time by key. `max_slots`: the
    maximum number of calls that occupied a worker slot, which are those that had not been running for long.
    """

    added: list[tuple[float, str]] = field(default_factory=list)
    calls: list[tuple[str, float, float, bool]] = field(default_factory=list)
    running: dict[str, float] = field(default_factory=dict)
    max_slots: int = 0

    def calls_of(self, key: str) -> list[tuple[str, float, float, bool]]:
        return [call for call in self.calls if call[0] == key]


async def record(
    events: list[tuple[float, str]], planned_calls: dict[str, list[PlannedCall]], workers: int
) -> Recording:
    """Run the queue for `DURATION_SECONDS`, then stop it."""
    recording, loop = Recording(), asyncio.get_running_loop()
    start = loop.time()
    plans = {key: iter(planned_calls[key]) for key in KEYS}

    async def handle(key: str) -> float | None:
        assert key not in recording.running, "a key is processed twice at the same time"
        recording.running[key] = loop.time()
        with_slot = [
            since
            for since in recording.running.values()
            if loop.time() - since < SLOW_RECONCILE_SECONDS - TOLERANCE_SECONDS
        ]
        recording.max_slots = max(recording.max_slots, len(with_slot))
        began, call = loop.time() - start, next(plans[key], PlannedCall(0.1, False, None))
        try:
            await asyncio.sleep(call.seconds)
        finally:
            del recording.running[key]
        recording.calls.append((key, began, loop.time() - start, call.fails))
        if call.fails:
            raise ValueError("planned failure")
        return call.requeue_after

    def add(key: str) -> None:
        recording.added.append((loop.time() - start, key))
        queue.add(key)

    queue = WorkQueue(handle, Metrics(), workers=workers)
    for at, key in events:
        loop.call_later(at, add, key)
    task = asyncio.create_task(queue.run())
    done, _ = await asyncio.wait([task], timeout=DURATION_SECONDS)
    assert not done, "the queue ended"
    task.cancel()
    await asyncio.gather(task, return_exceptions=True)
    assert not recording.running, "the queue stopped while a call was still running"
    return recording


@settings(deadline=None, max_examples=150)
@given(
    EVENTS,
    st.fixed_dictionaries({key: st.lists(PLANNED_CALLS, max_size=8) for key in KEYS}),
    st.integers(1, 4),
)
@in_virtual_time
async def test_random_events_and_calls(
    events: list[tuple[float, str]], planned_calls: dict[str, list[PlannedCall]], workers: int
) -> None:
    """No added key is lost, no key is processed twice at once or in a hot loop, and failures back off exponentially."""
    recording = await record(events, planned_calls, workers)
    assert recording.max_slots <= workers
    # A key that waits for a worker waits at most for all planned calls.
    max_wait = (
        0.0 if workers >= len(KEYS) else sum(call.seconds for key in KEYS for call in planned_calls[key]) + 1
    )
    for at, key in recording.added:
        _assert_processed_after(recording, key, at, max_wait)
    for key in KEYS:
        assert bool(recording.calls_of(key)) == any(added == key for _, added in recording.added)
        _assert_delays(recording, key, max_wait)


def _assert_processed_after(recording: Recording, key: str, at: float, max_wait: float) -> None:
    """A call starts after the event, at the latest after the running call and the initial backoff."""
    running_until = max((end for _, start, end, _ in recording.calls_of(key) if start <= at), default=at)
    latest = max(at, running_until + INITIAL_BACKOFF_SECONDS) + max_wait + TOLERANCE_SECONDS
    assert latest > DURATION_SECONDS or any(
        at - TOLERANCE_SECONDS <= start <= latest for _, start, _, _ in recording.calls_of(key)
    ), (key, at)


def _assert_delays(recording: Recording, key: str, max_wait: float) -> None:
    failures = 0
    for (_, _, end, failed), (_, start, _, _) in pairwise(recording.calls_of(key)):
        failures = failures + 1 if failed else 0
        began = next(since for _, since, until, _ in recording.calls_of(key) if until == end)
        was_added = any(
            added == key and began - TOLERANCE_SECONDS <= at <= start for at, added in recording.added
        )
        if failed:
            backoff = min(INITIAL_BACKOFF_SECONDS * 2 ** (failures - 1), MAX_BACKOFF_SECONDS)
            min_delay = INITIAL_BACKOFF_SECONDS * (1 - JITTER) if was_added else backoff * (1 - JITTER)
            max_delay = backoff * (1 + JITTER) + max_wait
            assert min_delay - TOLERANCE_SECONDS <= start - end <= max_delay + TOLERANCE_SECONDS
        else:
            assert start - end <= RESYNC_SECONDS * (1 + JITTER) + max_wait + TOLERANCE_SECONDS
