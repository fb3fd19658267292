"""Changed conditions are reported once, and Ready summarizes all conditions."""

from mlflow_operator.api.status import ConditionStatus
from mlflow_operator.status.conditions import (
    MAX_MESSAGE_CHARS,
    Condition,
    ConditionType,
    Reason,
    changed_conditions,
    false_condition,
    ready_condition,
    true_condition,
    with_transition_times,
)

DATABASE = false_condition(ConditionType.DATABASE, Reason.DATABASE_UNREACHABLE, "down")
WAITING = Condition(ConditionType.SCHEMA, ConditionStatus.UNKNOWN, Reason.WAITING_FOR_DEPENDENCY, "waits")
STARTING = false_condition(ConditionType.SERVER, Reason.PROGRESSING, "starting")
READY = true_condition(ConditionType.CREDENTIALS, "there")


def test_ready_is_true_only_if_all_conditions_are() -> None:
    """Users wait for it with `kubectl wait`."""
    assert ready_condition([READY]).is_true
    assert not ready_condition([READY, STARTING]).is_true


def test_ready_takes_over_the_cause_before_waiting_conditions() -> None:
    """ "The database is down" helps the user; "waiting for the database" does not."""
    assert ready_condition([WAITING, STARTING, DATABASE]).message == "down"
    assert ready_condition([WAITING, STARTING]).message == "starting"


def test_transition_time_changes_only_with_status() -> None:
    """A new message is no transition, and an unchanged condition must not cause a write."""
    first = with_transition_times([DATABASE], [], 1, "then")
    again = with_transition_times([DATABASE], first, 1, "now")
    assert again == first
    new_message = with_transition_times(
        [false_condition(ConditionType.DATABASE, Reason.DATABASE_UNREACHABLE, "gone")], first, 2, "now"
    )
    assert new_message[0]["lastTransitionTime"] == "then"
    fixed = with_transition_times([true_condition(ConditionType.DATABASE, "up")], first, 2, "now")
    assert fixed[0]["lastTransitionTime"] == "now"


def test_changed_conditions_are_reported_once() -> None:
    """Every resync computes the same conditions again, which must not cause new Events."""
    previous = with_transition_times([DATABASE, READY], [], 1, "then")
    assert changed_conditions([DATABASE, READY], previous) == []
    assert changed_conditions([true_condition(ConditionType.DATABASE, "up"), READY], previous) == [
        true_condition(ConditionType.DATABASE, "up")
    ]


def test_long_message_is_truncated() -> None:
    """The API server rejects a longer one, and the status could not be written any more. It is no change each time."""
    condition = false_condition(ConditionType.DATABASE, Reason.DATABASE_UNREACHABLE, "x" * 100_000)
    (published,) = with_transition_times([condition], [], 1, "2026-01-01T00:00:00Z")
    assert len(published["message"]) == MAX_MESSAGE_CHARS
    assert published["message"].endswith("x [truncated]")
    assert not changed_conditions([condition], [published])
