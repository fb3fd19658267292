"""An MLflowServer under test, with functions that wait for its conditions."""

import time
from functools import partial
from typing import Any

from mlflow_operator import api
from mlflow_operator.kube import kinds
from mlflow_operator.kube.kinds import Kind
from mlflow_operator.kube.objects import Object
from mlflow_operator.model.names import Names
from tests.apiserver.client import Client
from tests.integration.postgres import PASSWORD, USER, Postgres
from tests.polling import POLL_INTERVAL_SECONDS, TIMEOUT_SECONDS, eventually

DATABASE_SECRET = "postgres"


class Server:
    """The MLflowServer `name` in a namespace, and the objects that the operator creates for it."""

    def __init__(self, client: Client, namespace: str, name: str = "tracking") -> None:
        self.client, self.namespace, self.name = client, namespace, name
        self.names = Names(name)

    def apply(self, spec: Object | None = None) -> "Server":
        """Create or replace the MLflowServer, by default with an empty spec."""
        self.client.apply(
            kinds.MLFLOWSERVER,
            {
                "apiVersion": api.API_VERSION,
                "kind": api.KIND,
                "metadata": {"name": self.name, "namespace": self.namespace},
                "spec": spec or {},
            },
        )
        return self

    def patch_spec(self, **spec: Any) -> None:
        """Apply a merge patch to the spec; None removes a field."""
        self.client.merge(kinds.MLFLOWSERVER, self.namespace, self.name, {"spec": spec})

    def trigger_reconcile(self) -> None:
        """Trigger a reconcile by a change of an unused annotation."""
        annotations = {"test/reconcile-at": str(time.monotonic_ns())}
        self.client.merge(
            kinds.MLFLOWSERVER, self.namespace, self.name, {"metadata": {"annotations": annotations}}
        )

    def resource(self) -> Object:
        """Return the MLflowServer as stored."""
        return self.client.need(kinds.MLFLOWSERVER, self.namespace, self.name)

    @property
    def status(self) -> Object:
        """The MLflowServer's status."""
        status: Object = self.resource().get("status") or {}
        return status

    def conditions(self) -> dict[str, Object]:
        """Return the conditions by type; empty if they are of an older generation."""
        resource = self.resource()
        status = resource.get("status") or {}
        if status.get("observedGeneration") != resource["metadata"]["generation"]:
            return {}
        return {condition["type"]: condition for condition in status.get("conditions") or []}

    def wait_for(
        self, condition_type: str, status: str = "True", reason: str = "", seconds: float = TIMEOUT_SECONDS
    ) -> Object:
        """Wait for a condition and return it. The AssertionError shows all conditions."""
        deadline = time.monotonic() + seconds
        while True:
            conditions = self.conditions()
            found = conditions.get(condition_type)
            if found and found["status"] == status and reason in {"", found["reason"]}:
                return found
            if time.monotonic() > deadline:
                last_seen = "\n".join(
                    f"  {c['type']}={c['status']} ({c['reason']}): {c['message']}"
                    for c in conditions.values()
                )
                raise AssertionError(
                    f"{self.name}: {condition_type}={status} {reason} not within {seconds:g} s:\n{last_seen}"
                )
            time.sleep(POLL_INTERVAL_SECONDS)

    def wait_ready(self) -> "Server":
        """Wait until the server is Ready."""
        self.wait_for("Ready")
        return self

    def wait_stores_running(self) -> "Server":
        """Wait until the pods of both embedded stores are ready. The pods are simulated, so the server is not Ready."""
        for name in (self.names.postgres, self.names.artifact_store):
            eventually(f"{name} runs", partial(self.has_ready_pod, name))
        return self

    def has_ready_pod(self, stateful_set: str) -> bool:
        """Whether a StatefulSet has a ready pod."""
        found = self.get(kinds.STATEFULSET, stateful_set) or {}
        return bool((found.get("status") or {}).get("readyReplicas"))

    def get(self, kind: Kind, name: str) -> Object | None:
        """Return an object of the namespace, or None."""
        return self.client.get(kind, self.namespace, name)

    def require(self, kind: Kind, name: str) -> Object:
        """Return an object of the namespace. It must exist."""
        return self.client.need(kind, self.namespace, name)

    def objects(self, kind: Kind) -> list[Object]:
        """Return all objects of a kind in the namespace."""
        return self.client.list(kind, self.namespace)

    def merge(self, kind: Kind, name: str, change: Object) -> None:
        """Apply a merge patch to an object, as a client that is not the operator."""
        self.client.merge(kind, self.namespace, name, change)

    def delete(self, propagation: str = "Background") -> None:
        """Delete the MLflowServer without waiting."""
        self.client.delete(kinds.MLFLOWSERVER, self.namespace, self.name, propagation)

    def events(self, reason: str = "") -> list[Object]:
        """Return the Events about the MLflowServer, by default with any reason."""
        found = [event for event in self.objects(kinds.EVENT) if event["involvedObject"]["name"] == self.name]
        return [event for event in found if reason in {"", event["reason"]}]


def external_spec(client: Client, namespace: str, postgres: Postgres, **spec: Any) -> Object:
    """Return a spec that becomes Ready in this cluster. Creates the Secret with the database's credentials.

    The spec has a new database of the running Postgres, and a bucket that the operator does not check because it has
    no key for it.
    """
    client.apply(kinds.SECRET, database_secret(namespace))
    database = {
        "host": "127.0.0.1",
        "port": postgres.port,
        "databaseName": postgres.create_database(),
        "credentialsSecretRef": {"name": DATABASE_SECRET},
        "tls": {"mode": "Disable"},
    }
    return {
        "workers": 1,
        "database": {"external": database},
        "artifacts": {"s3": {"bucket": "models"}},
        "podTemplate": {"spec": {"serviceAccountName": "default"}},
        **spec,
    }


def database_secret(namespace: str, password: str = PASSWORD) -> Object:
    """Return the Secret with the credentials of the external database."""
    return {
        "apiVersion": "v1",
        "kind": "Secret",
        "metadata": {"name": DATABASE_SECRET, "namespace": namespace},
        "stringData": {"username": USER, "password": password},
    }
