"""The work queue: gives due keys to free workers. A key that fails or is slow does not delay other keys.

`workqueue_schedule` decides when a key is due; this module runs the tasks.
"""

import asyncio
import logging
from collections.abc import Awaitable, Callable, Hashable
from typing import Generic, TypeVar

from mlflow_operator.kube import kinds
from mlflow_operator.kube.errors import Conflict, Forbidden, NotFound, Unavailable
from mlflow_operator.runtime.workqueue_schedule import Schedule
from mlflow_operator.status.metrics import Metrics

logger = logging.getLogger(__name__)

K = TypeVar("K", bound=Hashable)

WORKERS = 8
"""Number of worker slots. Limits the memory used if many servers are due at once."""

SLOW_RECONCILE_SECONDS = 2.0
"""Seconds after which a reconcile releases its worker slot and continues without one. Most reconciles take tenths of a
second. Slower ones wait for a store that is slow or does not answer. Many servers may use this store; while they wait,
they must not occupy all worker slots."""

MAX_IN_FLIGHT = 100
"""Maximum number of running reconciles, with or without a slot. A waiting one holds only the objects it has read."""


class WorkQueue(Generic[K]):
    """Calls `handle(key)` for each due key, at most one call at a time per key.

    `handle` returns the number of seconds after which the key is due again, or None if the resync is early enough. If
    it raises, the key is requeued with exponential backoff, at least `retry_after` seconds if the exception has that
    attribute. Metrics: reconciles, their durations, errors, and the number of waiting keys.
    """

    def __init__(
        self,
        handle: Callable[[K], Awaitable[float | None]],
        metrics: Metrics,
        workers: int = WORKERS,
        schedule: Schedule[K] | None = None,
        kind: str = kinds.MLFLOWSERVER.kind,
    ) -> None:
        """`kind` is the kind of the resources in the metrics."""
        self._handle = handle
        self._metrics = metrics
        self._worker_slots = asyncio.Semaphore(workers)
        self._in_flight = asyncio.Semaphore(max(MAX_IN_FLIGHT, workers))
        self._schedule: Schedule[K] = schedule or Schedule()
        self._changed = asyncio.Event()
        self._kind = kind
        metrics.queue_depth.labels(kind=kind).set_function(self.depth)

    def add(self, key: K) -> None:
        """Make the key due now. Must be called from the thread of the event loop."""
        self.add_after(key, 0.0)

    def add_after(self, key: K, seconds: float) -> None:
        """Make the key due in `seconds`, unless it is due sooner."""
        self._schedule.add(key, _now() + seconds)
        self._changed.set()

    def forget(self, key: K) -> None:
        """Remove the key of a deleted object. It is not due until it is added again."""
        self._schedule.forget(key)

    def depth(self) -> int:
        """Number of due keys that wait for a worker."""
        return self._schedule.depth(_now())

    async def run(self) -> None:
        """Process keys until cancelled. Then cancels the running reconciles and waits for them."""
        async with asyncio.TaskGroup() as group:
            while True:
                await self._in_flight.acquire()
                await self._worker_slots.acquire()
                key = await self._next()
                group.create_task(self._process(key), name=f"reconcile {key}")

    async def _process(self, key: K) -> None:
        start = _now()
        slot = _WorkerSlot(self._worker_slots)
        slot_timer = asyncio.get_running_loop().call_later(SLOW_RECONCILE_SECONDS, slot.release)
        try:
            requeue_after = await self._handle(key)
        except asyncio.CancelledError as error:
            task = asyncio.current_task()
            if task is None or task.cancelling():
                raise
            # A task inside the reconcile was cancelled, not this one: report it and continue.
            self._failed(key, RuntimeError(f"a task inside the reconcile was cancelled: {error!r}"))
        except Exception as error:
            self._failed(key, error)
        else:
            self._schedule.done(key, _now(), requeue_after)
            self._count("done" if requeue_after is None else "waiting")
        finally:
            slot_timer.cancel()
            slot.release()
            self._in_flight.release()
        self._metrics.reconcile_duration.labels(kind=self._kind).observe(_now() - start)
        # The next due time may be earlier now than the one that `_next` waits for.
        self._changed.set()

    def _count(self, result: str) -> None:
        self._metrics.reconciles.labels(kind=self._kind, result=result).inc()

    async def _next(self) -> K:
        while True:
            # No await between `take` and `wait`: otherwise a key added in between would not wake this coroutine.
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
        min_delay = getattr(error, "retry_after", None) or 0.0
        delay = self._schedule.failed(key, _now(), min_delay)
        self._count("error")
        if isinstance(error, Conflict | Forbidden | NotFound | Unavailable):
            # Expected errors: for example, a namespace was just deleted, or the API server has not loaded all roles
            # after a restart. The message names the request and the reason.
            logger.warning("%s; retrying in %.0f s", error, delay)
            return
        self._metrics.errors.labels(where="reconcile").inc()
        logger.error("reconcile of %s failed; retrying in %.0f s", key, delay, exc_info=error)


class _WorkerSlot:
    """An acquired slot of a semaphore. Only the first call of `release` releases it."""

    def __init__(self, semaphore: asyncio.Semaphore) -> None:
        self._semaphore: asyncio.Semaphore | None = semaphore

    def release(self) -> None:
        if self._semaphore:
            self._semaphore.release()
        self._semaphore = None


def _now() -> float:
    return asyncio.get_running_loop().time()
