"""Publish Kubernetes Events, which `kubectl describe` shows.

The caller publishes one Event per change. If an Event cannot be created, the operator only logs it: this must never
block a reconcile.
"""

import logging
import uuid
from datetime import UTC, datetime

from mlflow_operator.kube import kinds
from mlflow_operator.kube.client import ClusterError, KubernetesClient, NamespaceTerminating
from mlflow_operator.kube.objects import Object

logger = logging.getLogger(__name__)

COMPONENT = "mlflow-operator"

_CLUSTER_SCOPED_NAMESPACE = "default"
"""The namespace in which Kubernetes requires Events about cluster-scoped objects."""

MAX_MESSAGE_BYTES = 1024
"""Limit of the API server for the message of an Event."""


class Events:
    """Publishes Events. `instance` is the name of this process, usually the pod name."""

    def __init__(self, cluster: KubernetesClient, instance: str = COMPONENT) -> None:
        self._cluster = cluster
        self._instance = instance

    async def publish(self, involved_object: Object, normal: bool, reason: str, message: str) -> None:
        """Create one Event about an object. `reason` is in CamelCase. Errors of the API server are not raised."""
        metadata = involved_object["metadata"]
        now = datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
        event = {
            "apiVersion": kinds.EVENT.api_version,
            "kind": kinds.EVENT.kind,
            "metadata": {
                # Names are at most 253 characters, and two Events of one second must not collide.
                "name": f"{metadata['name'][:200]}.{uuid.uuid4().hex[:16]}",
                "namespace": metadata.get("namespace", _CLUSTER_SCOPED_NAMESPACE),
            },
            "involvedObject": {
                "apiVersion": involved_object["apiVersion"],
                "kind": involved_object["kind"],
                **{key: metadata[key] for key in ("name", "namespace", "uid") if key in metadata},
                "resourceVersion": metadata.get("resourceVersion", ""),
            },
            "type": "Normal" if normal else "Warning",
            "reason": str(reason),
            "message": _truncate(message),
            "source": {"component": COMPONENT},
            "reportingComponent": COMPONENT,
            "reportingInstance": self._instance,
            "firstTimestamp": now,
            "lastTimestamp": now,
            "count": 1,
        }
        try:
            await self._cluster.create(event)
        except NamespaceTerminating:
            logger.debug("skipped an Event (%s): the namespace is terminating", reason)
        except ClusterError as error:
            logger.warning("cannot publish an Event (%s): %s", reason, error)


def _truncate(message: str) -> str:
    encoded = message.encode()
    if len(encoded) <= MAX_MESSAGE_BYTES:
        return message
    return encoded[: MAX_MESSAGE_BYTES - 3].decode(errors="ignore") + "…"
