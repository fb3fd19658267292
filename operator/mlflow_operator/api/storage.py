"""Volumes of the embedded database and of the embedded artifact store.

They are separate classes, because their default sizes differ.
"""

from typing import Annotated

from pydantic import Field

from mlflow_operator.api.model import Model
from mlflow_operator.api.quantities import StorageSize
from mlflow_operator.api.string_types import ObjectName

DATABASE_SIZE = "10Gi"
ARTIFACTS_SIZE = "20Gi"


class Storage(Model):
    """PersistentVolumeClaim that the operator creates."""

    size: StorageSize
    """Size of the volume. Can be increased if the storage class allows it, but not decreased."""
    storage_class_name: Annotated[ObjectName | None, Field(examples=["fast-ssd"])] = None
    """Storage class of the volume. Immutable. Defaults to the default storage class of the cluster."""


class DatabaseStorage(Storage):
    """PersistentVolumeClaim of the embedded database."""

    size: StorageSize = DATABASE_SIZE
    """Size of the volume. Can be increased if the storage class allows it, but not decreased. Defaults to 10Gi."""


class ArtifactStorage(Storage):
    """PersistentVolumeClaim of the embedded artifact store."""

    size: StorageSize = ARTIFACTS_SIZE
    """Size of the volume. Can be increased if the storage class allows it, but not decreased. Defaults to 20Gi."""
