"""Defaults of a platform for the fields that a server leaves out: `spec.serverDefaults` of an MLflowPlatform.

A server takes them once, when it is created, like a claim takes the default StorageClass. If they were read again with
each reconcile, one edit of a platform would restart the pods of all its servers, migrate their databases to another
MLflow version, or start to delete runs in servers whose users expect that they are kept.
"""

from typing import Annotated

from pydantic import Field

from mlflow_operator.api.backup import Backup
from mlflow_operator.api.garbage_collection import GarbageCollection
from mlflow_operator.api.markers import ListMap
from mlflow_operator.api.model import Model
from mlflow_operator.api.pods import PodMetadata
from mlflow_operator.api.references import LocalObjectReference
from mlflow_operator.api.string_types import MLflowVersion


class ServerDefaults(Model):
    """Defaults for fields that a new server leaves out. Secrets that they reference must exist in the namespace of the
    server.
    """

    version: Annotated[MLflowVersion | None, Field(examples=["3.17.2"])] = None
    """Default of `spec.version` of a server without `spec.image`. Later, only the server's own `spec.version` upgrades
    it. Defaults to the version that the operator is tested with.
    """
    image_pull_secrets: Annotated[
        tuple[LocalObjectReference, ...], Field(max_length=16), ListMap("name")
    ] = ()
    """Default of `spec.podTemplate.spec.imagePullSecrets`. A list of the server, also an empty one, replaces it."""
    pod_metadata: PodMetadata = PodMetadata()
    """Default of `spec.podTemplate.metadata`. Labels and annotations are merged by key, and those of the server take
    precedence.
    """
    backup: Backup | None = None
    """Default of `spec.backup`, of which the server's own value replaces the whole. A server whose artifact store is
    not S3 takes it only if it names a bucket in `s3`. If not set, servers without `spec.backup` create no backups.
    """
    garbage_collection: GarbageCollection | None = None
    """Default of `spec.garbageCollection`, of which the server's own value replaces the whole. To delete nothing, a
    server sets `mode` DryRun. If not set, servers without `spec.garbageCollection` delete nothing permanently.
    """
