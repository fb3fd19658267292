"""One MLflowServer under test."""

import time
from collections.abc import Callable
from datetime import UTC, datetime
from typing import Any

import requests

from mlflow_operator.model.names import Names
from mlflow_operator.model.secrets import decoded
from tests.e2e import timeouts
from tests.e2e.kube import Kube, Object
from tests.report import servers

API_VERSION = "mlflow-operator.dev/v1alpha1"
SERVER_LABEL = "mlflow-operator.dev/server"
COMPONENT = "app.kubernetes.io/component"
LITTLE: Object = {"requests": {"cpu": "25m", "memory": "128Mi"}, "limits": {"memory": "2Gi"}}


def small(**spec: Any) -> Object:
    """A spec for a crowded two-core node: embedded stores unless named, little reserved, reached by NodePort."""
    return {
        "workers": 1,
        "resources": LITTLE,
        "service": {"type": "NodePort"},
        "database": {"embedded": {"resources": LITTLE}},
        "artifacts": {"embedded": {"resources": LITTLE}},
        **spec,
    }


def eventually(what: str, check: Callable[[], Any], within: float) -> Any:
    """The first true answer of `check`; an AssertionError that says what was awaited when there is none."""
    deadline = time.monotonic() + within
    while True:
        if answer := check():
            return answer
        assert time.monotonic() < deadline, f"not within {within:.0f} s: {what}"
        time.sleep(timeouts.POLL)


class Server:
    """The MLflowServer `name` in the namespace of `kube`."""

    def __init__(self, kube: Kube, name: str = "tracking") -> None:
        self.kube, self.name, self.names = kube, name, Names(name)
        self._counted = False

    def apply(self, spec: Object | None = None) -> "Server":
        """`kubectl apply`; without a spec, the smallest that is useful: all embedded, all by default."""
        self.kube.apply(
            {
                "apiVersion": API_VERSION,
                "kind": "MLflowServer",
                "metadata": {"name": self.name},
                "spec": spec or {},
            }
        )
        if not self._counted:
            self._counted = True
            servers.count()
        return self

    def change(self, **spec: Any) -> None:
        """A merge patch of the spec; None takes a field away."""
        self.kube.patch("MLflowServer", self.name, {"spec": spec})

    def look(self) -> None:
        """Has the operator look now: spares a test the wait for a resync, where that is not its promise."""
        self.kube.kubectl("annotate", "--overwrite", "mlflowserver", self.name, f"e2e/look={time.time_ns()}")

    def live(self) -> Object:
        """The resource as it is stored."""
        return self.kube.need("MLflowServer", self.name)

    @property
    def status(self) -> Object:
        """Its status."""
        return self.live().get("status") or {}

    def conditions(self, live: Object | None = None) -> dict[str, Object]:
        """By type; empty while they speak of an older spec. `live` where it is at hand."""
        live = live or self.live()
        status = live.get("status") or {}
        if status.get("observedGeneration") != live["metadata"]["generation"]:
            return {}
        return {condition["type"]: condition for condition in status.get("conditions") or []}

    def until(
        self, kind: str, status: str = "True", reason: str | None = None, *, within: float = timeouts.READY
    ) -> Object:
        """Waits for a condition; returns it. The error shows all conditions as they were at the end."""
        deadline = time.monotonic() + within
        while True:
            live = self.live()
            conditions = self.conditions(live)
            found = conditions.get(kind)
            if found and found["status"] == status and reason in (None, found["reason"]):
                return found
            if time.monotonic() > deadline:
                seen = "\n".join(
                    f"  {c['type']}={c['status']} ({c['reason']}): {c['message']}"
                    for c in conditions.values()
                )
                raise AssertionError(
                    f"{self.name}: {kind}={status} ({reason or 'any reason'}) not within {within:.0f} s:\n{seen}"
                )
            self.kube.changed(live, deadline - time.monotonic())

    def ready(self, within: float = timeouts.READY) -> "Server":
        """Waits until it is Ready and its Service answers."""
        self.until("Ready", within=within)
        if self.service["spec"]["type"] == "NodePort":
            self.answers()
        return self

    @property
    def service(self) -> Object:
        """Its Service."""
        return self.kube.need("Service", self.names.service)

    @property
    def url(self) -> str:
        """Where it is reached from outside the cluster; it must be of type NodePort."""
        return f"http://{self.kube.node_address}:{self.service['spec']['ports'][0]['nodePort']}"

    def answers(self) -> None:
        """Waits until a request from outside the cluster is answered by MLflow itself."""
        url = f"{self.url}/api/2.0/mlflow/experiments/search?max_results=1"

        def asked() -> bool:
            try:
                return requests.get(url, timeout=5).ok
            except requests.RequestException:
                return False

        eventually(f"{url} answers", asked, timeouts.ANSWERS)

    def pods(self, component: str | None = None) -> list[Object]:
        """Its pods, those on their way out left out; of one component (`server`, `database`, ...) or all."""
        labels = {SERVER_LABEL: self.name} | ({COMPONENT: component} if component else {})
        return [p for p in self.kube.list("Pod", labels) if not p["metadata"].get("deletionTimestamp")]

    def running(self) -> list[Object]:
        """Its pods that take something of the node, those of finished Jobs left out."""
        pods = self.kube.list("Pod", {SERVER_LABEL: self.name})
        return [pod for pod in pods if pod["status"].get("phase") not in {"Succeeded", "Failed"}]

    def pod(self, component: str = "server") -> Object:
        """The one pod of a component."""
        (found,) = self.pods(component)
        return found

    def replaced(self, component: str, old: Object, within: float = timeouts.ROLLED) -> Object:
        """Waits until the one ready pod of the component is another one than `old`; returns it."""

        def new() -> Object | None:
            pods = self.pods(component)
            fresh = [pod for pod in pods if is_ready(pod)]
            gone = all(pod["metadata"]["uid"] != old["metadata"]["uid"] for pod in pods)
            return fresh[0] if len(fresh) == 1 and gone else None

        found: Object = eventually(f"a new {component} pod of {self.name} is ready", new, within)
        return found

    def rotate(self) -> None:
        """Asks for new credentials, and waits until that was carried out, old ones shut out included."""
        now = f"{datetime.now(UTC):%Y-%m-%dT%H:%M:%SZ}"
        self.change(rotateCredentialsAt=now)

        def over() -> bool:
            said = self.conditions().get("CredentialsReady", {})
            return bool(self.status.get("credentialsRotatedAt") == now and said.get("reason") == "Ready")

        eventually("credentials are replaced", over, timeouts.ROLLED)

    def generated(self) -> dict[str, str]:
        """Every secret value that was made for it, by what it is."""
        database = decoded(self.kube.need("Secret", self.names.database_secret))
        artifacts = decoded(self.kube.need("Secret", self.names.artifacts_secret))
        server = decoded(self.kube.need("Secret", self.names.server_secret))
        return {
            "database password": database["password"],
            "database URI": database["uri"],
            "root key": artifacts["accessKeyID"],
            "root secret": artifacts["secretAccessKey"],
            "artifact key": artifacts["serverAccessKeyID"],
            "artifact secret": artifacts["serverSecretAccessKey"],
            **{f"server {key}": value for key, value in server.items()},
        }

    def delete(self) -> None:
        """Deletes it and waits until it is gone, its disposable objects included."""
        self.kube.kubectl(
            "delete",
            "mlflowserver",
            self.name,
            "--cascade=foreground",
            f"--timeout={timeouts.GONE:.0f}s",
            within=timeouts.GONE + 10,
        )


def is_ready(pod: Object) -> bool:
    """Whether a pod takes requests."""
    conditions = pod.get("status", {}).get("conditions") or []
    return any(c["type"] == "Ready" and c["status"] == "True" for c in conditions)


def restarts(pod: Object) -> int:
    """How often its containers were started again."""
    return sum(c["restartCount"] for c in pod.get("status", {}).get("containerStatuses") or [])
