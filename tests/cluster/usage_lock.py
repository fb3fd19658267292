"""Lock that tests, the demo and benchmarks hold, so that no other run removes or changes the cluster meanwhile."""

import fcntl
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager

from tests.cluster import locks
from tests.cluster.settings import Settings
from tests.cluster.shell import StepError

FILE = "cluster-in-use"


def hold(s: Settings, *, shared: bool = False) -> AbstractContextManager[int]:
    """Hold the lock. Waits for all other runs or, if `shared`, only for those that are not shared."""
    return locks.hold(s.cache / FILE, "Waiting for another run that uses the cluster.", shared=shared)


@contextmanager
def claim(s: Settings) -> Iterator[None]:
    """Hold the lock exclusively, for example to remove the cluster. Raises StepError if another run holds it."""
    with (s.cache / FILE).open("a") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise StepError(
                "another run uses the cluster", "Wait until it ends, then run the same command again."
            ) from None
        yield
