"""The operator as a process of its own: `mlflow-operator run`, as the service account that its chart creates."""

import json
import os
import sys
from collections.abc import Iterable
from functools import partial
from pathlib import Path

import requests

from tests.apiserver.processes import Process, free_port

COMPLAINTS = {"ERROR", "CRITICAL"}


class Operator:
    """One running operator."""

    def __init__(self, arguments: Iterable[str], kubeconfig: Path, log: Path, lease_namespace: str) -> None:
        """Start it with the arguments of the chart's Deployment; returns when it serves its health page."""
        self.port = free_port()
        argv = [
            str(Path(sys.executable).with_name("mlflow-operator")),
            *arguments,
            f"--port={self.port}",
            # A pod reads it from its service account.
            f"--lease-namespace={lease_namespace}",
        ]
        env = {**os.environ, "KUBECONFIG": str(kubeconfig), "NO_PROXY": "127.0.0.1"}
        self._start = partial(Process, "mlflow-operator", argv, log, env)
        self.process = self._start()
        self.process.wait_until_ready(self._is_healthy)

    def restart_if_ended(self) -> None:
        """Do what the kubelet does when the process has ended."""
        if self.process.returncode is not None:
            self.process = self._start()
            self.process.wait_until_ready(self._is_healthy)

    def metrics(self) -> dict[str, float]:
        """The operator's own metrics, by name and labels."""
        lines = requests.get(f"http://127.0.0.1:{self.port}/metrics", timeout=10).text.splitlines()
        values = (line.rpartition(" ") for line in lines if line.startswith("mlflow_operator_"))
        return {name: float(value) for name, _, value in values}

    def leads(self) -> bool:
        """Whether it says that it holds the Lease."""
        try:
            return self.metrics().get("mlflow_operator_leader") == 1.0
        except requests.RequestException:
            return False

    def records(self) -> list[dict[str, object]]:
        """Its log: one record per line. A line that is not JSON is the field `message` of a record with level ERROR."""
        return [_record(line) for line in self.process.lines()]

    def messages(self) -> list[str]:
        """The messages of its log."""
        return [str(record.get("message")) for record in self.records()]

    def errors(self) -> list[dict[str, object]]:
        """Log records that report a fault of the operator itself."""
        return [record for record in self.records() if str(record.get("level", "")).upper() in COMPLAINTS]

    def complaints(self) -> list[str]:
        """Their messages."""
        return [str(record.get("message")) for record in self.errors()]

    def _is_healthy(self) -> bool:
        try:
            return requests.get(f"http://127.0.0.1:{self.port}/healthz", timeout=5).ok
        except requests.RequestException:
            return False


def _record(line: str) -> dict[str, object]:
    try:
        found = json.loads(line)
    except ValueError:
        return {"level": "ERROR", "message": line}
    return found if isinstance(found, dict) else {"level": "ERROR", "message": line}
