"""Limit for the size of the objects that all reconciles together keep in memory.

A reconcile keeps the objects of its server until it ends, and one whose stores do not answer takes long. Everyone who
may create objects chooses their size. Namespaces have a limit, too, so that none uses up the limit of all.
"""

import asyncio
from collections import Counter, deque
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass

_MAX_BYTES = 120 * 1024 * 1024
"""For all reconciles. The operator has 256 MiB, and needs 90 MiB without them."""

_MAX_NAMESPACE_BYTES = _MAX_BYTES // 2


@dataclass(frozen=True, eq=False)
class _Waiter:
    namespace: str
    size: int
    granted: asyncio.Future[None]


class MemoryLimit:
    """Grants reservations in the order of the requests; only those of a namespace at its limit are skipped."""

    def __init__(self, max_bytes: int = _MAX_BYTES, max_namespace_bytes: int = _MAX_NAMESPACE_BYTES) -> None:
        self._max_bytes, self._max_namespace_bytes = max_bytes, max_namespace_bytes
        self._used: Counter[str] = Counter()
        self._waiters: deque[_Waiter] = deque()

    @asynccontextmanager
    async def reserve(self, namespace: str, size: int) -> AsyncIterator["Reservation"]:
        """Wait until `size` bytes are free. They are free again at the end of the context.

        A reconcile must have only one reservation: two that wait for each other would never end.
        """
        reservation = Reservation(self, namespace)
        await reservation.exchange(size)
        try:
            yield reservation
        finally:
            reservation.shrink(0)

    async def acquire(self, namespace: str, size: int) -> None:
        """Wait until `size` bytes are free, and take them."""
        waiter = _Waiter(namespace, size, asyncio.get_running_loop().create_future())
        self._waiters.append(waiter)
        self._grant()
        try:
            await waiter.granted
        except BaseException:
            if waiter in self._waiters:
                self._waiters.remove(waiter)
                self._grant()
            else:
                self.release(namespace, size)
            raise

    def try_acquire(self, namespace: str, size: int) -> bool:
        """Take `size` bytes if they are free now."""
        is_free = self._fits_namespace(namespace, size) and self._used.total() + size <= self._max_bytes
        if is_free:
            self._used[namespace] += size
        return is_free

    def release(self, namespace: str, size: int) -> None:
        """Free `size` bytes."""
        self._used[namespace] -= size
        if not self._used[namespace]:
            del self._used[namespace]
        self._grant()

    def _fits_namespace(self, namespace: str, size: int) -> bool:
        return self._used[namespace] + size <= self._max_namespace_bytes

    def _grant(self) -> None:
        for waiter in list(self._waiters):
            if not self._fits_namespace(waiter.namespace, waiter.size):
                continue
            if self._used.total() + waiter.size > self._max_bytes:
                # Later requests wait, too. Otherwise smaller ones could keep this one waiting for ever.
                return
            self._waiters.remove(waiter)
            self._used[waiter.namespace] += waiter.size
            if not waiter.granted.done():
                waiter.granted.set_result(None)


class Reservation:
    """Bytes that one reconcile may keep in memory."""

    def __init__(self, limit: MemoryLimit, namespace: str) -> None:
        self._limit, self._namespace, self._size = limit, namespace, 0

    async def exchange(self, size: int) -> None:
        """Free the reserved bytes, and wait until `size` bytes are free. The caller must keep nothing meanwhile."""
        self.shrink(0)
        await self._limit.acquire(self._namespace, size)
        self._size = size

    def grow(self, size: int) -> bool:
        """Reserve `size` more bytes if they are free now. It cannot wait: others may wait for what this one keeps."""
        is_granted = self._limit.try_acquire(self._namespace, size)
        if is_granted:
            self._size += size
        return is_granted

    def shrink(self, size: int) -> None:
        """Free what exceeds `size` bytes."""
        freed = self._size - min(size, self._size)
        if freed:
            self._size -= freed
            self._limit.release(self._namespace, freed)
