"""Requests at a steady pace while something is done to a server: every failure is kept, and nothing is tried again."""

import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from types import TracebackType

import mlflow
import pytest

from tests.e2e.mlflow_workload import KIB, Scientist

PACE = 0.1
"""Seconds between two requests of one client."""

CLIENTS = 3


@dataclass
class Steady:
    """Clients that log metrics, and one that sends a file up and fetches it again, for as long as the block lasts.

    `patch` turns off the client's own tries.
    """

    url: str
    patch: pytest.MonkeyPatch
    done: int = 0
    errors: list[str] = field(default_factory=list)
    _ends: threading.Event = field(default_factory=threading.Event)
    _threads: list[threading.Thread] = field(default_factory=list)
    _lock: threading.Lock = field(default_factory=threading.Lock)

    def __enter__(self) -> "Steady":
        self.patch.setenv("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "0")
        self.patch.setenv("MLFLOW_HTTP_REQUEST_TIMEOUT", "30")
        scientist = Scientist(self.url)
        run = scientist.run()
        work = [self._metrics(run, f"loss-{n}") for n in range(CLIENTS)] + [self._files(scientist, run)]
        self._threads = [threading.Thread(target=self._repeat, args=(each,)) for each in work]
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._ends.set()
        for thread in self._threads:
            thread.join()
        print(f"{self.done} requests answered, {len(self.errors)} failed", *self.errors[:5], sep="\n")

    def _metrics(self, run: str, key: str) -> Callable[[int], None]:
        """Each client has a key of its own: MLflow refuses the same value of the same key, step and millisecond."""
        client = mlflow.MlflowClient(tracking_uri=self.url)
        return lambda step: client.log_metric(run, key, float(step), step=step)

    def _files(self, scientist: Scientist, run: str) -> Callable[[int], None]:
        def once(step: int) -> None:
            name = f"file-{step}"
            assert scientist.upload(run, name, KIB) == scientist.download(run, name)

        return once

    def _repeat(self, once: Callable[[int], None]) -> None:
        step = 0
        while not self._ends.wait(PACE):
            step += 1
            began = time.monotonic()
            try:
                once(step)
            except Exception as error:
                with self._lock:
                    self.errors.append(
                        f"{type(error).__name__} after {time.monotonic() - began:.1f} s: {error}"
                    )
            else:
                with self._lock:
                    self.done += 1
