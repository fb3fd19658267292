"""Compare the pod template of a Job that has no owner with the one that the operator would create.

The result of a Job counts as the result of its task. A Job is therefore adopted only if its pods do exactly that task.
"""

from functools import partial
from itertools import starmap
from typing import Any

from mlflow_operator.kube.apply import diff, schema_fields
from mlflow_operator.kube.objects import Object

_CONTROLLER_LABELS = frozenset(
    {"batch.kubernetes.io/controller-uid", "batch.kubernetes.io/job-name", "controller-uid", "job-name"}
)
"""Labels that the API server adds to the pod template of a Job."""

_DEFAULTS: dict[str, tuple[Any, ...]] = {
    "apiVersion": ("v1",),
    "defaultMode": (0o644,),
    "divisor": ("0",),
    "dnsPolicy": ("ClusterFirst",),
    "imagePullPolicy": ("Always", "IfNotPresent"),
    "protocol": ("TCP",),
    "schedulerName": ("default-scheduler",),
    "terminationGracePeriodSeconds": (30,),
    "terminationMessagePath": ("/dev/termination-log",),
    "terminationMessagePolicy": ("File",),
}
"""Values that the API server sets in a pod template if they are omitted."""


def has_desired_pod_template(desired: Object, observed: Object) -> bool:
    """Whether both Jobs have the same pod template, apart from defaults of the API server."""
    desired_template, observed_template = desired["spec"]["template"], observed["spec"]["template"]
    compared = {"spec": {"template": desired_template}}
    return not diff.drift(compared, observed) and not _has_additions(desired_template, observed_template, "")


def _has_additions(desired: Any, observed: Any, field: str) -> bool:
    """Whether `observed` contains a value that is neither desired nor a default. All desired values are equal."""
    if desired is None and not isinstance(observed, dict):
        return True
    if isinstance(observed, dict):
        members = desired if isinstance(desired, dict) else {}
        return any(
            not (members.get(name) is None and _is_default(name, value, field, observed))
            and _has_additions(members.get(name), value, name)
            for name, value in observed.items()
        )
    if isinstance(observed, list) and isinstance(desired, list):
        keys = schema_fields.list_map_keys(field, observed)
        if not keys:  # An atomic list: it has the desired length.
            return any(starmap(partial(_has_additions, field=field), zip(desired, observed, strict=True)))
        by_key = {schema_fields.entry_key(entry, keys): entry for entry in desired}
        return any(
            _has_additions(by_key.get(schema_fields.entry_key(entry, keys)), entry, "") for entry in observed
        )
    return False


def _is_default(name: str, value: Any, parent: str, siblings: Object) -> bool:
    if value in (None, "", {}, []) or value in _DEFAULTS.get(name, ()):
        return True
    if name == "serviceAccount":  # The deprecated alias.
        return bool(value == siblings.get("serviceAccountName"))
    return parent == "labels" and name in _CONTROLLER_LABELS
