"""The cache keeps entries that are in use, and removes the others."""

from itertools import count

import pytest

from mlflow_operator.clients.ttl_cache import TTLCache


class NumberedEntries:
    """A cache with a fake clock whose entries are numbers in the order of their creation."""

    def __init__(self, max_entries: int, ttl_seconds: float) -> None:
        self.now = 0.0
        self._numbers = count()
        self._cache: TTLCache[str, int] = TTLCache(max_entries, ttl_seconds, lambda: self.now)

    def get(self, key: str) -> int:
        return self._cache.get_or_create(key, lambda: next(self._numbers))


def test_entry_is_created_once() -> None:
    entries = NumberedEntries(10, 300)
    assert [entries.get("a"), entries.get("b"), entries.get("a")] == [0, 1, 0]


def test_unused_entry_expires_and_used_entry_stays() -> None:
    entries = NumberedEntries(10, 300)
    entries.get("unused")
    for entries.now in range(0, 1200, 60):
        assert entries.get("used") == 1
    assert entries.get("unused") == 2


def test_entry_stays_until_ttl_is_exceeded() -> None:
    entries = NumberedEntries(10, 300)
    entries.get("a")
    entries.now = 300
    entries.get("b")
    assert entries.get("a") == 0


def test_least_recently_used_entry_is_evicted() -> None:
    entries = NumberedEntries(2, 300)
    assert [entries.get(key) for key in ("a", "b", "a", "c")] == [0, 1, 0, 2]
    assert entries.get("a") == 0
    assert entries.get("b") == 3


def test_failed_creation_is_retried() -> None:
    cache: TTLCache[str, int] = TTLCache(2, 300)

    def fail() -> int:
        raise OSError("no")

    for _ in range(2):
        with pytest.raises(OSError, match="no"):
            cache.get_or_create("a", fail)
    assert cache.get_or_create("a", lambda: 7) == 7
