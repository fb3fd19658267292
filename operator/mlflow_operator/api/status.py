"""What the operator reports: `status`. Nothing here is refused: the operator itself writes it."""

from datetime import datetime
from enum import StrEnum
from typing import Annotated

from pydantic import Field

from mlflow_operator.api.markers import Int32, Int64, ListMap
from mlflow_operator.api.model import Model

Text = Annotated[str, Field(max_length=1024)]
"""Words of the operator's own. No enums: after a downgrade the status of a newer operator must still be read."""


class ConditionStatus(StrEnum):
    """Whether a condition holds."""

    TRUE = "True"
    FALSE = "False"
    UNKNOWN = "Unknown"


class Condition(Model):
    """One aspect of the server's health, as Kubernetes shapes conditions."""

    type: Annotated[str, Field(max_length=316)]
    """Ready, CredentialsReady, DatabaseReady, ArtifactStoreReady, UpgradeReady, SchemaReady, ServerAvailable,
    BackupReady or GarbageCollectionReady."""
    status: ConditionStatus
    """True, False or Unknown."""
    reason: Annotated[str, Field(max_length=1024)]
    """A word for programs; the documentation lists them."""
    message: Annotated[str, Field(max_length=32768)]
    """The cause and the next step, for people."""
    last_transition_time: datetime
    """When `status` last changed."""
    observed_generation: Int64 | None = None
    """The generation of the resource that this is about."""


class DatabaseStatus(Model):
    """The database in use."""

    type: Text | None = None
    """Embedded, External, Provision or CloudNativePG."""
    host: Text | None = None
    """Where it is."""
    port: Int32 | None = None
    """The port there."""
    name: Text | None = None
    """Name of the database there."""


class ArtifactsStatus(Model):
    """The artifact store in use."""

    type: Text | None = None
    """Embedded, S3 or External."""
    uri: Text | None = None
    """Bucket and prefix, or the address of an external store."""


class ClientConfigMapRef(Model):
    """A ConfigMap made for clients."""

    name: Text
    """Name of the ConfigMap, in the namespace of the server."""


class ClientSecretRef(Model):
    """A Secret made for clients."""

    name: Text
    """Name of the Secret, in the namespace of the server."""


class UpgradeStatus(Model):
    """An upgrade: from which version to which, and what it cost."""

    from_version: Text | None = None
    """MLflow version that ran before."""
    to_version: Text | None = None
    """MLflow version that was asked for."""
    from_revision: Text | None = None
    """Revision of the tables before."""
    to_revision: Text | None = None
    """Revision of the tables that the version needs; the same where they fit as they were."""
    start_time: datetime | None = None
    """When its preflight began."""
    completion_time: datetime | None = None
    """When every server of the new version answered. Absent while it is under way."""
    downtime_seconds: Int32 | None = None
    """Seconds from the last stop of the servers until one answered again; 0 where they never stopped."""


class BackupStatus(Model):
    """Backups, as far as their Jobs told."""

    last_id: Annotated[Text | None, Field(alias="lastID")] = None
    """Id of the last good backup; `spec.restoreFrom.backup` takes it."""
    last_uri: Annotated[Text | None, Field(alias="lastURI")] = None
    """Where it is."""
    last_success_time: datetime | None = None
    """When it was done."""
    last_failure_time: datetime | None = None
    """When a backup failed the last time."""
    last_size_bytes: Int64 | None = None
    """Size of the last good one."""


class GarbageCollectionStatus(Model):
    """What the last clean-up removed for good."""

    last_run_time: datetime | None = None
    """When the last one that did all it was asked for ended."""
    last_failure_time: datetime | None = None
    """When the last one ended that did not."""
    mode: Text | None = None
    """Delete; or DryRun, which removes nothing."""
    deleted_runs: Int32 | None = None
    """Runs that it removed."""
    deleted_models: Int32 | None = None
    """Logged models that it removed."""
    deleted_experiments: Int32 | None = None
    """Experiments that it removed."""
    deleted_traces: Int32 | None = None
    """Traces that it removed."""


class Status(Model):
    """What was last seen; absent members are not known yet."""

    observed_generation: Int64 | None = None
    """The generation of the resource that this status is about."""
    url: Text | None = None
    """Where clients inside the cluster reach the server."""
    version: Text | None = None
    """MLflow version that is running."""
    image: Text | None = None
    """Image that is running."""
    schema_revision: Text | None = None
    """Revision of the tables in the database."""
    replicas: Int32 | None = None
    """Pods of the server."""
    ready_replicas: Int32 | None = None
    """Pods of the server that answer."""
    selector: Text | None = None
    """Label selector of the server's pods, for autoscalers."""
    database: DatabaseStatus | None = None
    """The database in use."""
    artifacts: ArtifactsStatus | None = None
    """The artifact store in use."""
    credentials_rotated_at: datetime | None = None
    """The `spec.rotateCredentialsAt` that was last carried out."""
    client_config_map_ref: ClientConfigMapRef | None = None
    """A ConfigMap with MLFLOW_TRACKING_URI and the like, made for `envFrom` of a client's pod."""
    client_secret_ref: ClientSecretRef | None = None
    """With access Direct: a Secret with the keys of the artifact store, made for `envFrom` beside the ConfigMap."""
    upgrade: UpgradeStatus | None = None
    """The last upgrade, or the one under way. One that was given up leaves nothing here."""
    restored_backup: Text | None = None
    """Id of the backup that the tables come from, where `spec.restoreFrom` had them restored."""
    backup: BackupStatus | None = None
    """The last good backup, and the last failure."""
    garbage_collection: GarbageCollectionStatus | None = None
    """What the last clean-up removed for good."""
    conditions: Annotated[tuple[Condition, ...], Field(max_length=32), ListMap("type")] = ()
    """Ready sums up the others. One that is not True says why and what to do."""
