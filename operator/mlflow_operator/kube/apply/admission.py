"""Changes that admission controllers make to the operator's own writes: mirrored images, resources, tolerations.

The API server returns an object as it stored it. What differs from the request is not drift that another client caused,
and a second write would only repeat the change.
"""

import hashlib
import json
from collections import OrderedDict

from mlflow_operator.kube.objects import Object

_MAX_OBJECTS = 4096


class AdmittedWrites:
    """The results of the operator's last writes that differ from their requests, kept in memory by uid.

    After a restart the operator writes such an object once more, which changes nothing.
    """

    def __init__(self) -> None:
        self._digests: OrderedDict[str, str] = OrderedDict()

    def record(self, desired: Object, stored: Object) -> bool:
        """Remember the stored object. Return whether this is a new result."""
        uid, digest = str(stored["metadata"]["uid"]), _digest(desired, stored)
        is_new = self._digests.pop(uid, None) != digest
        self._digests[uid] = digest
        if len(self._digests) > _MAX_OBJECTS:
            self._digests.popitem(last=False)
        return is_new

    def forget(self, stored: Object) -> None:
        """Forget an object that is stored as requested."""
        self._digests.pop(str(stored["metadata"]["uid"]), None)

    def is_unchanged(self, desired: Object, observed: Object) -> bool:
        """Whether neither the desired object nor the stored one has changed since the operator wrote it."""
        return self._digests.get(str(observed["metadata"]["uid"])) == _digest(desired, observed)


def _digest(desired: Object, stored: Object) -> str:
    """A digest of the request and of the stored content, without what controllers and the API server update.

    Only the annotations that the operator sets are compared: controllers add their own.
    """
    metadata, annotations = stored["metadata"], desired["metadata"].get("annotations") or {}
    content = {key: value for key, value in stored.items() if key not in ("metadata", "status")}
    observed_annotations = metadata.get("annotations") or {}
    content["annotations"] = {name: observed_annotations.get(name) for name in annotations}
    content |= {name: metadata.get(name) for name in ("labels", "ownerReferences")}
    text = json.dumps([desired, content], sort_keys=True)
    return hashlib.sha256(text.encode()).hexdigest()
