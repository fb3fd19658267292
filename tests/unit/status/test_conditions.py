"""Conditions tell what changed, once, and Ready speaks for the worst of them."""

from mlflow_operator.status.conditions import (
    Condition,
    ConditionType,
    Reason,
    State,
    changed,
    false_condition,
    ready_condition,
    true_condition,
    with_transition_times,
)

DATABASE = false_condition(ConditionType.DATABASE, Reason.DATABASE_UNREACHABLE, "down")
WAITING = Condition(ConditionType.SCHEMA, State.UNKNOWN, Reason.WAITING_FOR_DEPENDENCY, "waits")
STARTING = false_condition(ConditionType.SERVER, Reason.PROGRESSING, "starting")
FINE = true_condition(ConditionType.CREDENTIALS, "there")


def test_ready_is_true_only_if_all_are() -> None:
    """What users wait for with `kubectl wait`."""
    assert ready_condition([FINE]).is_true
    assert not ready_condition([FINE, STARTING]).is_true


def test_ready_names_the_cause_and_not_what_waits_for_it() -> None:
    """ "Waits for the database" helps nobody; "the database is down" does."""
    assert ready_condition([WAITING, STARTING, DATABASE]).message == "down"
    assert ready_condition([WAITING, STARTING]).message == "starting"


def test_time_moves_only_with_the_status() -> None:
    """A new message is no transition, and no change at all must be no write."""
    first = with_transition_times([DATABASE], [], 1, "then")
    again = with_transition_times([DATABASE], first, 1, "now")
    assert again == first
    worded = with_transition_times(
        [false_condition(ConditionType.DATABASE, Reason.DATABASE_UNREACHABLE, "gone")], first, 2, "now"
    )
    assert worded[0]["lastTransitionTime"] == "then"
    mended = with_transition_times([true_condition(ConditionType.DATABASE, "up")], first, 2, "now")
    assert mended[0]["lastTransitionTime"] == "now"


def test_an_event_goes_out_once_per_change() -> None:
    """At every resync the same condition is found again; nobody wants to read it again."""
    before = with_transition_times([DATABASE, FINE], [], 1, "then")
    assert changed([DATABASE, FINE], before) == []
    assert changed([true_condition(ConditionType.DATABASE, "up"), FINE], before) == [
        true_condition(ConditionType.DATABASE, "up")
    ]
