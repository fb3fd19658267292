"""The work queue with its tasks, in virtual time."""

import asyncio
import logging
import random
from itertools import pairwise
from operator import itemgetter

import pytest

from mlflow_operator.kube.errors import ClusterError, Conflict, Forbidden, NotFound, Unavailable
from mlflow_operator.runtime.workqueue import MAX_IN_FLIGHT, SLOW_RECONCILE_SECONDS, WORKERS, WorkQueue
from mlflow_operator.runtime.workqueue_schedule import JITTER, RESYNC_SECONDS, Schedule
from mlflow_operator.status.metrics import Metrics
from tests.unit.virtual_time import in_virtual_time


def now() -> float:
    return asyncio.get_running_loop().time()


async def run_for(queue: WorkQueue[str], seconds: float) -> None:
    """Run the queue for `seconds`, then cancel it. Fails if the queue ends before."""
    task = asyncio.create_task(queue.run())
    done, _ = await asyncio.wait([task], timeout=seconds)
    assert not done, task.exception()
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task


@in_virtual_time
async def test_slow_key_does_not_delay_other_keys() -> None:
    started_at: dict[str, float] = {}

    async def handle(key: str) -> None:
        started_at[key] = now() - start
        await asyncio.sleep(1000 if key == "slow" else 0.1)

    queue, start = WorkQueue(handle, Metrics(), workers=2), now()
    for key in ("slow", "a", "b"):
        queue.add(key)
    await run_for(queue, 10)
    assert started_at == pytest.approx({"slow": 0, "a": 0, "b": 0.1})


@pytest.mark.parametrize("seed", range(5))
@in_virtual_time
async def test_servers_of_an_unresponsive_store_do_not_delay_other_servers(seed: int) -> None:
    """Fifty servers wait half of each minute for a database that does not answer. A healthy one waits at most 2 s.

    The jitter is seeded: without a seed, a healthy server waits longer in about one run in a hundred, because as many
    servers wait for the database as there are worker slots.
    """
    delays: list[float] = []

    async def handle(key: str) -> None:
        if key == "healthy":
            delays.append(now() - added_at)
        else:
            await asyncio.sleep(30)

    schedule: Schedule[str] = Schedule(random.Random(seed))  # noqa: S311 - not security-relevant
    queue = WorkQueue(handle, Metrics(), schedule=schedule)
    for number in range(50):
        queue.add(f"hangs {number}")
    task = asyncio.create_task(queue.run())
    await asyncio.sleep(60)
    for _ in range(100):
        added_at = now()
        queue.add("healthy")
        await asyncio.sleep(7)
    task.cancel()
    assert len(delays) >= 100
    assert max(delays) <= SLOW_RECONCILE_SECONDS


@in_virtual_time
async def test_namespace_with_many_hanging_servers_does_not_delay_other_namespaces() -> None:
    """A thousand servers whose stores never answer wait for their own turn only."""
    added_at: dict[str, float] = {}
    delays: dict[str, float] = {}

    async def handle(key: tuple[str, str]) -> None:
        if key[0] == "quiet":
            delays.setdefault(key[1], now() - added_at[key[1]])
        else:
            await asyncio.sleep(30)

    schedule: Schedule[tuple[str, str]] = Schedule(
        random.Random(0),  # noqa: S311 - not security-relevant
        group_of=itemgetter(0),
        max_taken=MAX_IN_FLIGHT,
    )
    queue = WorkQueue(handle, Metrics(), schedule=schedule)
    for number in range(1000):
        queue.add(("loud", str(number)))
    task = asyncio.create_task(queue.run())
    await asyncio.sleep(60)
    for number in range(20):
        added_at[str(number)] = now()
        queue.add(("quiet", str(number)))
        await asyncio.sleep(7)
    task.cancel()
    assert len(delays) == 20
    assert max(delays.values()) <= SLOW_RECONCILE_SECONDS


@in_virtual_time
async def test_number_of_running_reconciles_is_limited() -> None:
    """Each holds the objects it has read: a thousand would exceed the memory limit of the process."""
    running: set[int] = set()

    async def handle(key: int) -> None:
        running.add(key)
        await asyncio.sleep(1000)

    queue: WorkQueue[int] = WorkQueue(handle, Metrics())
    for number in range(10 * MAX_IN_FLIGHT):
        queue.add(number)
    task = asyncio.create_task(queue.run())
    await asyncio.sleep(SLOW_RECONCILE_SECONDS / 2)
    assert len(running) == WORKERS
    await asyncio.sleep(500)
    assert len(running) == MAX_IN_FLIGHT
    task.cancel()


@in_virtual_time
async def test_key_is_never_processed_twice_at_the_same_time() -> None:
    running: set[str] = set()
    calls = 0

    async def handle(key: str) -> float:
        nonlocal calls
        assert key not in running
        running.add(key)
        queue.add(key)
        await asyncio.sleep(0.5)
        queue.add(key)
        running.discard(key)
        calls += 1
        return 0.0

    metrics = Metrics()
    queue = WorkQueue(handle, metrics, workers=4)
    for key in "abc":
        queue.add(key)
    await run_for(queue, 10.2)
    assert calls == 60
    assert (
        metrics.registry.get_sample_value(
            "mlflow_operator_reconciles_total", {"kind": "MLflowServer", "result": "error"}
        )
        is None
    )


@in_virtual_time
async def test_idle_queue_runs_at_the_resync_only() -> None:
    times: list[float] = []

    async def handle(key: str) -> None:
        times.append(now())

    queue = WorkQueue(handle, Metrics(), workers=3)
    queue.add("a")
    await run_for(queue, 10 * RESYNC_SECONDS)
    intervals = [after - before for before, after in pairwise(times)]
    assert 8 <= len(intervals) <= 11
    assert all(
        RESYNC_SECONDS * (1 - JITTER) <= interval <= RESYNC_SECONDS * (1 + JITTER) + 0.001
        for interval in intervals
    )


@in_virtual_time
async def test_exception_in_one_reconcile_does_not_affect_other_keys(
    caplog: pytest.LogCaptureFixture,
) -> None:
    handled: list[str] = []

    async def handle(key: str) -> None:
        handled.append(key)
        if key == "bad":
            raise ZeroDivisionError("bug")

    metrics = Metrics()
    queue = WorkQueue(handle, metrics, workers=1)
    queue.add("bad")
    queue.add("good")
    await run_for(queue, 20)
    assert handled.count("good") == 1
    assert handled.count("bad") == 5  # after about 0, 1, 3, 7 and 15 seconds
    assert metrics.registry.get_sample_value("mlflow_operator_errors_total", {"where": "reconcile"}) == 5
    assert "ZeroDivisionError" in caplog.text


@in_virtual_time
async def test_unavailable_api_server_is_a_warning_and_retry_after_is_respected(
    caplog: pytest.LogCaptureFixture,
) -> None:
    times: list[float] = []

    async def handle(key: str) -> None:
        times.append(now() - start)
        raise Unavailable("get Secret a/b: 429", retry_after=7)

    queue, start = WorkQueue(handle, Metrics()), now()
    queue.add("a")
    await run_for(queue, 8)
    assert times == pytest.approx([0, 7])
    assert "Traceback" not in caplog.text
    assert [record.levelno for record in caplog.records] == [logging.WARNING] * 2


@pytest.mark.parametrize("error", [Conflict, Forbidden, NotFound, Unavailable])
@in_virtual_time
async def test_error_of_the_api_server_is_a_warning_without_a_traceback(
    caplog: pytest.LogCaptureFixture, error: type[ClusterError]
) -> None:
    """The message names the request and the reason. After a restart, the API server answers 403 for a moment."""

    async def handle(_: str) -> float:
        raise error("patch Deployment a/b: refused")

    queue = WorkQueue(handle, Metrics())
    queue.add("a")
    await run_for(queue, 1)
    assert "patch Deployment a/b: refused" in caplog.text
    assert {record.levelno for record in caplog.records} == {logging.WARNING}
    assert "Traceback" not in caplog.text


@in_virtual_time
async def test_cancellation_inside_a_reconcile_does_not_end_the_queue() -> None:
    handled: list[str] = []

    async def handle(key: str) -> None:
        handled.append(key)
        if len(handled) == 1:
            raise asyncio.CancelledError

    queue = WorkQueue(handle, Metrics(), workers=1)
    queue.add("a")
    await run_for(queue, 5)
    assert handled == ["a", "a"]


@in_virtual_time
async def test_cancelling_waits_for_running_reconciles() -> None:
    finished: list[str] = []

    async def handle(key: str) -> None:
        try:
            await asyncio.sleep(100)
        finally:
            await asyncio.sleep(1)
            finished.append(key)

    queue = WorkQueue(handle, Metrics())
    queue.add("a")
    queue.add("b")
    await run_for(queue, 5)
    assert sorted(finished) == ["a", "b"]


@in_virtual_time
async def test_earlier_due_time_wakes_a_queue_that_waits_for_a_later_one() -> None:
    handled: list[tuple[str, float]] = []

    async def handle(key: str) -> None:
        handled.append((key, now() - start))

    queue, start = WorkQueue(handle, Metrics(), workers=1), now()
    queue.add_after("late", 50)
    asyncio.get_running_loop().call_later(3, queue.add_after, "soon", 2)
    await run_for(queue, 51)
    assert [key for key, _ in handled] == ["soon", "late"]
    assert [at for _, at in handled] == pytest.approx([5, 50])


@in_virtual_time
async def test_depth_counts_due_keys_that_wait() -> None:
    async def handle(key: str) -> None:
        await asyncio.sleep(100)

    metrics = Metrics()
    queue = WorkQueue(handle, metrics, workers=1)
    for key in "abc":
        queue.add(key)
    queue.add_after("later", 1000)
    task = asyncio.create_task(queue.run())
    await asyncio.sleep(1)
    assert metrics.registry.get_sample_value("mlflow_operator_queue_depth", {"kind": "MLflowServer"}) == 2
    task.cancel()


@in_virtual_time
async def test_forgotten_key_is_not_handled() -> None:
    handled: list[str] = []

    async def handle(key: str) -> None:
        handled.append(key)
        queue.forget(key)

    queue = WorkQueue(handle, Metrics())
    queue.add("a")
    queue.add("b")
    queue.forget("b")
    await run_for(queue, 500)
    assert handled == ["a"]
