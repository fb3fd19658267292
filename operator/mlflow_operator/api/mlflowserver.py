"""The custom resource MLflowServer."""

import re
from collections.abc import Mapping
from enum import StrEnum
from typing import Annotated, Any, Literal

from pydantic import AwareDatetime, Field

from mlflow_operator.api.artifacts import Artifacts
from mlflow_operator.api.authentication import AUTHENTICATION_RULES, Authentication
from mlflow_operator.api.backup import Backup
from mlflow_operator.api.database import Database
from mlflow_operator.api.encryption import Encryption
from mlflow_operator.api.env import EnvFromSource, EnvVar
from mlflow_operator.api.garbage_collection import GarbageCollection
from mlflow_operator.api.markers import Int32, ListAtomic, ListMap, ListSet, NotPersistedDefault
from mlflow_operator.api.model import Model
from mlflow_operator.api.pods import PodTemplate, VolumeMount
from mlflow_operator.api.quantities import Resources
from mlflow_operator.api.references import PlatformRef
from mlflow_operator.api.resource import Metadata, parse_as
from mlflow_operator.api.restore import RESTORE_RULES, RestoreFrom
from mlflow_operator.api.rules import Rule, matches
from mlflow_operator.api.service import Service
from mlflow_operator.api.status import Status
from mlflow_operator.api.string_types import ImageReference, MLflowVersion
from mlflow_operator.api.transition_rules import TRANSITION_RULES
from mlflow_operator.api.upgrade import BackupBeforeMigration, Upgrade

KIND = "MLflowServer"
PLURAL = "mlflowservers"

MAX_NAME_CHARS = 40
"""Maximum length of a server's name. Names of its objects add up to 18 characters and must not exceed 63."""


class ImagePullPolicy(StrEnum):
    """When the kubelet pulls the image."""

    ALWAYS = "Always"
    IF_NOT_PRESENT = "IfNotPresent"
    NEVER = "Never"


class JobExecution(StrEnum):
    """Whether the server runs background jobs."""

    DISABLED = "Disabled"
    ENABLED = "Enabled"


class Telemetry(StrEnum):
    """Whether MLflow sends usage data."""

    DISABLED = "Disabled"
    ENABLED = "Enabled"


class Assistant(StrEnum):
    """Whether the web UI offers MLflow's assistant."""

    DISABLED = "Disabled"
    ENABLED = "Enabled"


class DeletionPolicy(StrEnum):
    """What happens to the data when the resource is deleted."""

    RETAIN = "Retain"
    DELETE = "Delete"


class StorageChangePolicy(StrEnum):
    """Whether the database and the artifact store may be replaced."""

    REFUSE = "Refuse"
    ALLOW = "Allow"


class Spec(Model):
    """Desired state of the server. `{}` is valid: MLflow with the stores of the default platform of its namespace, or
    else with an embedded database and an embedded artifact store.
    """

    version: MLflowVersion | None = None
    """MLflow version, such as `3.17.2`. Defaults to the version that the server runs (`status.version`), or, for a
    new server, to that of its platform (`serverDefaults`), or the version that the operator is tested with. An upgrade
    of the operator or a change of a platform never migrates a database.
    """
    image: ImageReference | None = None
    """Image of the server. Defaults to the official `-full` image of the version."""
    image_pull_policy: ImagePullPolicy = ImagePullPolicy.IF_NOT_PRESENT
    """When the kubelet pulls the image of the server. Defaults to IfNotPresent."""
    replicas: Annotated[Int32, Field(ge=0, le=100)] = 1
    """Number of desired server pods. `kubectl scale` and autoscalers change this field. Defaults to 1."""
    workers: Annotated[Int32, Field(ge=1, le=64)] = 2
    """Number of worker processes in each pod. Each needs about 170 MB of memory. Defaults to 2."""
    job_execution: JobExecution = JobExecution.DISABLED
    """Whether the server runs MLflow's background jobs. Enabled requires `replicas` 1 and about 1.3 GB of memory.
    Defaults to Disabled.
    """
    telemetry: Telemetry = Telemetry.DISABLED
    """Whether the server and its web UI send usage data to MLflow's developers. A variable MLFLOW_DISABLE_TELEMETRY in
    `env` takes precedence. Defaults to Disabled.
    """
    assistant: Assistant = Assistant.DISABLED
    """Whether the web UI offers MLflow's assistant. Disabled applies to default images with `artifacts.access` Proxied;
    with others, MLflow offers it to connections from the pod itself, such as `kubectl port-forward`. Defaults to
    Disabled.
    """
    suspend: bool = False
    """Whether the server is scaled to zero. Database, artifacts and credentials are not changed. Defaults to false."""
    deletion_policy: DeletionPolicy = DeletionPolicy.RETAIN
    """What happens to the data when this resource is deleted. Retain: the operator keeps all data and credentials, and
    a new resource with the same name uses them again. Delete: the operator permanently deletes the volumes of
    embedded stores, the generated Secrets, a provisioned database with its roles, and, with
    `artifacts.s3.adminSecretRef` or a platform, the objects under the prefix with the server's user. Buckets, external
    databases and backups in `backup.s3` are kept. Defaults to Retain.
    """
    rotate_credentials_at: Annotated[AwareDatetime | None, Field(examples=["2026-12-24T18:00:00Z"])] = None
    """Time at which the operator replaces the passwords and keys that it created, such as `2026-12-24T18:00:00Z`. Set a
    later time to replace them again. The old credentials are revoked as soon as no pod uses them.
    """
    storage_change_policy: StorageChangePolicy = StorageChangePolicy.REFUSE
    """Whether the database and the artifact store may be replaced. Refuse: such changes are rejected. Allow: such
    changes are accepted; data is not moved. Defaults to Refuse.
    """
    allowed_hosts: Annotated[
        tuple[
            Annotated[
                str,
                Field(max_length=260),
                matches(
                    r"[A-Za-z0-9*\[]([A-Za-z0-9.*:\[\]-]*[A-Za-z0-9.*\]])?",
                    "is not a valid host: use a host name such as mlflow.example.com, with a port if necessary, "
                    "without http:// and without a path; * matches any characters",
                ),
            ],
            ...,
        ],
        Field(max_length=64),
        ListSet(),
    ] = ()
    """Hosts that the server accepts in requests, in addition to the names of its Service and the addresses of nodes."""
    resources: Resources | None = None
    """Compute resources of the server container. Defaults to values that depend on `workers` and `jobExecution`."""
    env: Annotated[tuple[EnvVar, ...], Field(max_length=64), ListMap("name")] = ()
    """Additional environment variables of the server. Variables that the operator sets are rejected."""
    env_from: Annotated[tuple[EnvFromSource, ...], Field(max_length=16), ListAtomic()] = ()
    """Secrets and ConfigMaps whose keys become environment variables of the server. Variables that the operator sets
    take precedence.
    """
    volume_mounts: Annotated[tuple[VolumeMount, ...], Field(max_length=32), ListMap("mountPath")] = ()
    """Mounts of volumes from `podTemplate.spec.volumes` in the server container."""
    pod_template: PodTemplate = PodTemplate()
    """Metadata, scheduling, identity and volumes of the pods."""
    service: Service = Service()
    """Service of the server."""
    platform_ref: PlatformRef | None = None
    """MLflowPlatform whose stores the server uses, unless `database` or `artifacts` configures others. Defaults, for a
    new server, to the default platform of the namespace, if there is one. The choice is recorded in `status.platform`;
    a platform that appears later moves no server.
    """
    database: Database = Database()
    """Database of experiments, runs and registered models. Defaults to that of the platform, or to `embedded`."""
    artifacts: Annotated[Artifacts, NotPersistedDefault()] = Artifacts()
    """Storage of artifacts: models, plots and other files of runs. Defaults to that of the platform, or to
    `embedded`.
    """

    auth: Authentication | None = None
    """Authentication of clients, such as `basic: {}`. If not set, the server accepts requests without credentials."""
    encryption: Encryption | None = None
    """Keys with which MLflow encrypts gateway and webhook secrets in the database. By default, the operator generates
    them. Variables for these keys in `env` and `envFrom` are kept.
    """
    upgrade: Upgrade = Upgrade()
    """Upgrades to another version or image."""
    backup: Backup | None = None
    """Scheduled backups of the database. If not set, no backups are created, and existing backups are kept."""
    garbage_collection: GarbageCollection | None = None
    """Garbage collection of runs, models and experiments that users deleted, and of old traces, including their
    artifacts. If not set, nothing is deleted permanently.
    """
    restore_from: RestoreFrom | None = None
    """Backup from which a new server is restored. If not set, a new server starts empty."""

    rules = (
        Rule(
            "self.?jobExecution.orValue('Disabled') == 'Disabled' || self.?replicas.orValue(1) <= 1",
            "spec.jobExecution Enabled requires spec.replicas 1, because each pod has its own job queue: "
            "lower replicas, or set jobExecution to Disabled",
            field=".jobExecution",
            holds=lambda spec: spec.job_execution is JobExecution.DISABLED or spec.replicas <= 1,
        ),
        Rule(
            "!has(self.volumeMounts) || self.volumeMounts.all(mount, "
            "has(self.podTemplate) && has(self.podTemplate.spec) && has(self.podTemplate.spec.volumes) && "
            "self.podTemplate.spec.volumes.exists(volume, volume.name == mount.name))",
            "spec.volumeMounts names a volume that is missing in spec.podTemplate.spec.volumes: add the volume there",
            field=".volumeMounts",
            holds=lambda spec: (
                {mount.name for mount in spec.volume_mounts}
                <= {volume.name for volume in spec.pod_template.spec.volumes}
            ),
        ),
        Rule(
            "!has(self.backup) || has(self.backup.s3) || !has(self.artifacts) || !has(self.artifacts.external)",
            "spec.backup requires an S3 store, and spec.artifacts.external is not S3: set a bucket in spec.backup.s3",
            field=".backup",
            holds=lambda spec: not spec.backup or spec.backup.s3 is not None or not spec.artifacts.external,
        ),
        Rule(
            "!has(self.upgrade) || self.upgrade.?backupBeforeMigration.orValue('IfConfigured') != 'Required' || "
            "has(self.backup)",
            "spec.upgrade.backupBeforeMigration Required requires spec.backup, which configures where backups are "
            "stored: set spec.backup (backup: {} is sufficient), or set backupBeforeMigration to IfConfigured",
            field=".upgrade",
            holds=lambda spec: (
                spec.backup is not None
                or spec.upgrade.backup_before_migration is not BackupBeforeMigration.REQUIRED
            ),
        ),
        *AUTHENTICATION_RULES,
        *RESTORE_RULES,
        *TRANSITION_RULES,
    )


_NAME = re.compile(r"[a-z]([a-z0-9-]*[a-z0-9])?")


class MLflowServer(Model):
    """MLflow tracking server with its database and artifact store."""

    api_version: Literal["mlflow-operator.dev/v1alpha1"] = "mlflow-operator.dev/v1alpha1"
    kind: Literal["MLflowServer"] = "MLflowServer"
    metadata: Metadata
    spec: Spec = Spec()
    """Desired state of the server. `{}` is valid: MLflow with the stores of the default platform of its namespace, or
    else with an embedded database and an embedded artifact store.
    """
    status: Status = Status()
    """Observed state of the server."""

    rules = (
        Rule(
            f"self.metadata.name.size() <= {MAX_NAME_CHARS}",
            f"metadata.name is too long: use at most {MAX_NAME_CHARS} characters, so that the names of the server's "
            "objects do not exceed the limit of Kubernetes",
            holds=lambda server: len(server.metadata.name) <= MAX_NAME_CHARS,
        ),
        Rule(
            f"self.metadata.name.matches('^{_NAME.pattern}$')",
            "metadata.name is not a valid name for a Service: use lower-case letters, digits and '-', "
            "begin with a letter, and end with a letter or digit",
            holds=lambda server: _NAME.fullmatch(server.metadata.name) is not None,
        ),
    )


def parse(obj: Mapping[str, Any]) -> MLflowServer:
    """Parse a resource from the API server or from a manifest; unknown fields are ignored.

    Raises InvalidResource if the resource violates the CRD. The message names every invalid field.
    """
    return parse_as(MLflowServer, obj)
