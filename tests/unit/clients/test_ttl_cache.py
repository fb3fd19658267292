"""What costs memory goes once nobody asks for it, and what is asked for stays."""

from itertools import count

import pytest

from mlflow_operator.clients.ttl_cache import TTLCache


class World:
    """Things that are numbered as they are made, and a clock."""

    def __init__(self, most: int, seconds: float) -> None:
        self.now = 0.0
        self._numbers = count()
        self._kept: TTLCache[str, int] = TTLCache(most, seconds, lambda: self.now)

    def ask(self, key: str) -> int:
        return self._kept.get(key, lambda: next(self._numbers))


def test_what_is_asked_for_is_made_once() -> None:
    world = World(10, 300)
    assert [world.ask("a"), world.ask("b"), world.ask("a")] == [0, 1, 0]


def test_what_nobody_asks_for_goes_and_what_is_asked_for_stays() -> None:
    world = World(10, 300)
    world.ask("unused")
    for world.now in range(0, 1200, 60):
        assert world.ask("used") == 1
    assert world.ask("unused") == 2


def test_nothing_goes_too_early() -> None:
    world = World(10, 300)
    world.ask("a")
    world.now = 300
    world.ask("b")
    assert world.ask("a") == 0


def test_of_too_many_the_one_goes_that_was_asked_for_the_longest_ago() -> None:
    world = World(2, 300)
    assert [world.ask(key) for key in ("a", "b", "a", "c")] == [0, 1, 0, 2]
    assert world.ask("a") == 0
    assert world.ask("b") == 3


def test_what_cannot_be_made_is_tried_anew() -> None:
    kept: TTLCache[str, int] = TTLCache(2, 300)

    def fails() -> int:
        raise OSError("no")

    for _ in range(2):
        with pytest.raises(OSError, match="no"):
            kept.get("a", fails)
    assert kept.get("a", lambda: 7) == 7
