"""A fight is noticed, waited out ever longer, and forgotten when it is over."""

from itertools import pairwise

from mlflow_operator.kube.apply_backoff import FIRST_PAUSE, LONGEST_PAUSE, ROUNDS, WINDOW, ApplyBackoff


class Clock:
    def __init__(self) -> None:
        self.now = 0.0

    def __call__(self) -> float:
        return self.now


def fight(repairs: ApplyBackoff, clock: Clock, seconds: float, step: float = 1.0) -> list[float]:
    """When repairs were made, while the other side undoes each within `step`."""
    made, end = [], clock.now + seconds
    while clock.now < end:
        if not repairs.pause("uid", 1, ["spec.replicas"]):
            made.append(clock.now)
        clock.now += step
    return made


def test_the_first_repairs_are_made_at_once() -> None:
    clock = Clock()
    assert fight(ApplyBackoff(clock), clock, ROUNDS) == [*range(ROUNDS)]


def test_then_they_become_ever_rarer() -> None:
    clock = Clock()
    made = fight(ApplyBackoff(clock), clock, 24 * 3600)[ROUNDS - 1 :]
    pauses = [later - sooner for sooner, later in pairwise(made)]
    assert pauses[:3] == [FIRST_PAUSE + 1, 2 * FIRST_PAUSE + 1, 4 * FIRST_PAUSE + 1]
    assert pauses == sorted(pauses)
    assert pauses[-1] == LONGEST_PAUSE + 1


def test_a_hand_that_edits_now_and_then_is_no_fight() -> None:
    clock = Clock()
    assert len(fight(ApplyBackoff(clock), clock, 24 * 3600, step=WINDOW / ROUNDS)) == 24 * 3600 / (
        WINDOW / ROUNDS
    )


def test_other_fields_and_other_objects_are_other_stories() -> None:
    clock = Clock()
    repairs = ApplyBackoff(clock)
    fight(repairs, clock, 20)
    assert repairs.pause("uid", 1, ["spec.replicas"]) > 0
    assert repairs.pause("uid", 1, ["spec.template"]) == 0
    assert repairs.pause("other", 1, ["spec.replicas"]) == 0
    assert repairs.pause("uid", 2, ["spec.replicas"]) == 0


def test_peace_is_believed_after_a_while() -> None:
    clock = Clock()
    repairs = ApplyBackoff(clock)
    fight(repairs, clock, 20)
    clock.now += FIRST_PAUSE + WINDOW + 20
    assert len(fight(repairs, clock, ROUNDS)) == ROUNDS


def test_memory_does_not_grow_with_time() -> None:
    clock = Clock()
    repairs = ApplyBackoff(clock)
    for number in range(1000):
        repairs.pause(f"uid-{number}", 1, ["spec"])
        clock.now += WINDOW
    assert len(repairs._known) <= 2
