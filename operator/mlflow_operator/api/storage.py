"""Volumes of the embedded database and of the embedded artifact store.

`size` is defaulted per kind of volume, so each has a class of its own.
"""

from mlflow_operator.api.model import Model
from mlflow_operator.api.quantities import StorageSize
from mlflow_operator.api.string_types import ObjectName

DATABASE_SIZE = "10Gi"
ARTIFACTS_SIZE = "20Gi"


class Storage(Model):
    """A volume that the operator makes and keeps."""

    size: StorageSize
    """Size of the volume. It may grow where the storage class allows it, and never shrinks."""
    storage_class_name: ObjectName | None = None
    """Storage class of the volume, fixed once the server is made. Absent: the default of the cluster."""


class DatabaseStorage(Storage):
    """The volume of the embedded database."""

    size: StorageSize = DATABASE_SIZE
    """Size of the volume. It may grow where the storage class allows it, and never shrinks."""


class ArtifactStorage(Storage):
    """The volume of the embedded artifact store."""

    size: StorageSize = ARTIFACTS_SIZE
    """Size of the volume. It may grow where the storage class allows it, and never shrinks."""
