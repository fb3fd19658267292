"""The HTTP endpoints for the kubelet and Prometheus report the state of the process."""

import asyncio
import errno
import socket
from typing import Any

import aiohttp
import pytest

from mlflow_operator.runtime.health import Check, EventLoopWatchdog, application, serving
from mlflow_operator.status.metrics import Metrics
from tests.unit.address_families import free_port, has_ipv6


def healthy() -> None:
    return None


async def fetch(
    path: str, is_alive: Check = healthy, is_ready: Check = healthy, metrics: Metrics | None = None
) -> tuple[int, str]:
    async with (
        serving(application(metrics or Metrics(), is_alive, is_ready), 0, "127.0.0.1") as port,
        aiohttp.ClientSession() as session,
        session.get(f"http://127.0.0.1:{port}{path}") as response,
    ):
        return response.status, await response.text()


async def test_healthy_process_answers_ok() -> None:
    assert await fetch("/healthz") == (200, "ok\n")
    assert await fetch("/readyz") == (200, "ok\n")


async def test_failed_check_is_reported_by_its_own_endpoint_only() -> None:
    assert await fetch("/healthz", is_alive=lambda: "the watch ended") == (503, "the watch ended\n")
    assert await fetch("/readyz", is_alive=lambda: "the watch ended") == (200, "ok\n")
    assert await fetch("/readyz", is_ready=lambda: "not connected yet") == (503, "not connected yet\n")


async def test_metrics_use_the_prometheus_text_format() -> None:
    metrics = Metrics()
    metrics.api_writes.labels(kind="Deployment", verb="apply").inc()
    metrics.set_servers_by_ready({"True": 3})
    metrics.set_platforms_by_ready({"False": 1})
    status, page = await fetch("/metrics", metrics=metrics)
    assert status == 200
    assert 'mlflow_operator_api_writes_total{kind="Deployment",verb="apply"} 1.0' in page
    assert 'mlflow_operator_servers{ready="True"} 3.0' in page
    assert 'mlflow_operator_servers{ready="False"} 0.0' in page
    assert 'mlflow_operator_platforms{ready="False"} 1.0' in page
    assert 'mlflow_operator_platforms{ready="True"} 0.0' in page


async def test_two_metrics_objects_share_no_registry() -> None:
    """Tests and `doctor` create their own; a global registry would reject the second one."""
    Metrics().leader.set(1)
    assert Metrics().registry.get_sample_value("mlflow_operator_leader") == 0


async def test_watchdog_detects_a_stuck_event_loop() -> None:
    now = 0.0
    watchdog = EventLoopWatchdog(lambda: now)
    tick_task = asyncio.create_task(watchdog.tick())
    await asyncio.sleep(0)
    assert watchdog.check() is None
    now = 31.0
    assert watchdog.check() == "the event loop has been stuck for 31 s"
    tick_task.cancel()


async def test_endpoints_are_served_on_both_address_families() -> None:
    """The kubelet connects to the pod's first address, which is an IPv6 address in an IPv6 cluster."""
    addresses = ["127.0.0.1", "[::1]"] if has_ipv6() else ["127.0.0.1"]
    async with (
        serving(application(Metrics(), healthy, healthy), free_port()) as port,
        aiohttp.ClientSession() as session,
    ):
        for address in addresses:
            async with session.get(f"http://{address}:{port}/healthz") as response:
                assert response.status == 200


async def test_endpoints_are_served_without_ipv6(monkeypatch: pytest.MonkeyPatch) -> None:
    """On a node that was booted with ipv6.disable=1."""

    class Socket(socket.socket):
        def __init__(self, family: int = -1, *arguments: Any, **options: Any) -> None:
            if family == socket.AF_INET6:
                raise OSError(errno.EAFNOSUPPORT, "Address family not supported by protocol")
            super().__init__(family, *arguments, **options)

    monkeypatch.setattr(socket, "socket", Socket)
    async with (
        serving(application(Metrics(), healthy, healthy), 0) as port,
        aiohttp.ClientSession() as session,
        session.get(f"http://127.0.0.1:{port}/healthz") as response,
    ):
        assert response.status == 200
