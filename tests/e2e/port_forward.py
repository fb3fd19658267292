"""kubectl port-forward that is restarted whenever it ends, because it ends with the pod that it forwards to."""

import socket
import subprocess
import threading
import time
from types import TracebackType

import requests

from tests.e2e.kube import Kube

START_TIMEOUT_SECONDS = 30.0


class PortForward:
    """Makes a Service's port reachable on this machine at `url` for the duration of the context."""

    def __init__(self, kube: Kube, service: str, port: int) -> None:
        self._kube, self._target = kube, (f"service/{service}", port)
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            self._local = int(free.getsockname()[1])
        self._stopped = threading.Event()
        self._process: subprocess.Popen[bytes] | None = None
        self._thread = threading.Thread(target=self._run, daemon=True)

    @property
    def url(self) -> str:
        """URL of the Service on this machine."""
        return f"http://127.0.0.1:{self._local}"

    def __enter__(self) -> "PortForward":
        self._thread.start()
        deadline = time.monotonic() + START_TIMEOUT_SECONDS
        while time.monotonic() < deadline:
            try:
                requests.get(f"{self.url}/health", timeout=5)
                return self
            except requests.RequestException:
                self._stopped.wait(0.2)
        self._stop()
        raise TimeoutError(f"kubectl port-forward to {self._target[0]} does not answer on {self.url}")

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._stop()

    def _stop(self) -> None:
        self._stopped.set()
        if self._process:
            self._process.terminate()
        self._thread.join(10)

    def _run(self) -> None:
        service, port = self._target
        argv = ["kubectl", "-n", self._kube.namespace, "port-forward", service, f"{self._local}:{port}"]
        while not self._stopped.is_set():
            with subprocess.Popen(
                argv, env=self._kube.env, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
            ) as process:
                self._process = process
                if self._stopped.is_set():  # stopped between the check and the start of the process
                    process.terminate()
            self._stopped.wait(0.3)
