"""One MLflowServer under test, and how tests wait for it."""

import time
from collections.abc import Callable
from functools import partial
from typing import Any, TypeVar

from mlflow_operator import api
from mlflow_operator.kube import kinds
from mlflow_operator.kube.kinds import Kind
from mlflow_operator.kube.objects import Object
from mlflow_operator.model.names import Names
from tests.apiserver.client import Client
from tests.integration.postgres import PASSWORD, USER, Postgres

T = TypeVar("T")

TIMEOUT_SECONDS = 60.0
"""Limit for each wait. The operator reacts within a second on an idle machine."""

POLL_SECONDS = 0.1
DATABASE_SECRET = "postgres"


def eventually(what: str, check: Callable[[], T | None], seconds: float = TIMEOUT_SECONDS) -> T:
    """The first true answer of `check`. AssertionError with `what` if there is none."""
    deadline = time.monotonic() + seconds
    while True:
        if answer := check():
            return answer
        assert time.monotonic() < deadline, f"not within {seconds:g} s: {what}"
        time.sleep(POLL_SECONDS)


class Server:
    """The MLflowServer `name` in a namespace, and the objects that the operator creates for it."""

    def __init__(self, client: Client, namespace: str, name: str = "tracking") -> None:
        self.client, self.namespace, self.name = client, namespace, name
        self.names = Names(name)

    def apply(self, spec: Object | None = None) -> "Server":
        """Create or replace it; without a spec, with every default."""
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

    def change(self, **spec: Any) -> None:
        """Merge patch of the spec; None removes a field."""
        self.client.merge(kinds.MLFLOWSERVER, self.namespace, self.name, {"spec": spec})

    def touch(self) -> None:
        """Change an annotation without a meaning, so that the operator reconciles."""
        annotations = {"test/touched": str(time.monotonic_ns())}
        self.client.merge(
            kinds.MLFLOWSERVER, self.namespace, self.name, {"metadata": {"annotations": annotations}}
        )

    def stored(self) -> Object:
        """The resource as it is stored."""
        return self.client.need(kinds.MLFLOWSERVER, self.namespace, self.name)

    @property
    def status(self) -> Object:
        """Its status."""
        found: Object = self.stored().get("status") or {}
        return found

    def conditions(self) -> dict[str, Object]:
        """Conditions by type; none while they are about an older generation."""
        stored = self.stored()
        status = stored.get("status") or {}
        if status.get("observedGeneration") != stored["metadata"]["generation"]:
            return {}
        return {condition["type"]: condition for condition in status.get("conditions") or []}

    def until(
        self, kind: str, status: str = "True", reason: str = "", seconds: float = TIMEOUT_SECONDS
    ) -> Object:
        """Wait for a condition and return it. The error shows all conditions."""
        deadline = time.monotonic() + seconds
        while True:
            conditions = self.conditions()
            found = conditions.get(kind)
            if found and found["status"] == status and reason in {"", found["reason"]}:
                return found
            if time.monotonic() > deadline:
                seen = "\n".join(
                    f"  {c['type']}={c['status']} ({c['reason']}): {c['message']}"
                    for c in conditions.values()
                )
                raise AssertionError(
                    f"{self.name}: {kind}={status} {reason} not within {seconds:g} s:\n{seen}"
                )
            time.sleep(POLL_SECONDS)

    def ready(self) -> "Server":
        """Wait until it is Ready."""
        self.until("Ready")
        return self

    def stores_run(self) -> "Server":
        """Wait until the pods of both embedded stores run. Nothing answers in them, so the server is not Ready."""
        for name in (self.names.postgres, self.names.artifact_store):
            eventually(f"{name} runs", partial(self.runs, name))
        return self

    def runs(self, stateful_set: str) -> bool:
        """Whether a StatefulSet has a ready pod."""
        found = self.get(kinds.STATEFULSET, stateful_set) or {}
        return bool((found.get("status") or {}).get("readyReplicas"))

    def get(self, kind: Kind, name: str) -> Object | None:
        """An object of the namespace, or None."""
        return self.client.get(kind, self.namespace, name)

    def need(self, kind: Kind, name: str) -> Object:
        """An object of the namespace that must exist."""
        return self.client.need(kind, self.namespace, name)

    def objects(self, kind: Kind) -> list[Object]:
        """All objects of a kind in the namespace."""
        return self.client.list(kind, self.namespace)

    def merge(self, kind: Kind, name: str, change: Object) -> None:
        """Merge patch of an object, as another client."""
        self.client.merge(kind, self.namespace, name, change)

    def delete(self, propagation: str = "Background") -> None:
        """Delete the resource and do not wait."""
        self.client.delete(kinds.MLFLOWSERVER, self.namespace, self.name, propagation)

    def events(self, reason: str = "") -> list[Object]:
        """Events about it, or those with this reason."""
        found = [event for event in self.objects(kinds.EVENT) if event["involvedObject"]["name"] == self.name]
        return [event for event in found if reason in {"", event["reason"]}]


def external(client: Client, namespace: str, postgres: Postgres, **spec: Any) -> Object:
    """A spec that becomes Ready here: a new database of the running Postgres, and a bucket that the operator has no
    key for and so does not check. Creates the Secret with the database's credentials.
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
    """The Secret with the credentials of the external database."""
    return {
        "apiVersion": "v1",
        "kind": "Secret",
        "metadata": {"name": DATABASE_SECRET, "namespace": namespace},
        "stringData": {"username": USER, "password": password},
    }
