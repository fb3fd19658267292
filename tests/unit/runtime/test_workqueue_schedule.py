"""The queue's rules: each key in one pair of hands, none lost, none hot."""

import random

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


class Middle(random.Random):
    """No jitter, so that times can be named."""

    def uniform(self, a: float, b: float) -> float:
        return (a + b) / 2


@pytest.fixture
def schedule() -> Schedule[str]:
    return Schedule(Middle())


def test_a_key_is_due_once_however_often_asked_for(schedule: Schedule[str]) -> None:
    for _ in range(3):
        schedule.ask("a", 0)
    assert [schedule.take(0), schedule.take(0)] == ["a", None]


def test_the_earliest_wish_counts(schedule: Schedule[str]) -> None:
    schedule.ask("a", 30)
    schedule.ask("a", 10)
    schedule.ask("a", 20)
    assert [schedule.next_due(), schedule.take(9), schedule.take(10), schedule.next_due()] == [
        10,
        None,
        "a",
        None,
    ]


def test_who_waits_longest_comes_first(schedule: Schedule[str]) -> None:
    for key in "cab":
        schedule.ask(key, 5)
    schedule.ask("z", 4)
    assert [schedule.take(5) for _ in range(4)] == ["z", "c", "a", "b"]


def test_asked_for_while_taken_it_is_due_once_more_afterwards(schedule: Schedule[str]) -> None:
    """What changed after the worker had read would otherwise wait for the resync."""
    schedule.ask("a", 0)
    schedule.take(0)
    schedule.ask("a", 1)
    schedule.ask("a", 2)
    assert schedule.take(3) is None
    schedule.done("a", 3)
    assert schedule.take(3) == "a"
    schedule.done("a", 4)
    assert schedule.take(4) is None


def test_what_is_fine_comes_back_at_the_resync_or_when_it_wants(schedule: Schedule[str]) -> None:
    schedule.ask("a", 0)
    schedule.take(0)
    schedule.done("a", 0)
    assert schedule.next_due() == RESYNC_SECONDS
    schedule.take(RESYNC_SECONDS)
    schedule.done("a", 100, again=5)
    assert schedule.next_due() == 105
    schedule.take(105)
    schedule.done("a", 105, again=86400)
    assert schedule.next_due() == 105 + RESYNC_SECONDS


def test_pauses_grow_with_each_failure_and_shrink_with_success(schedule: Schedule[str]) -> None:
    pauses = []
    schedule.ask("a", 0)
    for _ in range(9):
        now = schedule.next_due() or 0
        schedule.take(now)
        pauses.append(schedule.failed("a", now))
    assert pauses == [1, 2, 4, 8, 16, 32, MAX_BACKOFF_SECONDS, MAX_BACKOFF_SECONDS, MAX_BACKOFF_SECONDS]
    now = schedule.next_due() or 0
    schedule.take(now)
    schedule.done("a", now, again=0)
    schedule.take(now)
    assert schedule.failed("a", now) == INITIAL_BACKOFF_SECONDS


def test_a_thousand_failures_are_no_overflow(schedule: Schedule[str]) -> None:
    schedule.ask("a", 0)
    for _ in range(2000):
        now = schedule.next_due() or 0
        schedule.take(now)
        schedule.failed("a", now)
    assert schedule.next_due() == now + MAX_BACKOFF_SECONDS


def test_the_api_server_is_given_the_time_it_asked_for(schedule: Schedule[str]) -> None:
    schedule.ask("a", 0)
    schedule.take(0)
    assert schedule.failed("a", 0, at_least=17) == 17
    schedule.ask("a", 1)
    assert schedule.next_due() == 17


def test_a_failure_that_causes_its_own_events_makes_no_hot_loop(schedule: Schedule[str]) -> None:
    schedule.ask("a", 0)
    for _ in range(3):
        schedule.take(schedule.next_due() or 0)
        schedule.failed("a", 10)
    schedule.ask("a", 10)
    assert schedule.next_due() == 10 + INITIAL_BACKOFF_SECONDS


def test_an_event_shortens_a_long_pause(schedule: Schedule[str]) -> None:
    """The user mended it: he should not wait a minute to see so."""
    schedule.ask("a", 0)
    for _ in range(6):
        now = schedule.next_due() or 0
        schedule.take(now)
        schedule.failed("a", now)
    schedule.ask("a", now + 2)
    assert schedule.next_due() == now + 2


def test_forgotten_keys_do_not_come_back(schedule: Schedule[str]) -> None:
    schedule.ask("waiting", 0)
    schedule.forget("waiting")
    for finish in (schedule.done, schedule.failed):
        schedule.ask("taken", 0)
        schedule.take(0)
        schedule.forget("taken")
        finish("taken", 0)
        assert schedule.next_due() is None


@pytest.mark.parametrize("forgotten_first", [True, False])
def test_made_again_under_the_same_name_while_taken_it_is_due_again(
    schedule: Schedule[str], forgotten_first: bool
) -> None:
    """A worker that read "gone" and then forgets must not wipe out the news that it is back."""
    schedule.ask("a", 0)
    schedule.take(0)
    if forgotten_first:
        schedule.forget("a")
    schedule.ask("a", 1)
    if not forgotten_first:
        schedule.forget("a")
    schedule.done("a", 2)
    assert schedule.take(2) == "a"
    schedule.done("a", 3)
    assert schedule.next_due() == 3 + RESYNC_SECONDS


def test_jitter_stays_within_its_bounds_and_does_vary() -> None:
    schedule: Schedule[int] = Schedule(random.Random(1))  # noqa: S311
    for key in range(100):
        schedule.ask(key, 0)
        schedule.take(0)
    pauses = {schedule.failed(key, 0) for key in range(100)}
    assert len(pauses) > 90
    assert min(pauses) >= INITIAL_BACKOFF_SECONDS * (1 - JITTER)
    assert max(pauses) <= INITIAL_BACKOFF_SECONDS * (1 + JITTER)


class Anything(RuleBasedStateMachine):
    """Any order of calls against a model that knows only who has what and who is owed a look."""

    keys = st.sampled_from("abc")

    def __init__(self) -> None:
        super().__init__()
        self.schedule: Schedule[str] = Schedule(random.Random(0))  # noqa: S311
        self.now = 0.0
        self.taken: set[str] = set()
        self.owed: set[str] = set()
        self.gone: set[str] = set()

    @rule(key=keys, after=st.floats(0, 100))
    def ask(self, key: str, after: float) -> None:
        self.schedule.ask(key, self.now + after)
        self.owed.add(key)

    @rule(seconds=st.floats(0, 30))
    def wait(self, seconds: float) -> None:
        self.now += seconds

    @rule()
    def take(self) -> None:
        key = self.schedule.take(self.now)
        if key is not None:
            assert key not in self.taken, "a key in two pairs of hands"
            assert key in self.owed, "a key that nobody wants"
            self.taken.add(key)
            self.owed.discard(key)

    @precondition(lambda self: self.taken)
    @rule(data=st.data(), fine=st.booleans(), again=st.none() | st.floats(0, 200))
    def finish(self, data: st.DataObject, fine: bool, again: float | None) -> None:
        key = data.draw(st.sampled_from(sorted(self.taken)))
        self.taken.discard(key)
        forgotten = key in self.gone and key not in self.owed
        self.gone.discard(key)
        if fine:
            self.schedule.done(key, self.now, again)
        else:
            self.schedule.failed(key, self.now)
        if not forgotten:
            self.owed.add(key)

    @rule(key=keys)
    def forget(self, key: str) -> None:
        self.schedule.forget(key)
        if key in self.taken:
            self.gone.add(key)
        else:
            self.owed.discard(key)

    @invariant()
    def nobody_owed_is_lost(self) -> None:
        """Whatever is owed a look and not in hand becomes due, at the latest after the longest pause."""
        waiting = self.owed - self.taken
        assert (self.schedule.next_due() is not None) == bool(waiting)
        assert self.schedule.depth(self.now + 1000) == len(waiting)


Anything.TestCase.settings = settings(max_examples=150, stateful_step_count=40, deadline=None)
TestAnyOrder = Anything.TestCase
