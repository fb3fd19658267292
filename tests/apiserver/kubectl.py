"""Calls of kubectl."""

import os
import subprocess
from pathlib import Path

from tests.apiserver.processes import find, search_path

TIMEOUT_SECONDS = 60


class KubectlError(Exception):
    """kubectl failed. The text is its output."""


class Kubectl:
    """Runs kubectl in one namespace of one API server."""

    def __init__(self, kubeconfig: Path, namespace: str) -> None:
        self._argv = [find("kubectl"), "-n", namespace]
        self._env = {**os.environ, "KUBECONFIG": str(kubeconfig), "PATH": search_path()}

    def __call__(self, *args: str, stdin: str = "") -> str:
        """Run `kubectl args` with this input and return its output. Raises KubectlError if it fails."""
        process = subprocess.run(
            [*self._argv, *args],
            input=stdin,
            env=self._env,
            text=True,
            capture_output=True,
            check=False,
            timeout=TIMEOUT_SECONDS,
        )
        if process.returncode:
            raise KubectlError(f"kubectl {' '.join(args)}\n{process.stdout}{process.stderr}")
        return process.stdout
