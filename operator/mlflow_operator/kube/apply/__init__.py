"""Server-side apply: from a desired object to the request that changes the stored object, if one is necessary.

`Applier` is the entry point. It compares the desired with the observed object (`diff`, `schema_fields`), finds what
other clients added (`unmanaged_fields`), checks that the object belongs to the MLflowServer (`ownership`), and does not
fight with a client that reverts its changes (`backoff`).
"""

from mlflow_operator.kube.apply.applier import Applier, ApplyConflictError
from mlflow_operator.kube.apply.ownership import (
    BeingDeletedError,
    Cause,
    NameConflict,
    NameConflictError,
    belongs_to,
    check_ownership,
    conflict_message,
    find_conflict,
    is_adoptable,
    label_command,
)

__all__ = [
    "Applier",
    "ApplyConflictError",
    "BeingDeletedError",
    "Cause",
    "NameConflict",
    "NameConflictError",
    "belongs_to",
    "check_ownership",
    "conflict_message",
    "find_conflict",
    "is_adoptable",
    "label_command",
]
