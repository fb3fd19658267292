"""Steady load on a server while a test changes something. Every failed request is recorded, and none is retried."""

import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from types import TracebackType

import mlflow
import pytest

from tests.e2e.mlflow_workload import KIB, Workload

INTERVAL_SECONDS = 0.1
"""Pause between two requests of one client."""

CLIENTS = 3


@dataclass
class SteadyLoad:
    """Clients that log metrics, and one that uploads and downloads files, for the duration of the context.

    `monkeypatch` disables the MLflow client's retries.
    """

    url: str
    monkeypatch: pytest.MonkeyPatch
    succeeded: int = 0
    errors: list[str] = field(default_factory=list)
    _stopped: threading.Event = field(default_factory=threading.Event)
    _threads: list[threading.Thread] = field(default_factory=list)
    _lock: threading.Lock = field(default_factory=threading.Lock)

    def __enter__(self) -> "SteadyLoad":
        self.monkeypatch.setenv("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "0")
        self.monkeypatch.setenv("MLFLOW_HTTP_REQUEST_TIMEOUT", "30")
        workload = Workload(self.url)
        run_id = workload.create_run()
        operations = [self._log_metric(run_id, f"loss-{n}") for n in range(CLIENTS)] + [
            self._transfer_file(workload, run_id)
        ]
        self._threads = [threading.Thread(target=self._repeat, args=(operation,)) for operation in operations]
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._stopped.set()
        for thread in self._threads:
            thread.join()
        print(f"{self.succeeded} requests succeeded, {len(self.errors)} failed", *self.errors[:5], sep="\n")

    def _log_metric(self, run_id: str, key: str) -> Callable[[int], None]:
        """Each client uses its own key: MLflow rejects the same value with the same key, step and millisecond."""
        client = mlflow.MlflowClient(tracking_uri=self.url)
        return lambda step: client.log_metric(run_id, key, float(step), step=step)

    def _transfer_file(self, workload: Workload, run_id: str) -> Callable[[int], None]:
        def transfer(step: int) -> None:
            name = f"file-{step}"
            assert workload.upload(run_id, name, KIB) == workload.download(run_id, name)

        return transfer

    def _repeat(self, operation: Callable[[int], None]) -> None:
        step = 0
        while not self._stopped.wait(INTERVAL_SECONDS):
            step += 1
            start = time.monotonic()
            try:
                operation(step)
            except Exception as error:
                with self._lock:
                    self.errors.append(
                        f"{type(error).__name__} after {time.monotonic() - start:.1f} s: {error}"
                    )
            else:
                with self._lock:
                    self.succeeded += 1
