"""kubectl as a user calls it."""

import os
import subprocess
from pathlib import Path

from tests.apiserver.processes import find, search_path

TIMEOUT_SECONDS = 60


class KubectlError(Exception):
    """kubectl ended with an error. The text is everything it printed."""


class Kubectl:
    """Runs kubectl in one namespace of one API server."""

    def __init__(self, kubeconfig: Path, namespace: str) -> None:
        self._argv = [find("kubectl"), "-n", namespace]
        self._env = {**os.environ, "KUBECONFIG": str(kubeconfig), "PATH": search_path()}

    def __call__(self, *args: str, stdin: str = "") -> str:
        """Run `kubectl args` with this input and return what it prints. KubectlError if it fails."""
        done = subprocess.run(
            [*self._argv, *args],
            input=stdin,
            env=self._env,
            text=True,
            capture_output=True,
            check=False,
            timeout=TIMEOUT_SECONDS,
        )
        if done.returncode:
            raise KubectlError(f"kubectl {' '.join(args)}\n{done.stdout}{done.stderr}")
        return done.stdout
