"""Web servers on loopback."""

from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager

from aiohttp import web

Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]


@asynccontextmanager
async def serve(app: web.Application) -> AsyncIterator[str]:
    """Run a web application; yield its URL."""
    # A request that the client has given up must not delay the end of a test.
    runner = web.AppRunner(app, shutdown_timeout=0.1)
    await runner.setup()
    try:
        await web.TCPSite(runner, "127.0.0.1", 0).start()
        yield f"http://127.0.0.1:{runner.addresses[0][1]}"
    finally:
        await runner.cleanup()


@asynccontextmanager
async def serve_all(handler: Handler) -> AsyncIterator[str]:
    """Run a server that answers all requests with `handler`; yield its URL."""
    app = web.Application()
    app.router.add_route("*", "/{path:.*}", handler)
    async with serve(app) as url:
        yield url
