"""The work queue: what is due goes to the next free hand, and one key's trouble is no other's.

The rules of what is due when are `schedule`'s; here are the tasks.
"""

import asyncio
import logging
from collections.abc import Awaitable, Callable, Hashable
from typing import Generic, TypeVar

from mlflow_operator.kube.errors import Conflict, Forbidden, NotFound, Unavailable
from mlflow_operator.runtime.workqueue_schedule import Schedule
from mlflow_operator.status.metrics import Metrics

logger = logging.getLogger(__name__)

K = TypeVar("K", bound=Hashable)

WORKERS = 8
"""Reconciles that begin at a time, so that many servers at once do not take much memory each."""

RECONCILE_TIMEOUT_SECONDS = 2.0
"""Seconds after which a reconcile makes room for another one and goes on beside it. Most take tenths; one that takes
longer waits for a store that is slow or silent, and a store has many servers: their waiting must not take all hands."""

MAX_IN_FLIGHT = 100
"""Reconciles under way, however long they have been. One that waits holds little, but what it has read."""


class WorkQueue(Generic[K]):
    """Calls `handle(key)` for each key that is due, for any key one call at a time.

    `handle` returns in how many seconds it wants the key again, or None if the resync will do. What it raises
    brings the key back after a growing pause; `retry_after` of an exception is the least of it.
    Counts reconciles, their durations, errors, and the keys that wait.
    """

    def __init__(
        self,
        handle: Callable[[K], Awaitable[float | None]],
        metrics: Metrics,
        at_once: int = WORKERS,
        schedule: Schedule[K] | None = None,
    ) -> None:
        self._handle = handle
        self._metrics = metrics
        self._hands = asyncio.Semaphore(at_once)
        self._most = asyncio.Semaphore(max(MAX_IN_FLIGHT, at_once))
        self._schedule: Schedule[K] = schedule or Schedule()
        self._changed = asyncio.Event()
        metrics.queue_depth.set_function(self.depth)

    def add(self, key: K) -> None:
        """The key is due now. Call it from the event loop's thread."""
        self.add_after(key, 0.0)

    def add_after(self, key: K, seconds: float) -> None:
        """The key is due in so many seconds, unless it is due sooner."""
        self._schedule.ask(key, _now() + seconds)
        self._changed.set()

    def forget(self, key: K) -> None:
        """The key is gone; it is not due any more, until somebody adds it again."""
        self._schedule.forget(key)

    def depth(self) -> int:
        """How many keys are due and wait for a worker."""
        return self._schedule.depth(_now())

    async def run(self) -> None:
        """Work until cancelled. What is in hand is then cancelled too, and waited for."""
        async with asyncio.TaskGroup() as group:
            while True:
                await self._most.acquire()
                await self._hands.acquire()
                key = await self._next()
                group.create_task(self._work(key), name=f"reconcile {key}")

    async def _work(self, key: K) -> None:
        start = _now()
        hand = _WorkerSlot(self._hands)
        overdue = asyncio.get_running_loop().call_later(RECONCILE_TIMEOUT_SECONDS, hand.free)
        try:
            again = await self._handle(key)
        except asyncio.CancelledError as error:
            task = asyncio.current_task()
            if task is None or task.cancelling():
                raise
            # Something inside was cancelled, not we: it must not end the work without a word.
            self._failed(key, RuntimeError(f"cancelled from within: {error!r}"))
        except Exception as error:
            self._failed(key, error)
        else:
            self._schedule.done(key, _now(), again)
            self._metrics.reconciles.labels(result="done" if again is None else "waiting").inc()
        finally:
            overdue.cancel()
            hand.free()
            self._most.release()
        self._metrics.duration.observe(_now() - start)
        # Who waits for what is due next may wait for too long now.
        self._changed.set()

    async def _next(self) -> K:
        while True:
            # No await between looking and waiting, or a key added in between would wait for the next one.
            self._changed.clear()
            key = self._schedule.take(_now())
            if key is not None:
                return key
            try:
                async with asyncio.timeout_at(self._schedule.next_due()):
                    await self._changed.wait()
            except TimeoutError:
                continue

    def _failed(self, key: K, error: Exception) -> None:
        at_least = getattr(error, "retry_after", None) or 0.0
        pause = self._schedule.failed(key, _now(), at_least)
        self._metrics.reconciles.labels(result="error").inc()
        if isinstance(error, Conflict | Forbidden | NotFound | Unavailable):
            # Expected: a namespace that was just deleted, or an API server that has not read all roles after a restart.
            # The message names the request and the reason.
            logger.warning("%s; again in %.0f s", error, pause)
            return
        self._metrics.errors.labels(where="reconcile").inc()
        logger.error("reconcile of %s failed; again in %.0f s", key, pause, exc_info=error)


class _WorkerSlot:
    """One of those that `hands` counts, given back once, by whoever is the first to do so."""

    def __init__(self, hands: asyncio.Semaphore) -> None:
        self._hands: asyncio.Semaphore | None = hands

    def free(self) -> None:
        if self._hands:
            self._hands.release()
        self._hands = None


def _now() -> float:
    return asyncio.get_running_loop().time()
