"""The operator as a separate process: `mlflow-operator run` with the service account that its chart creates."""

import json
import os
import sys
from collections.abc import Iterable
from functools import partial
from pathlib import Path

import requests

from tests.apiserver.processes import Process, free_port

ERROR_LEVELS = {"ERROR", "CRITICAL"}


class Operator:
    """A running operator."""

    def __init__(self, arguments: Iterable[str], kubeconfig: Path, log: Path, lease_namespace: str) -> None:
        """Start the operator with the arguments of the chart's Deployment, and wait until /healthz answers."""
        self.port = free_port()
        argv = [
            str(Path(sys.executable).with_name("mlflow-operator")),
            *arguments,
            f"--port={self.port}",
            # In a pod, the operator reads it from its service account.
            f"--lease-namespace={lease_namespace}",
        ]
        env = {**os.environ, "KUBECONFIG": str(kubeconfig), "NO_PROXY": "127.0.0.1"}
        self._start = partial(Process, "mlflow-operator", argv, log, env)
        self.process = self._start()
        self.process.wait_until_ready(self._is_healthy)

    def restart_if_ended(self) -> None:
        """Start the process again if it has ended, like the kubelet."""
        if self.process.returncode is not None:
            self.process = self._start()
            self.process.wait_until_ready(self._is_healthy)

    def metrics(self) -> dict[str, float]:
        """Return the metrics `mlflow_operator_*` by name and labels."""
        lines = requests.get(f"http://127.0.0.1:{self.port}/metrics", timeout=10).text.splitlines()
        values = (line.rpartition(" ") for line in lines if line.startswith("mlflow_operator_"))
        return {name: float(value) for name, _, value in values}

    def is_leader(self) -> bool:
        """Whether the metric says that it holds the Lease."""
        try:
            return self.metrics().get("mlflow_operator_leader") == 1.0
        except requests.RequestException:
            return False

    def log_records(self) -> list[dict[str, object]]:
        """Return the log records, one per line. A line that is not JSON becomes the message of an ERROR record.

        The line that the process is just writing is ignored.
        """
        complete, newline, _ = self.process.log.read_text(errors="replace").rpartition("\n")
        return [parse_record(line) for line in (complete + newline).splitlines()]

    def messages(self) -> list[str]:
        """Return the messages of the log."""
        return [str(record.get("message")) for record in self.log_records()]

    def errors(self) -> list[dict[str, object]]:
        """Return the log records that report errors of the operator itself."""
        return [
            record for record in self.log_records() if str(record.get("level", "")).upper() in ERROR_LEVELS
        ]

    def error_messages(self) -> list[str]:
        """Return the messages of `errors`."""
        return [str(record.get("message")) for record in self.errors()]

    def _is_healthy(self) -> bool:
        try:
            return requests.get(f"http://127.0.0.1:{self.port}/healthz", timeout=5).ok
        except requests.RequestException:
            return False


def parse_record(line: str) -> dict[str, object]:
    try:
        record = json.loads(line)
    except ValueError:
        return {"level": "ERROR", "message": line}
    return record if isinstance(record, dict) else {"level": "ERROR", "message": line}
