"""The digest in the annotation that restarts pods: it depends on all values and reveals none."""

import hashlib

from mlflow_operator.model.rollout import fingerprint

VALUES = {"Secret/a": {"password": "hunter2"}, "ConfigMap/b": None}


def test_every_change_of_a_value_changes_the_fingerprint() -> None:
    """Changed, added and removed values, and removed objects."""
    fingerprints = {
        fingerprint(values, b"k")
        for values in (
            VALUES,
            {**VALUES, "Secret/a": {"password": "hunter3"}},
            {**VALUES, "Secret/a": {"password": "hunter2", "more": ""}},
            {**VALUES, "Secret/a": None},
            {**VALUES, "ConfigMap/b": {}},
        )
    }
    assert len(fingerprints) == 5


def test_the_fingerprint_does_not_depend_on_the_order() -> None:
    """Otherwise pods would restart at random."""
    assert fingerprint(dict(reversed(VALUES.items())), b"k") == fingerprint(VALUES, b"k")


def test_the_fingerprint_depends_on_a_secret_key() -> None:
    """Many users can read annotations; without the key they cannot guess passwords offline."""
    assert fingerprint(VALUES, b"k") != fingerprint(VALUES, b"l")
    assert fingerprint(VALUES, b"k") not in hashlib.sha256(str(VALUES).encode()).hexdigest()
