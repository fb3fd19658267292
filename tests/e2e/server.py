"""One MLflowServer under test."""

import time
from collections.abc import Callable
from datetime import UTC, datetime
from typing import Any

import requests

from mlflow_operator.model.names import Names
from mlflow_operator.model.secrets import text_values
from tests import polling
from tests.e2e import timeouts
from tests.e2e.kube import Kube, Object
from tests.report import servers

API_VERSION = "mlflow-operator.dev/v1alpha1"
SERVER_LABEL = "mlflow-operator.dev/server"
COMPONENT = "app.kubernetes.io/component"
SMALL_RESOURCES: Object = {"requests": {"cpu": "25m", "memory": "128Mi"}, "limits": {"memory": "2Gi"}}


def small_spec(**spec: Any) -> Object:
    """Return a spec for a busy two-core node: embedded stores by default, small requests, Service of type NodePort."""
    return {
        "workers": 1,
        "resources": SMALL_RESOURCES,
        "service": {"type": "NodePort"},
        "database": {"embedded": {"resources": SMALL_RESOURCES}},
        "artifacts": {"embedded": {"resources": SMALL_RESOURCES}},
        **spec,
    }


def eventually(what: str, check: Callable[[], Any], within: float) -> Any:
    """Poll `check` and return its first true result. Raises AssertionError with `what` after `within` seconds."""
    return polling.eventually(what, check, within, timeouts.POLL_INTERVAL_SECONDS)


class Server:
    """The MLflowServer `name` in the namespace of `kube`."""

    def __init__(self, kube: Kube, name: str = "tracking") -> None:
        self.kube, self.name, self.names = kube, name, Names(name)
        self._is_counted = False

    def apply(self, spec: Object | None = None) -> "Server":
        """Run `kubectl apply`; by default with an empty spec, which means embedded stores and all defaults."""
        self.kube.apply(
            {
                "apiVersion": API_VERSION,
                "kind": "MLflowServer",
                "metadata": {"name": self.name},
                "spec": spec or {},
            }
        )
        if not self._is_counted:
            self._is_counted = True
            servers.count()
        return self

    def patch_spec(self, **spec: Any) -> None:
        """Apply a merge patch to the spec; None removes a field."""
        self.kube.patch("MLflowServer", self.name, {"spec": spec})

    def trigger_reconcile(self) -> None:
        """Trigger a reconcile by an annotation, so that a test that is not about the resync need not wait for it."""
        annotation = f"e2e/reconcile-at={time.time_ns()}"
        self.kube.kubectl("annotate", "--overwrite", "mlflowserver", self.name, annotation)

    def resource(self) -> Object:
        """Return the MLflowServer as stored."""
        return self.kube.require("MLflowServer", self.name)

    @property
    def status(self) -> Object:
        """The MLflowServer's status."""
        return self.resource().get("status") or {}

    def conditions(self, resource: Object | None = None) -> dict[str, Object]:
        """Return the conditions of `resource` (read if omitted) by type; empty if they are of an older generation."""
        resource = resource or self.resource()
        status = resource.get("status") or {}
        if status.get("observedGeneration") != resource["metadata"]["generation"]:
            return {}
        return {condition["type"]: condition for condition in status.get("conditions") or []}

    def wait_for(
        self,
        condition_type: str,
        status: str = "True",
        reason: str | None = None,
        *,
        within: float = timeouts.READY_SECONDS,
    ) -> Object:
        """Wait for a condition and return it. The AssertionError shows the last seen conditions."""
        deadline = time.monotonic() + within
        while True:
            resource = self.resource()
            conditions = self.conditions(resource)
            found = conditions.get(condition_type)
            if found and found["status"] == status and reason in (None, found["reason"]):
                return found
            if time.monotonic() > deadline:
                last_seen = "\n".join(
                    f"  {c['type']}={c['status']} ({c['reason']}): {c['message']}"
                    for c in conditions.values()
                )
                raise AssertionError(
                    f"{self.name}: {condition_type}={status} ({reason or 'any reason'}) "
                    f"not within {within:.0f} s:\n{last_seen}"
                )
            self.kube.wait_for_change(resource, deadline - time.monotonic())

    def wait_ready(self, within: float = timeouts.READY_SECONDS) -> "Server":
        """Wait until the server is Ready and its NodePort, if it has one, answers."""
        self.wait_for("Ready", within=within)
        if self.service["spec"]["type"] == "NodePort":
            self.wait_reachable()
        return self

    @property
    def service(self) -> Object:
        """The server's Service."""
        return self.kube.require("Service", self.names.service)

    @property
    def url(self) -> str:
        """URL outside the cluster; the Service must be of type NodePort."""
        return f"http://{self.kube.node_address}:{self.service['spec']['ports'][0]['nodePort']}"

    @property
    def administrator(self) -> tuple[str, str] | None:
        """User name and password of the administrator in its Secret; None if the server has no administrator."""
        resource = self.resource()
        ref = (resource.get("status") or {}).get("adminSecretRef")
        if not ref:
            return None
        admin = (resource["spec"].get("auth") or {}).get("admin") or {}
        key = (admin.get("passwordSecretRef") or {}).get("key", "password")
        return admin.get("username", "admin"), text_values(self.kube.require("Secret", ref["name"]))[key]

    def wait_reachable(self) -> None:
        """Wait until MLflow answers a request from outside the cluster, of its administrator if it has one."""
        url = f"{self.url}/api/2.0/mlflow/experiments/search?max_results=1"

        def is_reachable() -> bool:
            try:
                return requests.get(url, auth=self.administrator, timeout=5).ok
            except requests.RequestException:
                return False

        eventually(f"{url} answers", is_reachable, timeouts.ENDPOINT_SECONDS)

    def pods(self, component: str | None = None) -> list[Object]:
        """Return the pods of one component (`server`, `database`, ...) or of all, without terminating pods."""
        labels = {SERVER_LABEL: self.name} | ({COMPONENT: component} if component else {})
        return [p for p in self.kube.list("Pod", labels) if not p["metadata"].get("deletionTimestamp")]

    def running_pods(self) -> list[Object]:
        """Return the pods that use resources of the node: terminating pods included, finished pods left out."""
        pods = self.kube.list("Pod", {SERVER_LABEL: self.name})
        return [pod for pod in pods if pod["status"].get("phase") not in {"Succeeded", "Failed"}]

    def pod(self, component: str = "server") -> Object:
        """Return the only pod of a component."""
        (pod,) = self.pods(component)
        return pod

    def wait_replaced(self, component: str, old: Object, within: float = timeouts.ROLLOUT_SECONDS) -> Object:
        """Wait until `old` is gone and the component has exactly one ready pod; returns that pod."""

        def new() -> Object | None:
            pods = self.pods(component)
            fresh = [pod for pod in pods if is_ready(pod)]
            gone = all(pod["metadata"]["uid"] != old["metadata"]["uid"] for pod in pods)
            return fresh[0] if len(fresh) == 1 and gone else None

        found: Object = eventually(f"a new {component} pod of {self.name} is ready", new, within)
        return found

    def rotate_credentials(self) -> None:
        """Request a credential rotation, and wait until it is complete and the previous credentials are revoked."""
        now = f"{datetime.now(UTC):%Y-%m-%dT%H:%M:%SZ}"
        self.patch_spec(rotateCredentialsAt=now)

        def is_rotated() -> bool:
            condition = self.conditions().get("CredentialsReady", {})
            return bool(self.status.get("credentialsRotatedAt") == now and condition.get("reason") == "Ready")

        eventually("credentials are rotated", is_rotated, timeouts.ROLLOUT_SECONDS)

    def generated_values(self) -> dict[str, str]:
        """Return every generated secret value of the server by its description."""
        database = text_values(self.kube.require("Secret", self.names.database_secret))
        artifacts = text_values(self.kube.require("Secret", self.names.artifacts_secret))
        server = text_values(self.kube.require("Secret", self.names.server_secret))
        encryption = text_values(self.kube.require("Secret", self.names.encryption_secret))
        administrator = self.administrator
        return {
            "database password": database["password"],
            "database URI": database["uri"],
            "root key": artifacts["accessKeyID"],
            "root secret": artifacts["secretAccessKey"],
            "artifact key": artifacts["serverAccessKeyID"],
            "artifact secret": artifacts["serverSecretAccessKey"],
            **{f"server {key}": value for key, value in server.items()},
            "passphrase": encryption["passphrase"],
            "webhook key": encryption["webhook-key"],
            "session key": encryption["flask-secret-key"],
            **({"administrator's password": administrator[1]} if administrator else {}),
        }

    def delete(self) -> None:
        """Delete the MLflowServer and wait until it and its owned objects are gone."""
        self.kube.kubectl(
            "delete",
            "mlflowserver",
            self.name,
            "--cascade=foreground",
            f"--timeout={timeouts.DELETION_SECONDS:.0f}s",
            within=timeouts.DELETION_SECONDS + 10,
        )


def is_ready(pod: Object) -> bool:
    """Whether a pod has the condition Ready."""
    conditions = pod.get("status", {}).get("conditions") or []
    return any(c["type"] == "Ready" and c["status"] == "True" for c in conditions)


def restart_count(pod: Object) -> int:
    """Return the sum of the restart counts of a pod's containers."""
    return sum(c["restartCount"] for c in pod.get("status", {}).get("containerStatuses") or [])
