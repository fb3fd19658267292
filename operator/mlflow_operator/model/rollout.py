"""Restart of the server's pods when the values that they read from Secrets and ConfigMaps change."""

import hashlib
import hmac
import json
from collections.abc import Iterable, Mapping

from mlflow_operator.kube import labels
from mlflow_operator.kube.objects import Object


def fingerprint(values: Mapping[str, Mapping[str, str] | None], key: bytes) -> str:
    """HMAC-SHA256 over the data of Secrets and ConfigMaps, by name. None is an object that does not exist.

    It is stored in an annotation that many users can read. A plain hash would allow them to guess passwords offline;
    `key` belongs to the server and is stored in a Secret.
    """
    text = json.dumps(values, sort_keys=True, separators=(",", ":"))
    return hmac.new(key, text.encode(), hashlib.sha256).hexdigest()[:32]


def is_complete(deployment: Object, pods: Iterable[Object]) -> bool:
    """Whether all running pods match the Deployment's current template and the desired number is available.

    Terminating pods count until they are gone, because they may still serve. `pods` are all running pods, including
    those of migration Jobs, which never match the template.
    """
    status, spec = deployment.get("status") or {}, deployment["spec"]
    desired = int(spec.get("replicas") or 0)
    if status.get("observedGeneration") != deployment["metadata"].get("generation"):
        return False
    if (
        int(status.get("updatedReplicas") or 0) < desired
        or int(status.get("availableReplicas") or 0) < desired
    ):
        return False
    newest = _inputs_digest(spec["template"])
    return all(_inputs_digest(pod) == newest for pod in pods)


def _inputs_digest(pod: Object) -> str | None:
    digest = (pod["metadata"].get("annotations") or {}).get(labels.INPUTS_DIGEST)
    return None if digest is None else str(digest)
