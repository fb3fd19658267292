"""Status of the server. It has no validation rules, because only the operator writes it."""

from datetime import datetime
from enum import StrEnum
from typing import Annotated

from pydantic import Field

from mlflow_operator.api.markers import Int32, Int64, ListAtomic, ListMap, Opaque
from mlflow_operator.api.model import Model

Text = Annotated[str, Field(max_length=1024)]
"""Text that the operator writes. There are no enums: an operator must be able to read the status of a newer version."""


class ConditionStatus(StrEnum):
    """Status of a condition."""

    TRUE = "True"
    FALSE = "False"
    UNKNOWN = "Unknown"


class Condition(Model):
    """Condition of the server, in the format of Kubernetes conditions."""

    type: Annotated[str, Field(max_length=316, examples=["SchemaReady"])]
    """Type of the condition: Ready, CredentialsReady, DatabaseReady, ArtifactStoreReady, UpgradeReady, SchemaReady,
    EncryptionReady, AuthenticationReady, ServerAvailable, BackupReady or GarbageCollectionReady.
    """
    status: Annotated[ConditionStatus, Field(examples=["False"])]
    """Status of the condition: True, False or Unknown."""
    reason: Annotated[str, Field(max_length=1024, examples=["Progressing"])]
    """Machine-readable reason. The documentation lists all reasons."""
    message: Annotated[str, Field(max_length=32768, examples=["Waiting for the migration Job to finish."])]
    """Human-readable message with the cause and the next step."""
    last_transition_time: Annotated[datetime, Field(examples=["2026-12-24T18:00:30Z"])]
    """Time at which `status` last changed."""
    observed_generation: Annotated[Int64 | None, Field(examples=[3])] = None
    """Generation of the resource from which the operator derived this condition."""


class DatabaseStatus(Model):
    """Database that the server uses."""

    type: Annotated[Text | None, Field(examples=["Embedded"])] = None
    """Type of the database: Embedded, External, Provision, CloudNativePG or Platform."""
    host: Annotated[Text | None, Field(examples=["tracking-postgres.team-a.svc"])] = None
    """Host name or IP address of the database."""
    port: Annotated[Int32 | None, Field(examples=[5432])] = None
    """Port of the database."""
    name: Annotated[Text | None, Field(examples=["mlflow"])] = None
    """Name of the database."""


MAX_PREVIOUS_LOCATIONS = 16
"""Maximum number of previous artifact locations. Each change of the store while old pods still run adds one."""


class ArtifactLocation(Model):
    """Location of artifacts."""

    uri: Annotated[Text, Field(examples=["s3://mlflow-before"])]
    """URI of the bucket with its prefix, or of the external store."""
    endpoint: Annotated[Text | None, Field(examples=["https://minio.example.com"])] = None
    """Endpoint of the S3 store. Not set for AWS and for stores that are not S3."""


class ArtifactsStatus(Model):
    """Artifact store that the server uses."""

    type: Annotated[Text | None, Field(examples=["Embedded"])] = None
    """Type of the artifact store: Embedded, S3, External or Platform."""
    uri: Annotated[Text | None, Field(examples=["s3://mlflow"])] = None
    """URI of the bucket with its prefix, or of the external store."""
    endpoint: Annotated[Text | None, Field(examples=["https://minio.example.com"])] = None
    """Endpoint of the S3 store. Not set for AWS and for stores that are not S3."""
    previous_locations: Annotated[
        tuple[ArtifactLocation, ...] | None, Field(max_length=MAX_PREVIOUS_LOCATIONS), ListAtomic()
    ] = None
    """Previous locations that pods still use after a change of the store. The generated key of the server keeps access
    to them until these pods are gone.
    """


class PlatformStatus(Model):
    """MLflowPlatform that the server uses. The operator chooses it once, before it creates anything."""

    name: Annotated[Text, Field(examples=["shared"])]
    """Name of the MLflowPlatform."""
    uid: Annotated[Text, Field(examples=["0d4b3a52-7f0e-4b2f-9a53-5a4a3b1d8c11"])] = ""
    """UID of the MLflowPlatform."""
    parts: Annotated[
        tuple[Annotated[str, Field(max_length=64)], ...],
        Field(max_length=16, examples=[["Database", "Artifacts"]]),
        ListAtomic(),
    ] = ()
    """Stores of the platform that the server uses: Database, Artifacts, or both."""


class PullSecretRef(Model):
    """Reference to a Secret with registry credentials."""

    name: Annotated[Text, Field(examples=["registry"])]
    """Name of the Secret, in the namespace of the server."""


class PlatformDefaultsStatus(Model):
    """Values that the server took from `spec.serverDefaults` of an MLflowPlatform when it was created, because its spec
    did not set them. A value that the spec sets later takes precedence. Fields that are not set were not taken.
    """

    platform: Annotated[Text, Field(examples=["shared"])]
    """Name of the MLflowPlatform."""
    version: Annotated[Text | None, Field(examples=["3.17.2"])] = None
    """MLflow version with which the server was created."""
    image_pull_secrets: Annotated[tuple[PullSecretRef, ...] | None, Field(max_length=16), ListAtomic()] = None
    """Secrets with registry credentials, for all pods of the server."""
    pod_metadata: Annotated[
        Opaque | None, Field(examples=[{"labels": {"example.com/cost-center": "42"}}])
    ] = None
    """Labels and annotations of the pods, as in `spec.podTemplate.metadata`."""
    backup: Annotated[Opaque | None, Field(examples=[{"schedule": "0 2 * * *"}])] = None
    """Scheduled backups of the database, as in `spec.backup`."""
    garbage_collection: Annotated[Opaque | None, Field(examples=[{"schedule": "0 3 * * 0"}])] = None
    """Garbage collection, as in `spec.garbageCollection`."""


class ClientConfigMapRef(Model):
    """Reference to the ConfigMap for clients."""

    name: Annotated[Text, Field(examples=["tracking-client"])]
    """Name of the ConfigMap, in the namespace of the server."""


class ClientSecretRef(Model):
    """Reference to the Secret for clients."""

    name: Annotated[Text, Field(examples=["tracking-client"])]
    """Name of the Secret, in the namespace of the server."""


class UpgradeStatus(Model):
    """Upgrade from one version to another, with its times and downtime."""

    from_version: Annotated[Text | None, Field(examples=["3.16.1"])] = None
    """MLflow version before the upgrade."""
    to_version: Annotated[Text | None, Field(examples=["3.17.2"])] = None
    """MLflow version that the upgrade installs."""
    from_revision: Annotated[Text | None, Field(examples=["b7e2c1a4d9f3"])] = None
    """Schema revision of the database before the upgrade."""
    to_revision: Annotated[Text | None, Field(examples=["dc11669786a5"])] = None
    """Schema revision that the new version requires. Equal to `fromRevision` if no migration is necessary."""
    start_time: Annotated[datetime | None, Field(examples=["2026-12-24T18:00:00Z"])] = None
    """Time at which the preflight of the upgrade started."""
    completion_time: Annotated[datetime | None, Field(examples=["2026-12-24T18:01:10Z"])] = None
    """Time at which all pods of the new version were ready. Not set while the upgrade is in progress."""
    downtime_seconds: Annotated[Int32 | None, Field(examples=[16])] = None
    """Seconds from the last scale-down to zero until a pod was ready again; 0 if the server was never scaled to zero.
    """


class BackupStatus(Model):
    """Results of backup Jobs."""

    last_id: Annotated[Text | None, Field(alias="lastID", examples=["20261224T020000Z-0a1b2c3d"])] = None
    """ID of the last successful backup, for `spec.restoreFrom.backup`."""
    last_uri: Annotated[
        Text | None,
        Field(
            alias="lastURI",
            examples=[
                "s3://mlflow-backups/mlflow-operator-backups/team-a/tracking/20261224T020000Z-0a1b2c3d"
            ],
        ),
    ] = None
    """URI of the last successful backup."""
    last_success_time: Annotated[datetime | None, Field(examples=["2026-12-24T02:00:21Z"])] = None
    """Time at which the last successful backup finished."""
    last_failure_time: Annotated[datetime | None, Field(examples=["2026-12-20T02:00:35Z"])] = None
    """Time at which a backup last failed."""
    last_size_bytes: Annotated[Int64 | None, Field(examples=[1048576])] = None
    """Size of the last successful backup in bytes."""


class GarbageCollectionStatus(Model):
    """Results of garbage collection."""

    last_run_time: Annotated[datetime | None, Field(examples=["2026-12-20T03:00:40Z"])] = None
    """Time at which the last successful garbage collection finished."""
    last_failure_time: Annotated[datetime | None, Field(examples=["2026-12-13T03:00:25Z"])] = None
    """Time at which a garbage collection last failed."""
    mode: Annotated[Text | None, Field(examples=["Delete"])] = None
    """Mode of the last garbage collection: Delete, or DryRun, which deletes nothing."""
    deleted_runs: Annotated[Int32 | None, Field(examples=[12])] = None
    """Number of runs that the last garbage collection permanently deleted."""
    deleted_models: Annotated[Int32 | None, Field(examples=[3])] = None
    """Number of logged models that the last garbage collection permanently deleted."""
    deleted_experiments: Annotated[Int32 | None, Field(examples=[1])] = None
    """Number of experiments that the last garbage collection permanently deleted."""
    deleted_traces: Annotated[Int32 | None, Field(examples=[40])] = None
    """Number of traces that the last garbage collection permanently deleted."""


class EncryptionStatus(Model):
    """Keys with which the server encrypts gateway and webhook secrets."""

    secret_name: Annotated[Text | None, Field(examples=["tracking-encryption"])] = None
    """Name of the Secret with the keys, in the namespace of the server."""
    passphrase_version: Annotated[Int32 | None, Field(examples=[1048583])] = None
    """Version of the current passphrase. MLflow stores it with each gateway secret. Not set while existing gateway
    secrets are being encrypted with the first passphrase, nor with `encryption.secretRef`.
    """


class AdminSecretRef(Model):
    """Reference to the Secret with the password of the administrator."""

    name: Annotated[Text, Field(examples=["tracking-admin"])]
    """Name of the Secret, in the namespace of the server."""


class AuthenticationStatus(Model):
    """Authentication of clients."""

    type: Annotated[Text | None, Field(examples=["Basic"])] = None
    """Type of the authentication that the server pods require: Basic, or None."""
    schema_revision: Annotated[Text | None, Field(examples=["f1a2b3c4d5e6"])] = None
    """Schema revision of the tables with users and roles."""
    users: Annotated[Int64 | None, Field(examples=[12])] = None
    """Number of users, including the administrator."""
    password_check: Annotated[Text | None, Field(examples=["Direct"])] = None
    """How passwords are checked. Direct: a changed password or a deleted user is refused at once. Cached: MLflow itself
    checks them, and remembers the result for a short time in each process.
    """


class Status(Model):
    """Most recently observed state of the server. Fields that are not set are not known yet."""

    observed_generation: Annotated[Int64 | None, Field(examples=[3])] = None
    """Generation of the resource that the operator last reconciled."""
    url: Annotated[Text | None, Field(examples=["http://tracking.team-a.svc:5000"])] = None
    """URL of the server for clients inside the cluster."""
    version: Annotated[Text | None, Field(examples=["3.17.2"])] = None
    """MLflow version that is running."""
    image: Annotated[Text | None, Field(examples=["ghcr.io/mlflow/mlflow:v3.17.2-full"])] = None
    """Image that is running."""
    schema_revision: Annotated[Text | None, Field(examples=["dc11669786a5"])] = None
    """Schema revision of the database."""
    replicas: Annotated[Int32 | None, Field(examples=[2])] = None
    """Number of server pods."""
    ready_replicas: Annotated[Int32 | None, Field(examples=[2])] = None
    """Number of server pods that are ready."""
    fast_path_fallback: Annotated[
        Text | None,
        Field(examples=["MLflow sets prometheus_multiproc_dir, which its server may read on import."]),
    ] = None
    """Reason why MLflow's own command starts the server, which needs about twice the memory. Set only if the version
    supports the fast path and a server pod cannot use it.
    """
    selector: Annotated[
        Text | None,
        Field(examples=["mlflow-operator.dev/server=tracking,app.kubernetes.io/component=server"]),
    ] = None
    """Label selector of the server pods, for autoscalers."""
    platform: PlatformStatus | None = None
    """MLflowPlatform that the server uses. Not set if it uses none."""
    platform_defaults: PlatformDefaultsStatus | None = None
    """Values that the server took from an MLflowPlatform when it was created."""
    database: DatabaseStatus | None = None
    """Database that the server uses."""
    artifacts: ArtifactsStatus | None = None
    """Artifact store that the server uses."""
    credentials_rotated_at: Annotated[datetime | None, Field(examples=["2026-12-24T18:00:00Z"])] = None
    """Value of `spec.rotateCredentialsAt` for which credentials were last rotated."""
    client_config_map_ref: ClientConfigMapRef | None = None
    """ConfigMap with MLFLOW_TRACKING_URI and other settings, for `envFrom` of client pods."""
    client_secret_ref: ClientSecretRef | None = None
    """Secret with the access key of the artifact store, for `envFrom` of client pods in addition to the ConfigMap. Only
    set with access Direct.
    """
    upgrade: UpgradeStatus | None = None
    """Upgrade in progress, or the last completed upgrade. Upgrades that were cancelled are not recorded."""
    restored_backup: Annotated[Text | None, Field(examples=["20261224T020000Z-0a1b2c3d"])] = None
    """ID of the backup that was restored into the database because of `spec.restoreFrom`."""
    backup: BackupStatus | None = None
    """Last successful backup and last failure."""
    garbage_collection: GarbageCollectionStatus | None = None
    """Last garbage collection and last failure."""
    auth: AuthenticationStatus | None = None
    """Authentication of clients. Not set if `spec.auth` is not set."""
    admin_secret_ref: AdminSecretRef | None = None
    """Secret with the password of the administrator. Not set without authentication."""
    encryption: EncryptionStatus | None = None
    """Keys with which the server encrypts gateway and webhook secrets."""
    conditions: Annotated[tuple[Condition, ...], Field(max_length=32), ListMap("type")] = ()
    """Conditions of the server. Ready summarizes the others. A condition that is not True has a message with the cause
    and the next step.
    """
