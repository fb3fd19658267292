"""The annotation that rolls pods: changes with every value, gives none away."""

import hashlib

from mlflow_operator.model.rollout import fingerprint

VALUES = {"Secret/a": {"password": "hunter2"}, "ConfigMap/b": None}


def test_any_change_of_a_value_changes_it() -> None:
    """A changed, added, removed or vanished value rolls the pods."""
    seen = {
        fingerprint(values, b"k")
        for values in (
            VALUES,
            {**VALUES, "Secret/a": {"password": "hunter3"}},
            {**VALUES, "Secret/a": {"password": "hunter2", "more": ""}},
            {**VALUES, "Secret/a": None},
            {**VALUES, "ConfigMap/b": {}},
        )
    }
    assert len(seen) == 5


def test_the_order_of_reading_does_not_matter() -> None:
    """Otherwise pods would roll at random."""
    assert fingerprint(dict(reversed(VALUES.items())), b"k") == fingerprint(VALUES, b"k")


def test_without_the_key_nobody_can_try_passwords_against_it() -> None:
    """Annotations are read by many; the key is not."""
    assert fingerprint(VALUES, b"k") != fingerprint(VALUES, b"l")
    assert fingerprint(VALUES, b"k") not in hashlib.sha256(str(VALUES).encode()).hexdigest()
