"""Turns at places outside: what many servers ask of one place takes a few of what there is, and leaves the rest.

A place that is silent is asked by all its servers, over and over. Without turns they would hold every thread, and, when
it is only slow, open more connections to it than it has.
"""

import asyncio
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from typing import TypeVar
from weakref import WeakValueDictionary

T = TypeVar("T")


class PerHostLimiter:
    """At most `most` at a time at any one place; the others wait, as long as their own time-outs let them."""

    def __init__(self, most: int) -> None:
        self._most = most
        # a place that nobody asks has no entry
        self._places: WeakValueDictionary[str, asyncio.Semaphore] = WeakValueDictionary()

    def at(self, place: str) -> asyncio.Semaphore:
        """What to hold while asking there."""
        found = self._places.get(place)
        if found is None:
            found = self._places[place] = asyncio.Semaphore(self._most)
        return found


class ThreadPool:
    """Threads for calls that block, of which one place takes `a_place` at most, out of `most`.

    Cancelling never stops a thread: who waited for it may give up, and its turn is given back when it ends.
    """

    def __init__(self, most: int, a_place: int, name: str) -> None:
        self._pool = ThreadPoolExecutor(most, thread_name_prefix=name)
        self._turns = PerHostLimiter(a_place)

    async def run(self, place: str, call: Callable[[], T]) -> T:
        """What `call` returns or raises."""
        loop, turn = asyncio.get_running_loop(), self._turns.at(place)
        await turn.acquire()

        def ended(_: "Future[T]") -> None:
            if not loop.is_closed():
                loop.call_soon_threadsafe(turn.release)

        try:
            future = self._pool.submit(call)
        except BaseException:
            turn.release()
            raise
        future.add_done_callback(ended)
        return await asyncio.wrap_future(future)

    def close(self) -> None:
        """Lets go of the threads without waiting for calls under way."""
        self._pool.shutdown(wait=False, cancel_futures=True)
