"""Rules of the work queue: no key is taken twice, no key is lost, no hot loop."""

import random
from operator import itemgetter

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from mlflow_operator.runtime.workqueue_schedule import (
    INITIAL_BACKOFF_SECONDS,
    JITTER,
    MAX_BACKOFF_SECONDS,
    RESYNC_SECONDS,
    Schedule,
)


class WithoutJitter(random.Random):
    """Returns the middle of each range, so that tests can use exact times."""

    def uniform(self, a: float, b: float) -> float:
        return (a + b) / 2


@pytest.fixture
def schedule() -> Schedule[str]:
    return Schedule(WithoutJitter())


def test_key_added_several_times_is_due_once(schedule: Schedule[str]) -> None:
    for _ in range(3):
        schedule.add("a", 0)
    assert [schedule.take(0), schedule.take(0)] == ["a", None]


def test_key_is_due_at_the_earliest_requested_time(schedule: Schedule[str]) -> None:
    schedule.add("a", 30)
    schedule.add("a", 10)
    schedule.add("a", 20)
    assert [schedule.next_due(), schedule.take(9), schedule.take(10), schedule.next_due()] == [
        10,
        None,
        "a",
        None,
    ]


def test_key_due_for_the_longest_time_is_taken_first(schedule: Schedule[str]) -> None:
    for key in "cab":
        schedule.add(key, 5)
    schedule.add("z", 4)
    assert [schedule.take(5) for _ in range(4)] == ["z", "c", "a", "b"]


def test_group_with_fewest_taken_keys_comes_first() -> None:
    """A namespace with many servers does not delay the servers of others, although its own are due for longer."""
    schedule: Schedule[str] = Schedule(WithoutJitter(), group_of=itemgetter(0), max_taken=8)
    for number, key in enumerate(["a1", "a2", "a3", "a4", "b1", "b2", "c1"]):
        schedule.add(key, number)
    assert [schedule.take(10) for _ in range(7)] == ["a1", "b1", "c1", "a2", "b2", "a3", None]
    schedule.done("a1", 10)
    assert schedule.take(10) == "a4"


def test_group_leaves_as_many_keys_as_it_takes() -> None:
    """A namespace with any number of servers never has all reconciles. What others do not use, it may use."""
    schedule: Schedule[str] = Schedule(WithoutJitter(), group_of=itemgetter(0), max_taken=8)
    for number in range(8):
        schedule.add(f"a{number}", 0)
    assert [schedule.take(1) for _ in range(5)] == ["a0", "a1", "a2", "a3", None]
    assert schedule.next_due() is None
    schedule.add("b0", 1)
    assert schedule.next_due() == 1
    assert schedule.take(1) == "b0"
    schedule.done("b0", 1, 1000)
    schedule.done("a0", 1, 1000)
    assert schedule.next_due() == 0
    assert schedule.take(1) == "a4"


def test_key_added_while_taken_is_due_once_more_afterwards(schedule: Schedule[str]) -> None:
    """A change after the worker has read the objects would otherwise wait for the resync."""
    schedule.add("a", 0)
    schedule.take(0)
    schedule.add("a", 1)
    schedule.add("a", 2)
    assert schedule.take(3) is None
    schedule.done("a", 3)
    assert schedule.take(3) == "a"
    schedule.done("a", 4)
    assert schedule.take(4) is None


def test_key_is_due_at_the_resync_or_after_requeue_after(schedule: Schedule[str]) -> None:
    schedule.add("a", 0)
    schedule.take(0)
    schedule.done("a", 0)
    assert schedule.next_due() == RESYNC_SECONDS
    schedule.take(RESYNC_SECONDS)
    schedule.done("a", 100, requeue_after=5)
    assert schedule.next_due() == 105
    schedule.take(105)
    schedule.done("a", 105, requeue_after=86400)
    assert schedule.next_due() == 105 + RESYNC_SECONDS


def test_backoff_grows_with_each_failure_and_is_reset_by_a_success(schedule: Schedule[str]) -> None:
    delays = []
    schedule.add("a", 0)
    for _ in range(9):
        now = schedule.next_due() or 0
        schedule.take(now)
        delays.append(schedule.failed("a", now))
    assert delays == [1, 2, 4, 8, 16, 32, MAX_BACKOFF_SECONDS, MAX_BACKOFF_SECONDS, MAX_BACKOFF_SECONDS]
    now = schedule.next_due() or 0
    schedule.take(now)
    schedule.done("a", now, requeue_after=0)
    schedule.take(now)
    assert schedule.failed("a", now) == INITIAL_BACKOFF_SECONDS


def test_thousands_of_failures_do_not_overflow(schedule: Schedule[str]) -> None:
    schedule.add("a", 0)
    for _ in range(2000):
        now = schedule.next_due() or 0
        schedule.take(now)
        schedule.failed("a", now)
    assert schedule.next_due() == now + MAX_BACKOFF_SECONDS


def test_min_delay_applies_to_keys_added_meanwhile(schedule: Schedule[str]) -> None:
    schedule.add("a", 0)
    schedule.take(0)
    assert schedule.failed("a", 0, min_delay=17) == 17
    schedule.add("a", 1)
    assert schedule.next_due() == 17


def test_failure_that_causes_its_own_events_creates_no_hot_loop(schedule: Schedule[str]) -> None:
    schedule.add("a", 0)
    for _ in range(3):
        schedule.take(schedule.next_due() or 0)
        schedule.failed("a", 10)
    schedule.add("a", 10)
    assert schedule.next_due() == 10 + INITIAL_BACKOFF_SECONDS


def test_event_shortens_a_long_backoff(schedule: Schedule[str]) -> None:
    """A user who has fixed the cause must not wait a minute for the result."""
    schedule.add("a", 0)
    for _ in range(6):
        now = schedule.next_due() or 0
        schedule.take(now)
        schedule.failed("a", now)
    schedule.add("a", now + 2)
    assert schedule.next_due() == now + 2


def test_forgotten_keys_are_not_due(schedule: Schedule[str]) -> None:
    schedule.add("waiting", 0)
    schedule.forget("waiting")
    for finish in (schedule.done, schedule.failed):
        schedule.add("taken", 0)
        schedule.take(0)
        schedule.forget("taken")
        finish("taken", 0)
        assert schedule.next_due() is None


@pytest.mark.parametrize("forgotten_first", [True, False])
def test_key_forgotten_and_added_while_taken_is_due_again(
    schedule: Schedule[str], forgotten_first: bool
) -> None:
    """The object was recreated under the same name: a worker that forgets the old one must not drop the new one."""
    schedule.add("a", 0)
    schedule.take(0)
    if forgotten_first:
        schedule.forget("a")
    schedule.add("a", 1)
    if not forgotten_first:
        schedule.forget("a")
    schedule.done("a", 2)
    assert schedule.take(2) == "a"
    schedule.done("a", 3)
    assert schedule.next_due() == 3 + RESYNC_SECONDS


def test_jitter_varies_within_its_bounds() -> None:
    schedule: Schedule[int] = Schedule(random.Random(1))  # noqa: S311
    for key in range(100):
        schedule.add(key, 0)
        schedule.take(0)
    delays = {schedule.failed(key, 0) for key in range(100)}
    assert len(delays) > 90
    assert min(delays) >= INITIAL_BACKOFF_SECONDS * (1 - JITTER)
    assert max(delays) <= INITIAL_BACKOFF_SECONDS * (1 + JITTER)


class ScheduleModel(RuleBasedStateMachine):
    """Random calls, compared with a model that knows only which keys are taken and which must still be processed."""

    keys = st.sampled_from("abc")

    def __init__(self) -> None:
        super().__init__()
        self.schedule: Schedule[str] = Schedule(random.Random(0))  # noqa: S311
        self.now = 0.0
        self.taken: set[str] = set()
        self.pending: set[str] = set()
        self.forgotten: set[str] = set()

    @rule(key=keys, after=st.floats(0, 100))
    def add(self, key: str, after: float) -> None:
        self.schedule.add(key, self.now + after)
        self.pending.add(key)

    @rule(seconds=st.floats(0, 30))
    def wait(self, seconds: float) -> None:
        self.now += seconds

    @rule()
    def take(self) -> None:
        key = self.schedule.take(self.now)
        if key is not None:
            assert key not in self.taken, "a key is taken twice"
            assert key in self.pending, "a key is taken that was not added"
            self.taken.add(key)
            self.pending.discard(key)

    @precondition(lambda self: self.taken)
    @rule(data=st.data(), succeeded=st.booleans(), requeue_after=st.none() | st.floats(0, 200))
    def finish(self, data: st.DataObject, succeeded: bool, requeue_after: float | None) -> None:
        key = data.draw(st.sampled_from(sorted(self.taken)))
        self.taken.discard(key)
        is_forgotten = key in self.forgotten and key not in self.pending
        self.forgotten.discard(key)
        if succeeded:
            self.schedule.done(key, self.now, requeue_after)
        else:
            self.schedule.failed(key, self.now)
        if not is_forgotten:
            self.pending.add(key)

    @rule(key=keys)
    def forget(self, key: str) -> None:
        self.schedule.forget(key)
        if key in self.taken:
            self.forgotten.add(key)
        else:
            self.pending.discard(key)

    @invariant()
    def no_pending_key_is_lost(self) -> None:
        """Every pending key that is not taken becomes due, at the latest after the maximum delay."""
        waiting = self.pending - self.taken
        assert (self.schedule.next_due() is not None) == bool(waiting)
        assert self.schedule.depth(self.now + 1000) == len(waiting)


ScheduleModel.TestCase.settings = settings(max_examples=150, stateful_step_count=40, deadline=None)
TestScheduleModel = ScheduleModel.TestCase
