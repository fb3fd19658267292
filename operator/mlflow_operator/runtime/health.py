"""What the kubelet and Prometheus ask: /healthz, /readyz, /metrics."""

import asyncio
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager

from aiohttp import web

from mlflow_operator.status import metrics as numbers
from mlflow_operator.status.metrics import Metrics

Check = Callable[[], str | None]
"""Looks whether something is well; else says in a sentence what is not. Must not wait."""

MAX_SILENCE_SECONDS = 30.0
"""Seconds an event loop may be deaf before it counts as stuck; far above what any one task may take of it."""


class EventLoopWatchdog:
    """Tells a stuck event loop from a living one, whoever asks: another thread, or the same loop after it came to."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._last = clock()

    async def tick(self) -> None:
        """Beat in the running loop until cancelled."""
        while True:
            self._last = self._clock()
            await asyncio.sleep(1)

    def check(self) -> str | None:
        """What is wrong, if anything is."""
        silent = self._clock() - self._last
        return None if silent < MAX_SILENCE_SECONDS else f"the event loop has been stuck for {silent:.0f} s"


def app(metrics: Metrics, alive: Check, ready: Check) -> web.Application:
    """The pages. `alive`: whether only a restart would help; `ready`: whether the process does its part.

    A process that stands by for another leader is ready: else no rolling update would ever finish.
    """

    def answer(check: Check) -> Callable[[web.Request], Awaitable[web.Response]]:
        async def page(_: web.Request) -> web.Response:
            wrong = check()
            return web.Response(text=f"{wrong or 'ok'}\n", status=503 if wrong else 200)

        return page

    async def scrape(_: web.Request) -> web.Response:
        return web.Response(body=metrics.page(), headers={"Content-Type": numbers.CONTENT_TYPE})

    pages = web.Application()
    pages.add_routes(
        [
            web.get("/healthz", answer(alive)),
            web.get("/readyz", answer(ready)),
            web.get("/metrics", scrape),
        ]
    )
    return pages


@asynccontextmanager
async def serving(pages: web.Application, port: int, host: str | None = None) -> AsyncIterator[int]:
    """Serve the pages while inside; gives the port, which is free choice for 0. OSError: the port is taken.

    `host` absent: all addresses, IPv6 included.
    """
    runner = web.AppRunner(pages, access_log=None)
    await runner.setup()
    try:
        site = web.TCPSite(runner, host, port)
        await site.start()
        yield int(runner.addresses[0][1])
    finally:
        await runner.cleanup()
