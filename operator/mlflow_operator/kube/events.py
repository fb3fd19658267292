"""Events: what `kubectl describe mlflowserver` tells of late.

When to publish one is the caller's to decide, once per change. An Event that can't be written is a line in the
log: it must never hold up a server.
"""

import logging
import uuid
from datetime import UTC, datetime

from mlflow_operator.kube import kinds
from mlflow_operator.kube.client import ClusterError, KubernetesClient, NamespaceTerminating
from mlflow_operator.kube.objects import Object

logger = logging.getLogger(__name__)

COMPONENT = "mlflow-operator"

MAX_MESSAGE_CHARS = 1024
"""Bytes of a message; the API server refuses more."""


class Events:
    """Publishes Events. `instance` names this process, say the pod."""

    def __init__(self, cluster: KubernetesClient, instance: str = COMPONENT) -> None:
        self._cluster = cluster
        self._instance = instance

    async def publish(self, about: Object, normal: bool, reason: str, message: str) -> None:
        """One Event about an object: `reason` in CamelCase, `message` for people. Raises nothing of the API's."""
        metadata = about["metadata"]
        now = datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
        event = {
            "apiVersion": kinds.EVENT.api_version,
            "kind": kinds.EVENT.kind,
            "metadata": {
                # Names are at most 253 characters, and two Events of one second must not collide.
                "name": f"{metadata['name'][:200]}.{uuid.uuid4().hex[:16]}",
                "namespace": metadata["namespace"],
            },
            "involvedObject": {
                "apiVersion": about["apiVersion"],
                "kind": about["kind"],
                "name": metadata["name"],
                "namespace": metadata["namespace"],
                "uid": metadata["uid"],
                "resourceVersion": metadata.get("resourceVersion", ""),
            },
            "type": "Normal" if normal else "Warning",
            "reason": str(reason),
            "message": _cut(message),
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
            logger.debug("no Event (%s) in a namespace on its way out", reason)
        except ClusterError as error:
            logger.warning("an Event could not be published (%s): %s", reason, error)


def _cut(message: str) -> str:
    whole = message.encode()
    if len(whole) <= MAX_MESSAGE_CHARS:
        return message
    return whole[: MAX_MESSAGE_CHARS - 3].decode(errors="ignore") + "…"
