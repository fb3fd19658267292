"""Changes that admission controllers make to the operator's own writes: mirrored images, resources, tolerations.

The API server returns an object as it stored it. What differs from the request is not drift that another client caused,
and a second write would only repeat the change.
"""

import hashlib
import json

from mlflow_operator.kube.objects import NamespacedName, Object


class AdmittedWrites:
    """The results of the operator's last writes that differ from their requests, kept in memory.

    After a restart the operator writes such an object once more, which changes nothing. There is at most one result for
    each name that an existing server uses. A limit for all servers would make the operator write objects beyond it
    again in each reconcile.
    """

    def __init__(self) -> None:
        self._digests: dict[NamespacedName, dict[tuple[str, str], str]] = {}

    def record(self, server: NamespacedName, desired: Object, stored: Object) -> bool:
        """Remember an object of `server` as it is stored. Return whether this is a new result."""
        digests, key, digest = self._digests.setdefault(server, {}), _key(stored), _digest(desired, stored)
        is_new = digests.get(key) != digest
        digests[key] = digest
        return is_new

    def forget(self, server: NamespacedName, stored: Object) -> None:
        """Forget an object that is stored as requested."""
        self._digests.get(server, {}).pop(_key(stored), None)

    def forget_server(self, server: NamespacedName) -> None:
        """Forget the objects of a server that does not exist any more."""
        self._digests.pop(server, None)

    def is_unchanged(self, server: NamespacedName, desired: Object, observed: Object) -> bool:
        """Whether neither the desired object nor the stored one has changed since the operator wrote it."""
        digests = self._digests.get(server, {})
        return digests.get(_key(observed)) == _digest(desired, observed)


def _key(obj: Object) -> tuple[str, str]:
    return obj["kind"], str(obj["metadata"]["name"])


def _digest(desired: Object, stored: Object) -> str:
    """A digest of the request and of the stored content, without what controllers and the API server update.

    Only the annotations that the operator sets are compared: controllers add their own.
    """
    metadata, annotations = stored["metadata"], desired["metadata"].get("annotations") or {}
    content = {key: value for key, value in stored.items() if key not in ("metadata", "status")}
    observed_annotations = metadata.get("annotations") or {}
    content["annotations"] = {name: observed_annotations.get(name) for name in annotations}
    content |= {name: metadata.get(name) for name in ("uid", "labels", "ownerReferences")}
    text = json.dumps([desired, content], sort_keys=True)
    return hashlib.sha256(text.encode()).hexdigest()
