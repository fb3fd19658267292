"""An event loop with virtual time: hours pass at once, and every run is deterministic."""

import asyncio
import functools
import selectors
from collections.abc import Callable, Coroutine
from typing import Any, ParamSpec, TypeVar

P = ParamSpec("P")
T = TypeVar("T")


class _VirtualSelector(selectors.DefaultSelector):
    """Selector that never sleeps: it adds the time to wait to the clock of the loop."""

    def __init__(self, loop: "_VirtualLoop") -> None:
        super().__init__()
        self._loop = loop

    def select(self, timeout: float | None = None) -> Any:
        ready = super().select(0)
        if not ready and timeout is None:
            raise RuntimeError("deadlock: all tasks wait and no timer is scheduled")
        if not ready and timeout:
            self._loop.now += timeout
        return ready


class _VirtualLoop(asyncio.SelectorEventLoop):
    def __init__(self) -> None:
        self.now = 1000.0
        super().__init__(_VirtualSelector(self))

    def time(self) -> float:
        return self.now


def in_virtual_time(function: Callable[P, Coroutine[Any, Any, T]]) -> Callable[P, T]:
    """Decorator: each call of the coroutine function runs to completion in its own event loop with virtual time."""

    @functools.wraps(function)
    def run(*args: P.args, **kwargs: P.kwargs) -> T:
        with asyncio.Runner(loop_factory=_VirtualLoop) as runner:
            return runner.run(function(*args, **kwargs))

    return run
