"""The stages of a rotation, and the contents of the Secret in each."""

import pytest

from mlflow_operator.components.rotation import state
from mlflow_operator.components.rotation.state import CredentialKeys, Stage

KEYS = CredentialKeys(
    "username", "password", lambda values: {"uri": f"{values['username']}:{values['password']}@"}
)
NOW = "2026-01-02T00:00:00Z"
VALUES = {"username": "one", "password": "1", "uri": "one:1@", "host": "there"}


@pytest.mark.parametrize(
    ("values", "created_at", "requested_at", "expected"),
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
        "no request",
        "requested after creation",
        "created after the requested time",
        "completed",
        "later value",
        "earlier time in another time zone",
        "earlier value",
        "requested for a future time",
    ],
)
def test_rotation_is_due(
    values: dict[str, str], created_at: str | None, requested_at: str | None, expected: bool
) -> None:
    """A later value requests a rotation once its time has passed."""
    assert state.is_due(values, created_at, requested_at, NOW) is expected


def test_complete_rotation() -> None:
    """Every stage leads to the next. In each, the current credential and its derived values are present."""
    assert state.stage(VALUES, KEYS, True) is Stage.BEGIN
    with_next = state.add_next(VALUES, KEYS, "two", "2", NOW)
    assert with_next.items() >= VALUES.items()
    assert state.stage(with_next, KEYS, False) is Stage.GRANT
    switched = state.switch_to_next(with_next, KEYS)
    assert switched == {
        "username": "two",
        "password": "2",
        "uri": "two:2@",
        "host": "there",
        "previousUsername": "one",
        "rotatedAt": NOW,
    }
    assert state.stage(switched, KEYS, True) is Stage.REVOKE, "a rotation ends before the next begins"
    completed = state.remove_previous(switched, KEYS)
    assert "previousUsername" not in completed
    assert state.stage(completed, KEYS, False) is Stage.IDLE


def test_incomplete_next_credential_is_ignored() -> None:
    """If a key of the next credential was deleted from the Secret, the rotation begins again."""
    with_next = state.add_next(VALUES, KEYS, "two", "2", NOW)
    del with_next["nextPassword"]
    assert state.stage(with_next, KEYS, True) is Stage.BEGIN


def test_next_name_alternates() -> None:
    """The password of the current username never changes."""
    names = ("a", "b")
    assert [state.next_name(current, names) for current in ("owner", "a", "b")] == ["a", "b", "a"]
