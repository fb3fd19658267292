"""Runs client programs of data scientists: on this machine, outside the cluster, and in pods beside the server."""

import os
import subprocess
import sys
import tempfile
from datetime import UTC, datetime, timedelta
from functools import cache
from pathlib import Path

from tests.cluster.settings import ROOT
from tests.e2e.kube import CommandError, Object
from tests.e2e.server import COMPONENT, SERVER_LABEL, Server, eventually, restart_count

FOLDERS = (ROOT / "tests" / "demo", ROOT / "tests" / "workflows")
TIMEOUT_SECONDS = 240.0
"""Limit for one program, which takes 30 s on an idle machine."""
LABELS = {"app": "training"}


def programs() -> dict[str, Path]:
    """Return the files of all programs by file name. `gate.py` is run by another program."""
    return {file.name: file for folder in FOLDERS for file in folder.glob("[!_]*.py")}


def dns_names(service: str, namespace: str) -> list[str]:
    """Return all DNS names of a Service in the cluster."""
    full = f"{service}.{namespace}"
    return [service, full, f"{full}.svc", f"{full}.svc.cluster.local"]


class ProgramRuns:
    """Runs programs against `server`, each at most once outside the cluster and at most once in a pod."""

    def __init__(self, server: Server, blocked_hosts: tuple[str, ...], image: str) -> None:
        """`blocked_hosts`: hosts that no client needs; in pods they resolve to loopback. `image`: the image of pods."""
        self.server, self.kube, self.blocked_hosts, self.image = server, server.kube, blocked_hosts, image
        self.run_outside, self.run_in_pod = cache(self._outside), cache(self._in_pod)
        self.initial_ready_since: dict[str, datetime] = {}

    def wait_ready(self) -> "ProgramRuns":
        """Wait until the server is Ready, and store since when each of its pods has been ready."""
        self.server.wait_ready()
        self.initial_ready_since = self.initial_ready_since or self.ready_since()
        return self

    def ready_since(self) -> dict[str, datetime]:
        """Return since when each server pod has been ready. Pods that are not ready are left out."""
        return {
            pod["metadata"]["name"]: datetime.fromisoformat(condition["lastTransitionTime"])
            for pod in self.server.pods("server")
            for condition in pod["status"].get("conditions") or []
            if condition["type"] == "Ready" and condition["status"] == "True"
        }

    def has_been_stable_for(self, duration: timedelta) -> bool:
        """Whether all pods have been ready for this long. AssertionError if a pod, container or worker was replaced."""
        assert self.ready_since() == self.initial_ready_since, (
            "a pod was temporarily not ready, or was replaced"
        )
        for pod in self.server.pods("server"):
            assert restart_count(pod) == 0, f"a container of {pod['metadata']['name']} was restarted"
        if datetime.now(UTC) - max(self.initial_ready_since.values()) < duration:
            return False
        for name in (
            self.initial_ready_since
        ):  # the server replaces a dead worker process itself, which Kubernetes does not see
            dead_workers = [line for line in self.kube.kubectl("logs", name).splitlines() if "died" in line]
            assert not dead_workers, f"a worker of {name} died: {dead_workers}"
        return True

    def _outside(self, program: str) -> str:
        env = {**os.environ, "MLFLOW_TRACKING_URI": self.server.url}
        env.pop("MLFLOW_SUPPRESS_PRINTING_URL_TO_STDOUT", None)
        with tempfile.TemporaryDirectory() as folder:
            done = subprocess.run(
                [sys.executable, str(programs()[program])],
                cwd=folder,
                env=env,
                text=True,
                capture_output=True,
                check=False,
                timeout=TIMEOUT_SECONDS,
            )
        assert done.returncode == 0, f"{program} outside the cluster:\n{done.stdout}\n{done.stderr}"
        return done.stdout

    def _in_pod(self, program: str) -> str:
        name = program.removesuffix(".py")
        files = {file: path.read_text() for file, path in programs().items()}
        self.kube.apply(
            {"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "programs"}, "data": files},
            self._policy(),
            self._job(name),
        )

        def final_condition() -> str | None:
            conditions = self.kube.require("Job", name)["status"].get("conditions") or []
            types = (c["type"] for c in conditions if c["status"] == "True")
            return next((name for name in types if name in {"Complete", "Failed"}), None)

        try:
            result = eventually(f"{program} ends in its pod", final_condition, TIMEOUT_SECONDS)
        finally:
            log = self._logs(name)
        assert result == "Complete", f"{program} in a pod:\n{log}"
        return log

    def _logs(self, job: str) -> str:
        try:
            return self.kube.kubectl("logs", f"job/{job}")
        except CommandError as error:
            return str(error)

    def _policy(self) -> Object:
        """A NetworkPolicy that only allows egress to the server and to DNS, if the cluster enforces policies."""
        server = {"podSelector": {"matchLabels": {SERVER_LABEL: self.server.name, COMPONENT: "server"}}}
        return {
            "apiVersion": "networking.k8s.io/v1",
            "kind": "NetworkPolicy",
            "metadata": {"name": "training"},
            "spec": {
                "podSelector": {"matchLabels": LABELS},
                "policyTypes": ["Egress"],
                "egress": [
                    {"to": [server], "ports": [{"port": 5000}]},
                    {"ports": [{"port": 53, "protocol": "UDP"}, {"port": 53}]},
                ],
            },
        }

    def _job(self, name: str) -> Object:
        """A Job as in docs/guides/example-programs.md, which conforms to the restricted Pod Security level."""
        container: Object = {
            "name": "train",
            "image": self.image,
            "command": ["python", f"/programs/{name}.py"],
            "workingDir": "/tmp",
            "envFrom": [{"configMapRef": {"name": self.server.names.client}}],
            "env": [{"name": "HOME", "value": "/tmp"}],
            "resources": {"requests": {"cpu": "25m", "memory": "256Mi"}, "limits": {"memory": "2Gi"}},
            "securityContext": {
                "allowPrivilegeEscalation": False,
                "capabilities": {"drop": ["ALL"]},
                "readOnlyRootFilesystem": True,
            },
            "volumeMounts": [
                {"name": "programs", "mountPath": "/programs"},
                {"name": "tmp", "mountPath": "/tmp"},
            ],
        }
        pod: Object = {
            "restartPolicy": "Never",
            "automountServiceAccountToken": False,
            "securityContext": {
                "runAsNonRoot": True,
                "runAsUser": 10001,
                "seccompProfile": {"type": "RuntimeDefault"},
            },
            # In a cluster that does not enforce policies, a client could otherwise bypass the server.
            "hostAliases": [{"ip": "127.0.0.1", "hostnames": list(self.blocked_hosts)}],
            "containers": [container],
            "volumes": [
                {"name": "programs", "configMap": {"name": "programs"}},
                {"name": "tmp", "emptyDir": {}},
            ],
        }
        return {
            "apiVersion": "batch/v1",
            "kind": "Job",
            "metadata": {"name": name},
            "spec": {"backoffLimit": 0, "template": {"metadata": {"labels": LABELS}, "spec": pod}},
        }
