"""HTTP endpoints for the kubelet and Prometheus: /healthz, /readyz, /metrics."""

import asyncio
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager

from aiohttp import web

from mlflow_operator.status.metrics import CONTENT_TYPE, Metrics

Check = Callable[[], str | None]
"""Health check: returns None if healthy, else a sentence that describes the failure. Must not block."""

MAX_SILENCE_SECONDS = 30.0
"""Seconds without a tick after which the event loop counts as stuck; far longer than any task may block it."""


class EventLoopWatchdog:
    """Detects a stuck event loop.

    `check` works from another thread, and also from the same event loop after it has resumed.
    """

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._last_tick = clock()

    async def tick(self) -> None:
        """Record a tick in the running event loop every second until cancelled."""
        while True:
            self._last_tick = self._clock()
            await asyncio.sleep(1)

    def check(self) -> str | None:
        """Return a failure if the last tick is too old. Implements `Check`."""
        silence = self._clock() - self._last_tick
        return None if silence < MAX_SILENCE_SECONDS else f"the event loop has been stuck for {silence:.0f} s"


def application(metrics: Metrics, is_alive: Check, is_ready: Check) -> web.Application:
    """The HTTP application. /healthz fails if `is_alive` reports a failure, /readyz if `is_ready` does.

    A failure of `is_alive` means that only a restart helps. A standby replica must be ready: otherwise a rolling update
    of the operator would never finish.
    """

    def handler_for(check: Check) -> Callable[[web.Request], Awaitable[web.Response]]:
        async def handler(_: web.Request) -> web.Response:
            failure = check()
            return web.Response(text=f"{failure or 'ok'}\n", status=503 if failure else 200)

        return handler

    async def metrics_handler(_: web.Request) -> web.Response:
        return web.Response(body=metrics.exposition(), headers={"Content-Type": CONTENT_TYPE})

    app = web.Application()
    app.add_routes(
        [
            web.get("/healthz", handler_for(is_alive)),
            web.get("/readyz", handler_for(is_ready)),
            web.get("/metrics", metrics_handler),
        ]
    )
    return app


@asynccontextmanager
async def serving(app: web.Application, port: int, host: str | None = None) -> AsyncIterator[int]:
    """Serve the application inside the context. Yields the port; `port` 0 selects a free one.

    `host` None: all addresses, including IPv6. Raises OSError if the port is in use.
    """
    runner = web.AppRunner(app, access_log=None)
    await runner.setup()
    try:
        site = web.TCPSite(runner, host, port)
        await site.start()
        yield int(runner.addresses[0][1])
    finally:
        await runner.cleanup()
