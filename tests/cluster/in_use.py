"""A lock that tests, the demo and benchmarks hold, so that no other run removes or changes the cluster under them."""

import fcntl
from collections.abc import Iterator
from contextlib import contextmanager

from .settings import Settings
from .shell import Failed

FILE = "cluster-in-use"


@contextmanager
def hold(s: Settings, *, shared: bool = False) -> Iterator[None]:
    """Use the cluster. Waits for other runs, or only for those that are not `shared`."""
    mode = fcntl.LOCK_SH if shared else fcntl.LOCK_EX
    with (s.cache / FILE).open("a") as lock:
        try:
            fcntl.flock(lock, mode | fcntl.LOCK_NB)
        except BlockingIOError:
            print("Waiting for another run that uses the cluster.", flush=True)
            fcntl.flock(lock, mode)
        yield


@contextmanager
def claim(s: Settings) -> Iterator[None]:
    """Use the cluster alone, or remove it. Raises Failed if another run uses it."""
    with (s.cache / FILE).open("a") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise Failed(
                "another run uses the cluster", "Wait until it ends, then run the same command again."
            ) from None
        yield
