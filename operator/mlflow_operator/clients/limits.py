"""Concurrency limits per external host, so that one host cannot use up the operator's threads or its own connections.

All servers that use an unresponsive host are reconciled again and again. Without a limit, their calls would occupy
every thread and, if the host is only slow, open more connections than it has.
"""

import asyncio
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from typing import TypeVar
from weakref import WeakValueDictionary

T = TypeVar("T")


class PerHostLimiter:
    """Allow at most `max_concurrent` calls per host. Further calls wait until their own timeouts expire."""

    def __init__(self, max_concurrent: int) -> None:
        self._max_concurrent = max_concurrent
        # The entry of a host disappears when no call uses or waits for its semaphore.
        self._semaphores: WeakValueDictionary[str, asyncio.Semaphore] = WeakValueDictionary()

    def semaphore(self, host: str) -> asyncio.Semaphore:
        """Return the semaphore that a call to `host` must hold."""
        semaphore = self._semaphores.get(host)
        if semaphore is None:
            semaphore = self._semaphores[host] = asyncio.Semaphore(self._max_concurrent)
        return semaphore


class ThreadPool:
    """Thread pool for blocking calls: `max_threads` in total, at most `max_threads_per_host` of them for one host.

    Cancelling a call does not stop its thread. The caller stops waiting, and the thread counts against the limit of
    its host until it ends.
    """

    def __init__(self, max_threads: int, max_threads_per_host: int, name: str) -> None:
        self._pool = ThreadPoolExecutor(max_threads, thread_name_prefix=name)
        self._limiter = PerHostLimiter(max_threads_per_host)

    async def run(self, host: str, call: Callable[[], T]) -> T:
        """Run `call` in a thread; return its result or raise its exception."""
        loop, semaphore = asyncio.get_running_loop(), self._limiter.semaphore(host)
        await semaphore.acquire()

        def release(_: "Future[T]") -> None:
            if not loop.is_closed():
                loop.call_soon_threadsafe(semaphore.release)

        try:
            future = self._pool.submit(call)
        except BaseException:
            semaphore.release()
            raise
        future.add_done_callback(release)
        return await asyncio.wrap_future(future)

    def close(self) -> None:
        """Shut the pool down without waiting for running calls."""
        self._pool.shutdown(wait=False, cancel_futures=True)
