"""Where programs of data scientists run: on this machine, outside the cluster, and in pods beside the server."""

import os
import subprocess
import sys
import tempfile
from datetime import UTC, datetime, timedelta
from functools import cache
from pathlib import Path

from tests.cluster.settings import ROOT
from tests.e2e.kube import CommandError, Object
from tests.e2e.server import COMPONENT, SERVER_LABEL, Server, eventually, restarts

FOLDERS = (ROOT / "tests" / "demo", ROOT / "tests" / "workflows")
WITHIN = 240.0
"""A program; half a minute on a machine that does nothing else."""
LABELS = {"app": "training"}


def programs() -> dict[str, Path]:
    """Every file of a program, by its name. `gate.py` is called by another one."""
    return {file.name: file for folder in FOLDERS for file in folder.glob("[!_]*.py")}


def all_names(service: str, namespace: str) -> list[str]:
    """Every name under which DNS in the cluster knows a Service."""
    full = f"{service}.{namespace}"
    return [service, full, f"{full}.svc", f"{full}.svc.cluster.local"]


class Workbench:
    """Runs programs against `server`, each at most once in each place."""

    def __init__(self, server: Server, hidden: tuple[str, ...], image: str) -> None:
        """`hidden` are hosts that no client needs: in pods their names lead nowhere. `image` is that of the pods."""
        self.server, self.kube, self.hidden, self.image = server, server.kube, hidden, image
        self.outside, self.in_pod = cache(self._outside), cache(self._in_pod)
        self.first: dict[str, datetime] = {}

    def begin(self) -> "Workbench":
        """Waits until the server is Ready, and remembers since when each of its pods is."""
        self.server.ready()
        self.first = self.first or self.ready_since()
        return self

    def ready_since(self) -> dict[str, datetime]:
        """Since when each server pod takes requests without a break. One that does not is left out."""
        return {
            pod["metadata"]["name"]: datetime.fromisoformat(condition["lastTransitionTime"])
            for pod in self.server.pods("server")
            for condition in pod["status"].get("conditions") or []
            if condition["type"] == "Ready" and condition["status"] == "True"
        }

    def undisturbed(self, time: timedelta) -> bool:
        """Whether that long has passed. AssertionError if meanwhile a pod was not ready, or anything in it died."""
        assert self.ready_since() == self.first, "a pod was not ready for a while, or is another one"
        for pod in self.server.pods("server"):
            assert restarts(pod) == 0, f"a container of {pod['metadata']['name']} was started again"
        if datetime.now(UTC) - max(self.first.values()) < time:
            return False
        for name in self.first:  # the server replaces a worker that died, and Kubernetes hears nothing of it
            deaths = [line for line in self.kube.kubectl("logs", name).splitlines() if "died" in line]
            assert not deaths, f"a worker of {name} died: {deaths}"
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
                timeout=WITHIN,
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

        def ended() -> str | None:
            conditions = self.kube.need("Job", name)["status"].get("conditions") or []
            ends = (c["type"] for c in conditions if c["status"] == "True")
            return next((end for end in ends if end in {"Complete", "Failed"}), None)

        try:
            end = eventually(f"{program} ends in its pod", ended, WITHIN)
        finally:
            said = self._logs(name)
        assert end == "Complete", f"{program} in a pod:\n{said}"
        return said

    def _logs(self, job: str) -> str:
        try:
            return self.kube.kubectl("logs", f"job/{job}")
        except CommandError as nothing:
            return str(nothing)

    def _policy(self) -> Object:
        """Out of these pods go requests to the server and for names, where the cluster enforces policies."""
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
        """What docs/connect.md tells users to write, under restricted Pod Security."""
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
            # a cluster may not enforce policies; a client that went past the server would then get through
            "hostAliases": [{"ip": "127.0.0.1", "hostnames": list(self.hidden)}],
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
