"""Responses that reconciles share for at most a second, with a virtual clock."""

import asyncio
import base64
from collections.abc import Callable, Coroutine
from typing import Any

import pytest

from mlflow_operator.framework.memory_limit import MemoryLimit
from mlflow_operator.framework.observe import Reader
from mlflow_operator.framework.shared_reads import MAX_AGE_SECONDS, SharedReads
from mlflow_operator.kube import kinds
from mlflow_operator.kube.errors import Unavailable
from mlflow_operator.status.errors import ConfigurationError
from tests.unit.fake_kubernetes import FakeKubernetesClient
from tests.unit.virtual_time import in_virtual_time


def numbered(seconds: float = 0.0) -> Callable[[], Coroutine[Any, Any, int]]:
    """A request that takes some time. Its response is the number of requests so far."""
    sent = 0

    async def read() -> int:
        nonlocal sent
        sent += 1
        number = sent
        await asyncio.sleep(seconds)
        return number

    return read


@in_virtual_time
async def test_concurrent_calls_share_one_request() -> None:
    shared, read = SharedReads(), numbered(0.5)
    assert await asyncio.gather(*(shared.get("key", read) for _ in range(3))) == [1, 1, 1]
    assert await shared.get("another", read) == 2


@pytest.mark.parametrize("seconds", [0.0, 0.9], ids=["fast", "slow"])
def test_response_is_used_until_a_second_after_its_request(seconds: float) -> None:
    """A slow response does not count from its end: it shows what was stored when it was requested."""

    @in_virtual_time
    async def check() -> None:
        shared, read = SharedReads(), numbered(seconds)
        await shared.get("key", read)
        await asyncio.sleep(MAX_AGE_SECONDS - seconds - 0.01)
        assert await shared.get("key", read) == 1
        await asyncio.sleep(0.01)
        assert await shared.get("key", read) == 2

    check()


@in_virtual_time
async def test_request_that_takes_longer_than_a_second_is_not_joined() -> None:
    shared, read = SharedReads(), numbered(3.0)
    first = asyncio.create_task(shared.get("key", read))
    await asyncio.sleep(MAX_AGE_SECONDS)
    assert (await shared.get("key", read), await first) == (2, 1)


@in_virtual_time
async def test_nothing_is_kept_for_longer() -> None:
    """It may be a password, and no reconcile may ask for it again."""
    shared = SharedReads()
    await shared.get("key", numbered())
    assert "key" in shared._started
    await asyncio.sleep(MAX_AGE_SECONDS + 0.01)
    assert shared._started == {}


@in_virtual_time
async def test_refreshed_response_replaces_the_shared_one() -> None:
    shared, read = SharedReads(), numbered()
    await shared.get("key", read)
    await asyncio.sleep(0.9)
    assert await shared.refresh("key", read) == 2
    await asyncio.sleep(0.9)
    assert await shared.get("key", read) == 2


@in_virtual_time
async def test_forgotten_response_is_requested_again() -> None:
    shared, read = SharedReads(), numbered()
    await shared.get("key", read)
    shared.forget("key")
    assert await shared.get("key", read) == 2


@in_virtual_time
async def test_error_is_not_kept() -> None:
    shared, errors = SharedReads(), [Unavailable("down")]

    async def read() -> str:
        await asyncio.sleep(0)
        if errors:
            raise errors.pop()
        return "up"

    results = await asyncio.gather(*(shared.get("key", read) for _ in range(2)), return_exceptions=True)
    assert [type(result) for result in results] == [Unavailable, Unavailable]
    assert await shared.get("key", read) == "up"


@in_virtual_time
async def test_cancelled_call_does_not_cancel_the_request_of_others() -> None:
    shared, read = SharedReads(), numbered(0.5)
    first, second = (asyncio.create_task(shared.get("key", read)) for _ in range(2))
    await asyncio.sleep(0.1)
    first.cancel()
    assert await second == 1


@in_virtual_time
async def test_shared_secrets_count_against_the_limit_of_each_reconcile() -> None:
    """Whichever of them requested the Secrets."""
    cluster, shared, memory = FakeKubernetesClient(), SharedReads(), MemoryLimit()
    for name in ("a", "b"):
        metadata = {"name": name, "namespace": "platform"}
        data = {"x": base64.b64encode(bytes(2 * 2**20)).decode()}
        cluster.put({"apiVersion": "v1", "kind": "Secret", "metadata": metadata, "data": data})
    for _ in range(2):
        async with memory.reserve("team", 0) as reservation:
            reader = Reader(cluster, "team", {}, reservation, shared)  # type: ignore[arg-type]
            await reader.values(kinds.SECRET, "a", "platform")
            with pytest.raises(ConfigurationError, match='more than 4 MiB, with Secret "b"'):
                await reader.values(kinds.SECRET, "b", "platform")
