"""The queue at work, in virtual time."""

import asyncio
import logging
import random
from collections.abc import Awaitable, Callable
from itertools import pairwise

import pytest

from mlflow_operator.kube.errors import ClusterError, Conflict, Forbidden, NotFound, Unavailable
from mlflow_operator.runtime.workqueue import MAX_IN_FLIGHT, RECONCILE_TIMEOUT_SECONDS, WORKERS, WorkQueue
from mlflow_operator.runtime.workqueue_schedule import JITTER, RESYNC_SECONDS, Schedule
from mlflow_operator.status.metrics import Metrics

Run = Callable[[Awaitable[None]], None]


def now() -> float:
    return asyncio.get_running_loop().time()


async def for_(queue: WorkQueue[str], seconds: float) -> None:
    """Let the queue work for so long, then cancel it; what it raises is raised."""
    task = asyncio.create_task(queue.run())
    done, _ = await asyncio.wait([task], timeout=seconds)
    assert not done, task.exception()
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task


def test_a_slow_key_holds_up_no_other(virtual: Run) -> None:
    async def story() -> None:
        seen: dict[str, float] = {}

        async def handle(key: str) -> None:
            seen[key] = now() - start
            await asyncio.sleep(1000 if key == "slow" else 0.1)

        queue, start = WorkQueue(handle, Metrics(), at_once=2), now()
        for key in ("slow", "a", "b"):
            queue.add(key)
        await for_(queue, 10)
        assert seen == pytest.approx({"slow": 0, "a": 0, "b": 0.1})

    virtual(story())


@pytest.mark.parametrize("seed", range(5))
def test_servers_of_a_silent_store_hold_up_no_other(virtual: Run, seed: int) -> None:
    """Fifty servers hang for half of each minute, on a database that does not answer. The next one hardly waits.

    The jitter is seeded: without a seed one run in some hundred waits longer, when as many hang as there are hands.
    """

    async def story() -> None:
        seen: list[float] = []

        async def handle(key: str) -> None:
            if key == "healthy":
                seen.append(now() - asked)
            else:
                await asyncio.sleep(30)

        schedule: Schedule[str] = Schedule(random.Random(seed))  # noqa: S311 - jitter needs no secrecy
        queue = WorkQueue(handle, Metrics(), schedule=schedule)
        for number in range(50):
            queue.add(f"hangs {number}")
        task = asyncio.create_task(queue.run())
        await asyncio.sleep(60)
        for _ in range(100):
            asked = now()
            queue.add("healthy")
            await asyncio.sleep(7)
        task.cancel()
        assert len(seen) >= 100
        assert max(seen) <= RECONCILE_TIMEOUT_SECONDS

    virtual(story())


def test_what_takes_long_is_bounded_in_number(virtual: Run) -> None:
    """Each holds what it has read: a thousand that hang would be more than the process may take."""

    async def story() -> None:
        inside: set[int] = set()

        async def handle(key: int) -> None:
            inside.add(key)
            await asyncio.sleep(1000)

        queue: WorkQueue[int] = WorkQueue(handle, Metrics())
        for number in range(10 * MAX_IN_FLIGHT):
            queue.add(number)
        task = asyncio.create_task(queue.run())
        await asyncio.sleep(RECONCILE_TIMEOUT_SECONDS / 2)
        assert len(inside) == WORKERS
        await asyncio.sleep(500)
        assert len(inside) == MAX_IN_FLIGHT
        task.cancel()

    virtual(story())


def test_no_key_is_ever_in_two_hands(virtual: Run) -> None:
    async def story() -> None:
        inside: set[str] = set()
        rounds = 0

        async def handle(key: str) -> float:
            nonlocal rounds
            assert key not in inside
            inside.add(key)
            queue.add(key)
            await asyncio.sleep(0.5)
            queue.add(key)
            inside.discard(key)
            rounds += 1
            return 0.0

        metrics = Metrics()
        queue = WorkQueue(handle, metrics, at_once=4)
        for key in "abc":
            queue.add(key)
        await for_(queue, 10.2)
        assert rounds == 60
        assert (
            metrics.registry.get_sample_value("mlflow_operator_reconciles_total", {"result": "error"}) is None
        )

    virtual(story())


def test_an_idle_queue_wakes_for_the_resync_alone(virtual: Run) -> None:
    async def story() -> None:
        times: list[float] = []

        async def handle(key: str) -> None:
            times.append(now())

        queue = WorkQueue(handle, Metrics(), at_once=3)
        queue.add("a")
        await for_(queue, 10 * RESYNC_SECONDS)
        steps = [later - sooner for sooner, later in pairwise(times)]
        assert 8 <= len(steps) <= 11
        assert all(
            RESYNC_SECONDS * (1 - JITTER) <= step <= RESYNC_SECONDS * (1 + JITTER) + 0.001 for step in steps
        )

    virtual(story())


def test_a_bug_in_one_reconcile_kills_nobody(virtual: Run, caplog: pytest.LogCaptureFixture) -> None:
    async def story() -> None:
        seen: list[str] = []

        async def handle(key: str) -> None:
            seen.append(key)
            if key == "bad":
                raise ZeroDivisionError("oh")

        metrics = Metrics()
        queue = WorkQueue(handle, metrics, at_once=1)
        queue.add("bad")
        queue.add("good")
        await for_(queue, 20)
        assert seen.count("good") == 1
        assert seen.count("bad") == 5  # after 0, 1, 3, 7 and 15 seconds, more or less
        assert metrics.registry.get_sample_value("mlflow_operator_errors_total", {"where": "reconcile"}) == 5

    virtual(story())
    assert "ZeroDivisionError" in caplog.text


def test_an_api_server_away_is_no_bug_and_gets_its_time(
    virtual: Run, caplog: pytest.LogCaptureFixture
) -> None:
    async def story() -> None:
        times: list[float] = []

        async def handle(key: str) -> None:
            times.append(now() - start)
            raise Unavailable("get Secret a/b: 429", retry_after=7)

        queue, start = WorkQueue(handle, Metrics()), now()
        queue.add("a")
        await for_(queue, 8)
        assert times == pytest.approx([0, 7])

    virtual(story())
    assert "Traceback" not in caplog.text
    assert [record.levelno for record in caplog.records] == [logging.WARNING] * 2


@pytest.mark.parametrize("error", [Conflict, Forbidden, NotFound, Unavailable])
def test_error_of_the_api_server_is_a_warning_without_a_traceback(
    virtual: Run, caplog: pytest.LogCaptureFixture, error: type[ClusterError]
) -> None:
    """The message names the request and the reason. After a restart the API server answers 403 for a moment."""

    async def story() -> None:
        async def handle(_: str) -> float:
            raise error("patch Deployment a/b: refused")

        queue = WorkQueue(handle, Metrics())
        queue.add("a")
        await for_(queue, 1)

    virtual(story())
    assert "patch Deployment a/b: refused" in caplog.text
    assert {record.levelno for record in caplog.records} == {logging.WARNING}
    assert "Traceback" not in caplog.text


def test_something_cancelled_inside_does_not_end_the_worker(virtual: Run) -> None:
    async def story() -> None:
        seen: list[str] = []

        async def handle(key: str) -> None:
            seen.append(key)
            if len(seen) == 1:
                raise asyncio.CancelledError

        queue = WorkQueue(handle, Metrics(), at_once=1)
        queue.add("a")
        await for_(queue, 5)
        assert seen == ["a", "a"]

    virtual(story())


def test_cancelling_waits_for_what_is_in_hand(virtual: Run) -> None:
    async def story() -> None:
        left: list[str] = []

        async def handle(key: str) -> None:
            try:
                await asyncio.sleep(100)
            finally:
                await asyncio.sleep(1)
                left.append(key)

        queue = WorkQueue(handle, Metrics())
        queue.add("a")
        queue.add("b")
        await for_(queue, 5)
        assert sorted(left) == ["a", "b"]

    virtual(story())


def test_an_earlier_wish_wakes_a_worker_that_sleeps_for_a_later_one(virtual: Run) -> None:
    async def story() -> None:
        seen: list[tuple[str, float]] = []

        async def handle(key: str) -> None:
            seen.append((key, now() - start))

        queue, start = WorkQueue(handle, Metrics(), at_once=1), now()
        queue.add_after("late", 50)
        asyncio.get_running_loop().call_later(3, queue.add_after, "soon", 2)
        await for_(queue, 51)
        assert [key for key, _ in seen] == ["soon", "late"]
        assert [at for _, at in seen] == pytest.approx([5, 50])

    virtual(story())


def test_depth_counts_who_is_due_and_waits(virtual: Run) -> None:
    async def story() -> None:
        async def handle(key: str) -> None:
            await asyncio.sleep(100)

        metrics = Metrics()
        queue = WorkQueue(handle, metrics, at_once=1)
        for key in "abc":
            queue.add(key)
        queue.add_after("later", 1000)
        task = asyncio.create_task(queue.run())
        await asyncio.sleep(1)
        assert metrics.registry.get_sample_value("mlflow_operator_queue_depth") == 2
        task.cancel()

    virtual(story())


def test_a_forgotten_key_is_not_handled(virtual: Run) -> None:
    async def story() -> None:
        seen: list[str] = []

        async def handle(key: str) -> None:
            seen.append(key)
            queue.forget(key)

        queue = WorkQueue(handle, Metrics())
        queue.add("a")
        queue.add("b")
        queue.forget("b")
        await for_(queue, 500)
        assert seen == ["a"]

    virtual(story())
