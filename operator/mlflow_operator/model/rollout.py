"""One value that changes when anything changes that a server's pods read from elsewhere."""

import hashlib
import hmac
import json
from collections.abc import Iterable, Mapping

from mlflow_operator.kube import labels
from mlflow_operator.kube.objects import Object


def fingerprint(values: Mapping[str, Mapping[str, str] | None], key: bytes) -> str:
    """HMAC-SHA256 over the data of Secrets and ConfigMaps, by name; None for one that does not exist.

    It stands in an annotation that many may read. With a bare hash they could try passwords against it until
    one fits; `key` is the server's own and is kept in a Secret.
    """
    text = json.dumps(values, sort_keys=True, separators=(",", ":"))
    return hmac.new(key, text.encode(), hashlib.sha256).hexdigest()[:32]


def complete(deployment: Object, pods: Iterable[Object]) -> bool:
    """Whether every pod that lives is of the Deployment's newest template, and as many are available as are wanted.

    Pods on their way out count for as long as they live: they may still answer. `pods` holds those that live, those of
    migrations, too, which are never of that template.
    """
    status, spec = deployment.get("status") or {}, deployment["spec"]
    wanted = int(spec.get("replicas") or 0)
    if status.get("observedGeneration") != deployment["metadata"].get("generation"):
        return False
    if int(status.get("updatedReplicas") or 0) < wanted or int(status.get("availableReplicas") or 0) < wanted:
        return False
    newest = _inputs(spec["template"])
    return all(_inputs(pod) == newest for pod in pods)


def _inputs(templated: Object) -> str | None:
    found = (templated["metadata"].get("annotations") or {}).get(labels.INPUTS)
    return None if found is None else str(found)
