"""Reservations of memory: limited in total and for each namespace, in the order of the requests."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack

import pytest

from mlflow_operator.framework.memory_limit import MemoryLimit, Reservation


@pytest.fixture
async def stack() -> AsyncIterator[AsyncExitStack]:
    """Ends reservations."""
    async with AsyncExitStack() as stack:
        yield stack


@pytest.fixture
def limit() -> MemoryLimit:
    """100 bytes in total, 60 for a namespace."""
    return MemoryLimit(100, 60)


async def reserve(limit: MemoryLimit, stack: AsyncExitStack, namespace: str, size: int) -> Reservation:
    """Reserve until the end of the test."""
    return await stack.enter_async_context(limit.reserve(namespace, size))


async def request(
    limit: MemoryLimit, stack: AsyncExitStack, namespace: str, size: int
) -> asyncio.Task[Reservation]:
    """Request a reservation, without waiting for it."""
    task = asyncio.create_task(reserve(limit, stack, namespace, size))
    await asyncio.sleep(0)
    await asyncio.sleep(0)
    return task


async def test_namespace_at_its_limit_does_not_delay_others(
    limit: MemoryLimit, stack: AsyncExitStack
) -> None:
    first = await reserve(limit, stack, "a", 60)
    waiting = await request(limit, stack, "a", 1)
    await reserve(limit, stack, "b", 40)
    assert not waiting.done()
    first.shrink(30)
    await waiting


async def test_reservation_grows_only_if_memory_is_free(limit: MemoryLimit, stack: AsyncExitStack) -> None:
    """It does not wait: two that grow would wait for each other."""
    first, second = await reserve(limit, stack, "a", 30), await reserve(limit, stack, "b", 30)
    assert first.grow(30)
    assert not first.grow(1)  # the limit of the namespace
    assert not second.grow(11)  # the limit of all
    first.shrink(50)
    assert second.grow(20)


async def test_large_request_is_not_overtaken_for_ever(limit: MemoryLimit, stack: AsyncExitStack) -> None:
    """Smaller requests of other namespaces wait behind it."""
    first, second = await reserve(limit, stack, "a", 60), await reserve(limit, stack, "b", 30)
    large, small = await request(limit, stack, "c", 60), await request(limit, stack, "d", 5)
    assert not small.done()
    second.shrink(0)
    await asyncio.sleep(0)
    assert (large.done(), small.done()) == (False, False)
    first.shrink(20)
    await asyncio.gather(large, small)


async def test_exchange_waits_without_the_first_reservation(
    limit: MemoryLimit, stack: AsyncExitStack
) -> None:
    """Otherwise, two that need more would wait for each other."""
    both = [await reserve(limit, stack, namespace, 50) for namespace in ("a", "b")]
    exchanges = [asyncio.create_task(reservation.exchange(60)) for reservation in both]
    done, _ = await asyncio.wait(exchanges, return_when=asyncio.FIRST_COMPLETED)
    assert done == {exchanges[0]}
    both[0].shrink(0)
    await exchanges[1]


async def test_cancelled_request_takes_nothing(limit: MemoryLimit, stack: AsyncExitStack) -> None:
    """Neither while it waits, nor if it is granted at the same time."""
    first = await reserve(limit, stack, "a", 60)
    waiting, granted = await request(limit, stack, "b", 60), await request(limit, stack, "b", 60)
    waiting.cancel()
    await asyncio.gather(waiting, return_exceptions=True)
    first.shrink(0)
    granted.cancel()
    await asyncio.gather(granted, return_exceptions=True)
    await reserve(limit, stack, "a", 60)
    await reserve(limit, stack, "b", 40)


async def test_failed_reconcile_frees_its_memory(limit: MemoryLimit, stack: AsyncExitStack) -> None:
    with pytest.raises(RuntimeError):
        async with limit.reserve("a", 60):
            raise RuntimeError
    await reserve(limit, stack, "a", 60)
