"""A lock that tests, the demo and benchmarks hold, so that no other run removes or changes the cluster under them."""

import fcntl
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager

from tests.cluster import locks
from tests.cluster.settings import Settings
from tests.cluster.shell import Failed

FILE = "cluster-in-use"


def hold(s: Settings, *, shared: bool = False) -> AbstractContextManager[int]:
    """Use the cluster. Waits for other runs, or only for those that are not `shared`."""
    return locks.hold(s.cache / FILE, "Waiting for another run that uses the cluster.", shared=shared)


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
