"""The stages of a rotation, and what a Secret says in each."""

import pytest

from mlflow_operator.components.rotation import state as rotation
from mlflow_operator.components.rotation.state import CredentialKeys, Stage

PAIR = CredentialKeys(
    "username", "password", lambda values: {"uri": f"{values['username']}:{values['password']}@"}
)
NOW = "2026-01-02T00:00:00Z"
FIRST = {"username": "one", "password": "1", "uri": "one:1@", "host": "there"}


@pytest.mark.parametrize(
    ("values", "made", "wanted", "expected"),
    [
        ({}, None, None, False),
        ({}, "2026-01-01T00:00:00Z", "2026-01-01T12:00:00Z", True),
        ({}, "2026-01-01T12:00:00Z", "2026-01-01T00:00:00Z", False),
        ({"rotatedAt": "2026-01-01T00:00:00Z"}, None, "2026-01-01T00:00:00Z", False),
        ({"rotatedAt": "2026-01-01T00:00:00Z"}, None, "2026-01-01T00:00:01Z", True),
        ({"rotatedAt": "2026-01-01T00:00:00Z"}, None, "2026-01-01T01:00:00+02:00", False),
        ({"rotatedAt": "2026-01-01T00:00:00Z"}, "2025-01-01T00:00:00Z", "2025-06-01T00:00:00Z", False),
        ({}, None, "2026-01-02T00:00:01Z", False),
    ],
    ids=[
        "nobody asks",
        "asked for after it was made",
        "made after that time",
        "carried out",
        "a later value",
        "an earlier moment in another zone",
        "an earlier value",
        "its time has not come",
    ],
)
def test_when_new_ones_are_due(
    values: dict[str, str], made: str | None, wanted: str | None, expected: bool
) -> None:
    """A later value asks for it, once its time has come."""
    assert rotation.due(values, made, wanted, NOW) is expected


def test_a_whole_rotation() -> None:
    """Every stage leads to the next; in each, the one in use is there with all that is spelled from it."""
    assert rotation.stage(FIRST, PAIR, True) is Stage.BEGIN
    begun = rotation.begun(FIRST, PAIR, "two", "2", NOW)
    assert begun.items() >= FIRST.items()
    assert rotation.stage(begun, PAIR, False) is Stage.GRANT
    switched = rotation.switched(begun, PAIR)
    assert switched == {
        "username": "two",
        "password": "2",
        "uri": "two:2@",
        "host": "there",
        "previousUsername": "one",
        "rotatedAt": NOW,
    }
    assert rotation.stage(switched, PAIR, True) is Stage.REVOKE, "one ends before the next begins"
    ended = rotation.ended(switched, PAIR)
    assert "previousUsername" not in ended
    assert rotation.stage(ended, PAIR, False) is Stage.IDLE


def test_half_a_note_is_no_note() -> None:
    """A key of the Secret that somebody took away: it begins anew."""
    begun = rotation.begun(FIRST, PAIR, "two", "2", NOW)
    del begun["nextPassword"]
    assert rotation.stage(begun, PAIR, True) is Stage.BEGIN


def test_names_take_turns() -> None:
    """Whoever is in use is never the one whose password changes."""
    names = ("a", "b")
    assert [rotation.other(current, names) for current in ("owner", "a", "b")] == ["a", "b", "a"]
