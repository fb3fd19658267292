"""The part of CloudNativePG that tests need: a reduced CRD of Cluster, and the objects that its operator writes.

Names and spellings are those of CloudNativePG 1.30 (api/v1/cluster_types.go and pkg/specs/secrets.go).
"""

import json
from typing import Any

from mlflow_operator.kube.objects import Object

_STRING: Object = {"type": "string"}
_COUNT: Object = {"type": "integer"}
_CONDITION: Object = {
    "type": "object",
    "properties": dict.fromkeys(("type", "status", "reason", "message", "lastTransitionTime"), _STRING),
}


def _object(**properties: Any) -> Object:
    return {"type": "object", "properties": properties}


CLUSTER_SCHEMA: Object = _object(
    apiVersion=_STRING,
    kind=_STRING,
    metadata={"type": "object"},
    spec=_object(
        instances=_COUNT,
        bootstrap=_object(initdb=_object(database=_STRING, owner=_STRING)),
        storage=_object(size=_STRING),
    ),
    status=_object(
        instances=_COUNT,
        readyInstances=_COUNT,
        phase=_STRING,
        currentPrimary=_STRING,
        writeService=_STRING,
        conditions={"type": "array", "items": _CONDITION},
    ),
)
"""OpenAPI schema of a Cluster."""

CRD: Object = {
    "apiVersion": "apiextensions.k8s.io/v1",
    "kind": "CustomResourceDefinition",
    "metadata": {"name": "clusters.postgresql.cnpg.io"},
    "spec": {
        "group": "postgresql.cnpg.io",
        "names": {"kind": "Cluster", "listKind": "ClusterList", "plural": "clusters", "singular": "cluster"},
        "scope": "Namespaced",
        "versions": [
            {
                "name": "v1",
                "served": True,
                "storage": True,
                "schema": {"openAPIV3Schema": CLUSTER_SCHEMA},
                "subresources": {"status": {}},
            }
        ],
    },
}


def cluster(name: str, **spec: Any) -> Object:
    """Return a Cluster with one instance."""
    return {
        "apiVersion": "postgresql.cnpg.io/v1",
        "kind": "Cluster",
        "metadata": {"name": name},
        "spec": {"instances": 1, "storage": {"size": "1Gi"}, **spec},
    }


def cluster_status(name: str, *, healthy: bool) -> Object:
    """Return the status of a Cluster: once it is healthy, or while its first instance is created."""
    ready = {"status": "True", "reason": "ClusterIsReady", "message": "Cluster is Ready"}
    not_ready = {"status": "False", "reason": "ClusterIsNotReady", "message": "Cluster Is Not Ready"}
    condition = {
        "type": "Ready",
        "lastTransitionTime": "2026-01-01T00:00:00Z",
        **(ready if healthy else not_ready),
    }
    return {
        "instances": 1,
        "readyInstances": 1 if healthy else 0,
        "phase": "Cluster in healthy state" if healthy else "Setting up primary",
        "currentPrimary": f"{name}-1",
        "writeService": f"{name}-rw",
        "conditions": [condition],
    }


def app_secret(name: str, namespace: str, database: str, user: str, password: str) -> Object:
    """Return the Secret `<name>-app` with all keys that clients read."""
    return _login_secret(name, namespace, database, user, password, user_type="app")


def superuser_secret(name: str, namespace: str, password: str) -> Object:
    """Return the Secret `<name>-superuser` of a Cluster with `enableSuperuserAccess`. It names no database."""
    return _login_secret(name, namespace, "*", "postgres", password, user_type="superuser")


def _login_secret(
    name: str, namespace: str, database: str, user: str, password: str, *, user_type: str
) -> Object:
    host, port = f"{name}-rw", 5432
    values = {
        "username": user,
        "user": user,
        "password": password,
        "dbname": database,
        "host": host,
        "port": str(port),
        "uri": f"postgresql://{user}:{password}@{host}.{namespace}:{port}/{database}",
        "pgpass": f"{host}:{port}:{database}:{user}:{password}\n",
    }
    return {
        "apiVersion": "v1",
        "kind": "Secret",
        "metadata": {
            "name": f"{name}-{user_type}",
            "labels": {"cnpg.io/reload": "true", "cnpg.io/userType": user_type},
        },
        "type": "kubernetes.io/basic-auth",
        "stringData": values,
    }


def service(name: str, host: str) -> Object:
    """Return the Service `<name>-rw`, which resolves to a Postgres elsewhere in the test's cluster."""
    return {
        "apiVersion": "v1",
        "kind": "Service",
        "metadata": {"name": f"{name}-rw"},
        "spec": {"type": "ExternalName", "externalName": f"{host}.cluster.local"},
    }


def status_patch_arguments(name: str, *, healthy: bool) -> tuple[str, ...]:
    """Return kubectl's arguments that write the status of a Cluster, like CloudNativePG's operator does."""
    patch = json.dumps({"status": cluster_status(name, healthy=healthy)})
    return ("patch", "clusters.postgresql.cnpg.io", name, "--subresource=status", "--type=merge", "-p", patch)
