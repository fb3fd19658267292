"""Concurrent parts of a reconcile."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager


@asynccontextmanager
async def task_group() -> AsyncIterator[asyncio.TaskGroup]:
    """Like asyncio.TaskGroup, but raises the first error itself.

    The work queue recognizes expected errors by their type, which an ExceptionGroup would hide.
    """
    try:
        async with asyncio.TaskGroup() as group:
            yield group
    except ExceptionGroup as errors:
        raise errors.exceptions[0] from errors
