"""Locks on this machine, as files in the cache. The kernel releases them when the process ends."""

import fcntl
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path


@contextmanager
def hold(path: Path, waiting: str = "", *, shared: bool = False) -> Iterator[int]:
    """Hold the lock, alone or `shared` with others, and yield its file descriptor.

    If the lock is not free, print `waiting` and wait.
    """
    mode = fcntl.LOCK_SH if shared else fcntl.LOCK_EX
    with path.open("a") as lock:
        try:
            fcntl.flock(lock, mode | fcntl.LOCK_NB)
        except BlockingIOError:
            if waiting:
                print(waiting, flush=True)
            fcntl.flock(lock, mode)
        yield lock.fileno()
