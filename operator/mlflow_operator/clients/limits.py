"""Concurrency limits per namespace and per external host, so that none uses up the operator's threads or connections.

All servers that use an unresponsive host are reconciled again and again. Without a limit, their calls would occupy
every thread and, if the host is only slow, open more connections than it has. The users of a namespace choose the
hosts: a limit per host alone would not stop a namespace with many servers whose stores each have another host.
"""

import asyncio
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass
from typing import TypeVar
from weakref import WeakValueDictionary

T = TypeVar("T")

_NAMESPACE: ContextVar[str] = ContextVar("limits_namespace", default="")


@contextmanager
def on_behalf_of(namespace: str) -> Iterator[None]:
    """Count calls inside the context, also of tasks that are started inside, against the limits of `namespace`."""
    token = _NAMESPACE.set(namespace)
    try:
        yield
    finally:
        _NAMESPACE.reset(token)


def current_namespace() -> str:
    """The namespace of `on_behalf_of`; an empty string outside of it."""
    return _NAMESPACE.get()


@dataclass(frozen=True)
class Limits:
    """Maximum numbers of concurrent calls: for a host, for a namespace, and for one host from one namespace."""

    host: int
    namespace: int
    host_from_namespace: int


STORE_LIMITS = Limits(host=8, namespace=16, host_from_namespace=4)
"""For requests to an artifact store, of S3 and of its admin API. They leave capacity for other stores if one does not
respond, and for other namespaces if all stores of one do not. Each request holds a thread or a connection, and a
response."""


class Limiter:
    """Enforces `Limits`. Further calls wait until their own timeouts expire."""

    def __init__(self, limits: Limits) -> None:
        self._limits = limits
        # An entry disappears when no call uses or waits for its semaphore.
        self._semaphores: WeakValueDictionary[tuple[str | None, str | None], asyncio.Semaphore] = (
            WeakValueDictionary()
        )

    async def acquire(self, host: str) -> Callable[[], None]:
        """Wait until a call to `host` is allowed. Return the function that ends the call."""
        namespace, acquired = current_namespace(), list[asyncio.Semaphore]()

        def release() -> None:
            while acquired:
                acquired.pop().release()

        try:
            # In this order, a call that waits holds only what fewer others use: calls to a slow host must not occupy
            # their namespace while they wait, and calls of a busy namespace must not occupy a host that others use.
            for semaphore in (
                self._semaphore(namespace, host, self._limits.host_from_namespace),
                self._semaphore(namespace, None, self._limits.namespace),
                self._semaphore(None, host, self._limits.host),
            ):
                await semaphore.acquire()
                acquired.append(semaphore)
        except BaseException:
            release()
            raise
        return release

    def _semaphore(self, namespace: str | None, host: str | None, limit: int) -> asyncio.Semaphore:
        semaphore = self._semaphores.get((namespace, host))
        if semaphore is None:
            semaphore = self._semaphores[namespace, host] = asyncio.Semaphore(limit)
        return semaphore


class ThreadPool:
    """Thread pool for blocking calls: `max_threads` in total, with `limits` for hosts and namespaces.

    Cancelling a call does not stop its thread. The caller stops waiting, and the thread counts against the limits until
    it ends.
    """

    def __init__(self, max_threads: int, limits: Limits, name: str) -> None:
        self._pool = ThreadPoolExecutor(max_threads, thread_name_prefix=name)
        self._limiter = Limiter(limits)

    async def run(self, host: str, call: Callable[[], T]) -> T:
        """Run `call` in a thread; return its result or raise its exception."""
        loop, end_call = asyncio.get_running_loop(), await self._limiter.acquire(host)

        def release(_: "Future[T]") -> None:
            if not loop.is_closed():
                loop.call_soon_threadsafe(end_call)

        try:
            future = self._pool.submit(call)
        except BaseException:
            end_call()
            raise
        future.add_done_callback(release)
        return await asyncio.wrap_future(future)

    def close(self) -> None:
        """Shut the pool down without waiting for running calls."""
        self._pool.shutdown(wait=False, cancel_futures=True)
