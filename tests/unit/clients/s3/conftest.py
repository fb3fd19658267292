"""Fixtures for the tests of the S3 clients."""

from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AsyncExitStack

import pytest

from tests.unit.web_server import Handler, serve_all

StartServer = Callable[[Handler], Awaitable[str]]


@pytest.fixture
async def start_server() -> AsyncIterator[StartServer]:
    """Function that starts a server that answers all requests with a handler, and returns its URL."""
    async with AsyncExitStack() as servers:

        async def start(handler: Handler) -> str:
            return await servers.enter_async_context(serve_all(handler))

        yield start
