"""The kubelet and Prometheus get true answers."""

import asyncio

import aiohttp

from mlflow_operator.runtime.health import Check, EventLoopWatchdog, app, serving
from mlflow_operator.status.metrics import Metrics


def fine() -> None:
    return None


async def fetch(
    path: str, alive: Check = fine, ready: Check = fine, metrics: Metrics | None = None
) -> tuple[int, str]:
    async with (
        serving(app(metrics or Metrics(), alive, ready), 0, "127.0.0.1") as port,
        aiohttp.ClientSession() as session,
        session.get(f"http://127.0.0.1:{port}{path}") as answer,
    ):
        return answer.status, await answer.text()


async def test_all_well() -> None:
    assert await fetch("/healthz") == (200, "ok\n")
    assert await fetch("/readyz") == (200, "ok\n")


async def test_what_is_wrong_is_said_and_only_there() -> None:
    assert await fetch("/healthz", alive=lambda: "the watch ended") == (503, "the watch ended\n")
    assert await fetch("/readyz", alive=lambda: "the watch ended") == (200, "ok\n")
    assert await fetch("/readyz", ready=lambda: "not connected yet") == (503, "not connected yet\n")


async def test_metrics_are_in_the_format_prometheus_reads() -> None:
    metrics = Metrics()
    metrics.api_writes.labels(kind="Deployment", verb="apply").inc()
    metrics.servers_by_ready({"True": 3})
    status, page = await fetch("/metrics", metrics=metrics)
    assert status == 200
    assert 'mlflow_operator_api_writes_total{kind="Deployment",verb="apply"} 1.0' in page
    assert 'mlflow_operator_servers{ready="True"} 3.0' in page
    assert 'mlflow_operator_servers{ready="False"} 0.0' in page


async def test_two_processes_in_one_do_not_share_numbers() -> None:
    """Tests and `doctor` make their own; a global registry would refuse the second."""
    Metrics().leader.set(1)
    assert Metrics().registry.get_sample_value("mlflow_operator_leader") == 0


async def test_a_stuck_loop_is_told_from_a_living_one() -> None:
    now = 0.0
    heart = EventLoopWatchdog(lambda: now)
    beating = asyncio.create_task(heart.tick())
    await asyncio.sleep(0)
    assert heart.check() is None
    now = 31.0
    assert heart.check() == "the event loop has been stuck for 31 s"
    beating.cancel()
