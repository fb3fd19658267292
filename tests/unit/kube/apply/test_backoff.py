"""A conflict is detected, retried with growing delays, and forgotten when it ends."""

from itertools import pairwise

from mlflow_operator.kube.apply.backoff import (
    INITIAL_BACKOFF_SECONDS,
    MAX_BACKOFF_SECONDS,
    MAX_IMMEDIATE_UPDATES,
    WINDOW_SECONDS,
    ApplyBackoff,
)


class Clock:
    def __init__(self) -> None:
        self.now = 0.0

    def __call__(self) -> float:
        return self.now


def update_repeatedly(backoff: ApplyBackoff, clock: Clock, seconds: float, step: float = 1.0) -> list[float]:
    """Return the times of the updates while another client reverts each of them within `step` seconds."""
    updates, end = [], clock.now + seconds
    while clock.now < end:
        if not backoff.request_update("uid", 1, ["spec.replicas"]):
            updates.append(clock.now)
        clock.now += step
    return updates


def test_first_updates_are_immediate() -> None:
    clock = Clock()
    assert update_repeatedly(ApplyBackoff(clock), clock, MAX_IMMEDIATE_UPDATES) == [
        *range(MAX_IMMEDIATE_UPDATES)
    ]


def test_delay_doubles_up_to_maximum() -> None:
    clock = Clock()
    updates = update_repeatedly(ApplyBackoff(clock), clock, 24 * 3600)[MAX_IMMEDIATE_UPDATES - 1 :]
    delays = [later - earlier for earlier, later in pairwise(updates)]
    assert delays[:3] == [
        INITIAL_BACKOFF_SECONDS + 1,
        2 * INITIAL_BACKOFF_SECONDS + 1,
        4 * INITIAL_BACKOFF_SECONDS + 1,
    ]
    assert delays == sorted(delays)
    assert delays[-1] == MAX_BACKOFF_SECONDS + 1


def test_infrequent_edits_are_not_a_conflict() -> None:
    clock = Clock()
    assert len(
        update_repeatedly(ApplyBackoff(clock), clock, 24 * 3600, step=WINDOW_SECONDS / MAX_IMMEDIATE_UPDATES)
    ) == 24 * 3600 / (WINDOW_SECONDS / MAX_IMMEDIATE_UPDATES)


def test_backoff_is_separate_per_object_fields_and_desired_state() -> None:
    clock = Clock()
    backoff = ApplyBackoff(clock)
    update_repeatedly(backoff, clock, 20)
    assert backoff.request_update("uid", 1, ["spec.replicas"]) > 0
    assert backoff.request_update("uid", 1, ["spec.template"]) == 0
    assert backoff.request_update("other", 1, ["spec.replicas"]) == 0
    assert backoff.request_update("uid", 2, ["spec.replicas"]) == 0


def test_backoff_is_reset_after_conflict_ends() -> None:
    clock = Clock()
    backoff = ApplyBackoff(clock)
    update_repeatedly(backoff, clock, 20)
    clock.now += INITIAL_BACKOFF_SECONDS + WINDOW_SECONDS + 20
    assert len(update_repeatedly(backoff, clock, MAX_IMMEDIATE_UPDATES)) == MAX_IMMEDIATE_UPDATES


def test_expired_conflicts_are_removed() -> None:
    clock = Clock()
    backoff = ApplyBackoff(clock)
    for number in range(1000):
        backoff.request_update(f"uid-{number}", 1, ["spec"])
        clock.now += WINDOW_SECONDS
    assert len(backoff._conflicts) <= 2
