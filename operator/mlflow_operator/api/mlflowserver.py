"""The resource itself: an `MLflowServer`."""

import re
from collections.abc import Mapping
from enum import StrEnum
from typing import Annotated, Any, Literal

from pydantic import AwareDatetime, ConfigDict, Field, ValidationError

from mlflow_operator.api.artifacts import Artifacts
from mlflow_operator.api.backup import Backup
from mlflow_operator.api.database import Database
from mlflow_operator.api.env import EnvFromSource, EnvVar
from mlflow_operator.api.garbage_collection import GarbageCollection
from mlflow_operator.api.markers import Int32, ListAtomic, ListMap, ListSet, NotPersistedDefault
from mlflow_operator.api.model import Model
from mlflow_operator.api.pods import PodTemplate, VolumeMount
from mlflow_operator.api.quantities import Resources
from mlflow_operator.api.restore import RESTORE_RULES, RestoreFrom
from mlflow_operator.api.rules import Rule, matches
from mlflow_operator.api.service import Service
from mlflow_operator.api.status import Status
from mlflow_operator.api.string_types import ImageReference
from mlflow_operator.api.transition_rules import CHANGE_RULES
from mlflow_operator.api.upgrade import BackupBeforeMigration, Upgrade

GROUP = "mlflow-operator.dev"
VERSION = "v1alpha1"
API_VERSION = f"{GROUP}/{VERSION}"
KIND = "MLflowServer"
PLURAL = "mlflowservers"

NAME_LENGTH = 40
"""Longest name of a server: names of what it owns are up to 18 characters longer and must stay below 63."""


class InvalidResource(ValueError):  # noqa: N818 - a condition's reason of the same name
    """A resource that the CRD refuses, or should have. The message names the fields and quotes no values."""


class ImagePullPolicy(StrEnum):
    """When a node asks the registry for an image."""

    ALWAYS = "Always"
    IF_NOT_PRESENT = "IfNotPresent"
    NEVER = "Never"


class JobExecution(StrEnum):
    """Whether the server runs background jobs."""

    DISABLED = "Disabled"
    ENABLED = "Enabled"


class DeletionPolicy(StrEnum):
    """What becomes of the data when the resource is deleted."""

    RETAIN = "Retain"
    DELETE = "Delete"


class StorageChangePolicy(StrEnum):
    """Whether the server may be pointed at other data."""

    REFUSE = "Refuse"
    ALLOW = "Allow"


class Spec(Model):
    """What is wanted. `{}` is a whole server: a Postgres, an artifact store and MLflow."""

    version: (
        Annotated[
            str,
            Field(max_length=64),
            matches(
                r"[0-9]+\.[0-9]+\.[0-9]+((a|b|rc)[0-9]+)?",
                "is no version of MLflow: write a release such as 3.17.2, without a leading v; "
                "an image of your own goes to spec.image",
            ),
        ]
        | None
    ) = None
    """MLflow version, such as `3.17.2`. Absent: the version the server has (`status.version`), and for a new
    server the one the operator is tested with. So an upgrade of the operator never migrates a database.
    """
    image: ImageReference | None = None
    """Image of the server. Absent: the official `-full` image of the version."""
    image_pull_policy: ImagePullPolicy = ImagePullPolicy.IF_NOT_PRESENT
    """When nodes ask the registry for the image of the server."""
    replicas: Annotated[Int32, Field(ge=0, le=100)] = 1
    """Pods of the server. `kubectl scale` and autoscalers set it."""
    workers: Annotated[Int32, Field(ge=1, le=64)] = 2
    """Processes that answer requests in each pod. Each takes some 170 MB."""
    job_execution: JobExecution = JobExecution.DISABLED
    """Enabled: the server runs MLflow's background jobs; it costs 1.3 GB of memory and needs `replicas` 1."""
    suspend: bool = False
    """True: no server pods; database, artifacts and credentials stay as they are."""
    deletion_policy: DeletionPolicy = DeletionPolicy.RETAIN
    """What becomes of the data when this resource is deleted. Retain: all of it stays, passwords included, and a
    resource of the same name takes it back. Delete: what the operator made goes for good, volumes and files included;
    databases and buckets of somebody else's stay.
    """
    rotate_credentials_at: AwareDatetime | None = None
    """When to replace the passwords and keys that the operator made, such as `2026-12-24T18:00:00Z`: once it has come,
    and again for each later value. The old ones stop working once no pod uses them.
    """
    storage_change_policy: StorageChangePolicy = StorageChangePolicy.REFUSE
    """Refuse: the database and the artifact store can't be replaced. Allow: they can; data is not moved."""
    allowed_hosts: Annotated[
        tuple[
            Annotated[
                str,
                Field(max_length=260),
                matches(
                    r"[A-Za-z0-9*\[]([A-Za-z0-9.*:\[\]-]*[A-Za-z0-9*\]])?",
                    "is no host: write a name such as mlflow.example.com, with its port if any, "
                    "without http:// and without a path; * stands for anything",
                ),
            ],
            ...,
        ],
        Field(max_length=64),
        ListSet(),
    ] = ()
    """Hosts by which clients ask for the server, beside the names of its Service and addresses of nodes."""
    resources: Resources | None = None
    """CPU and memory of the server's container. Absent: computed from `workers` and `jobExecution`."""
    env: Annotated[tuple[EnvVar, ...], Field(max_length=64), ListMap("name")] = ()
    """More environment for the server. Names that the operator sets are refused."""
    env_from: Annotated[tuple[EnvFromSource, ...], Field(max_length=16), ListAtomic()] = ()
    """Secrets and ConfigMaps whose keys become environment of the server. What the operator sets wins."""
    volume_mounts: Annotated[tuple[VolumeMount, ...], Field(max_length=32), ListMap("mountPath")] = ()
    """Mounts in the server's container, of volumes in `podTemplate.spec.volumes`."""
    pod_template: PodTemplate = PodTemplate()
    """Placement, identity and volumes of the pods."""
    service: Service = Service()
    """How the server is reached inside the cluster."""
    database: Database = Database()
    """Where experiments, runs and registered models are kept. Absent: `embedded`."""
    artifacts: Annotated[Artifacts, NotPersistedDefault()] = Artifacts()
    """Where models, plots and files of runs are kept. Absent: `embedded`."""

    upgrade: Upgrade = Upgrade()
    """How the server goes over to another version or image."""
    backup: Backup | None = None
    """Backups of the database. Absent: none are made; those that are there stay."""
    garbage_collection: GarbageCollection | None = None
    """Removes for good what was deleted long ago, files included. Absent: nothing that was deleted is ever removed."""
    restore_from: RestoreFrom | None = None
    """The backup that a new server begins with. Absent: it begins empty."""

    rules = (
        Rule(
            "self.?jobExecution.orValue('Disabled') == 'Disabled' || self.?replicas.orValue(1) <= 1",
            "spec.jobExecution Enabled needs spec.replicas 1, for each pod has a queue of its own: "
            "lower replicas, or set jobExecution to Disabled",
            field=".jobExecution",
            holds=lambda spec: spec.job_execution is JobExecution.DISABLED or spec.replicas <= 1,
        ),
        Rule(
            "!has(self.volumeMounts) || self.volumeMounts.all(mount, "
            "has(self.podTemplate) && has(self.podTemplate.spec) && has(self.podTemplate.spec.volumes) && "
            "self.podTemplate.spec.volumes.exists(volume, volume.name == mount.name))",
            "spec.volumeMounts names a volume that spec.podTemplate.spec.volumes lacks: add the volume there",
            field=".volumeMounts",
            holds=lambda spec: (
                {mount.name for mount in spec.volume_mounts}
                <= {volume.name for volume in spec.pod_template.spec.volumes}
            ),
        ),
        Rule(
            "!has(self.backup) || has(self.backup.s3) || !has(self.artifacts) || !has(self.artifacts.external)",
            "spec.backup puts backups into an S3 store, and spec.artifacts.external is none: name a bucket in "
            "spec.backup.s3",
            field=".backup",
            holds=lambda spec: not spec.backup or spec.backup.s3 is not None or not spec.artifacts.external,
        ),
        Rule(
            "!has(self.upgrade) || self.upgrade.?backupBeforeMigration.orValue('IfConfigured') != 'Required' || "
            "has(self.backup)",
            "spec.upgrade.backupBeforeMigration Required needs spec.backup, which says where a backup goes: add it "
            "(backup: {} is enough), or take IfConfigured",
            field=".upgrade",
            holds=lambda spec: (
                spec.backup is not None
                or spec.upgrade.backup_before_migration is not BackupBeforeMigration.REQUIRED
            ),
        ),
        *RESTORE_RULES,
        *CHANGE_RULES,
    )


_NAME = re.compile(r"[a-z]([a-z0-9-]*[a-z0-9])?")


class Metadata(Model):
    """Kubernetes' own; only what the operator reads is typed, the rest is kept."""

    model_config = ConfigDict(extra="allow")

    name: str
    namespace: str = "default"
    uid: str = ""
    generation: int = 0
    labels: dict[str, str] = Field(default_factory=dict)
    annotations: dict[str, str] = Field(default_factory=dict)
    finalizers: tuple[str, ...] = ()
    deletion_timestamp: str | None = None


class MLflowServer(Model):
    """An MLflow tracking server with its database and artifact store."""

    api_version: Literal["mlflow-operator.dev/v1alpha1"] = "mlflow-operator.dev/v1alpha1"
    kind: Literal["MLflowServer"] = "MLflowServer"
    metadata: Metadata
    spec: Spec = Spec()
    """What is wanted. `{}` is a whole server: a Postgres, an artifact store and MLflow."""
    status: Status = Status()
    """What the operator found and did."""

    rules = (
        Rule(
            f"self.metadata.name.size() <= {NAME_LENGTH}",
            f"metadata.name is too long: take {NAME_LENGTH} characters at most, "
            "so that the names of what the server owns fit",
            holds=lambda server: len(server.metadata.name) <= NAME_LENGTH,
        ),
        Rule(
            f"self.metadata.name.matches('^{_NAME.pattern}$')",
            "metadata.name can't name a Service: begin with a letter, go on with lower-case letters, "
            "digits and '-', end with a letter or digit",
            holds=lambda server: _NAME.fullmatch(server.metadata.name) is not None,
        ),
    )


def parse(obj: Mapping[str, Any]) -> MLflowServer:
    """Return a stored or written resource as a model; unknown fields are ignored.

    Raises InvalidResource for what the CRD refuses, with a line for each field at fault.
    """
    try:
        return MLflowServer.model_validate(obj, by_alias=True, by_name=False)
    except ValidationError as error:
        # The cause holds the values, among them what somebody put into env: it is not chained.
        raise InvalidResource("; ".join(_sentence(fault) for fault in error.errors())) from None


def _sentence(fault: Mapping[str, Any]) -> str:
    path = "".join(f"[{part}]" if isinstance(part, int) else f".{part}" for part in fault["loc"])
    return f"{path.lstrip('.') or KIND}: {str(fault['msg']).removeprefix('Value error, ')}"
