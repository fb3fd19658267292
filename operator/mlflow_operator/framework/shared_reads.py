"""Responses of the API server that concurrent reconciles share: when many servers are created at once, all of them read
the same platform.

Nothing is kept longer than MAX_AGE_SECONDS, so that a shared response is as old as that of a reconcile that took a
second longer. Only for what a reconcile may see that late: no decision that is final, and no deletion.
"""

import asyncio
from collections.abc import Callable, Coroutine, Hashable
from typing import Any, TypeVar

T = TypeVar("T")

MAX_AGE_SECONDS = 1.0
"""Time since the request, not since the response: what was stored before is in no response that is used later."""


class SharedReads:
    """Responses by a key that stands for the request. The callers must not change them."""

    def __init__(self) -> None:
        self._started: dict[Hashable, tuple[float, asyncio.Task[Any]]] = {}

    async def get(self, key: Hashable, read: Callable[[], Coroutine[Any, Any, T]]) -> T:
        """Return the response to a request of the last second, or else that of `read`.

        The request may still be running. Raises its error, which is not kept for later calls.
        """
        started = self._started.get(key)
        if started is None or _now() - started[0] >= MAX_AGE_SECONDS:
            return await self.refresh(key, read)
        response: T = await asyncio.shield(started[1])
        return response

    async def refresh(self, key: Hashable, read: Callable[[], Coroutine[Any, Any, T]]) -> T:
        """Return the response of `read`, and let others use it."""
        # A task: if the caller is cancelled, others may wait for the response.
        task = asyncio.create_task(read(), name=f"read {key}")
        self._started[key] = _now(), task

        def forget() -> None:
            if self._started.get(key, (0.0, None))[1] is task:
                self.forget(key)

        task.add_done_callback(lambda _: forget() if task.cancelled() or task.exception() else None)
        # Also if it is not requested again: it may contain credentials.
        asyncio.get_running_loop().call_later(MAX_AGE_SECONDS, forget)
        return await asyncio.shield(task)

    def forget(self, key: Hashable) -> None:
        """Do not use the response any more, because it has certainly changed."""
        self._started.pop(key, None)


def _now() -> float:
    return asyncio.get_running_loop().time()
