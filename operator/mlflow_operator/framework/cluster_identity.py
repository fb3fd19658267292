"""The uid that identifies the cluster, read once per process."""

from mlflow_operator.kube import kinds
from mlflow_operator.kube.client import Forbidden, KubernetesClient

_NAMESPACE = "kube-system"
"""The uid of this namespace identifies the cluster, because the namespace is never deleted and recreated."""


class ClusterIdentity:
    """Keeps the uid of the cluster. It cannot change while the process runs, so that deletions use it as well."""

    def __init__(self) -> None:
        self._uid: str | None = None

    async def uid(self, cluster: KubernetesClient) -> str | None:
        """Return the uid; None if the operator is not allowed to read it. It is then requested again next time."""
        if self._uid is None:
            try:
                namespace = await cluster.get(kinds.NAMESPACE, None, _NAMESPACE)
            except Forbidden:
                return None
            self._uid = str(namespace["metadata"]["uid"]) if namespace else None
        return self._uid
