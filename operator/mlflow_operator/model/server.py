"""A server as it shall be: every default decided, nothing left open. Builders read this and nothing else."""

from dataclasses import dataclass
from enum import StrEnum

from mlflow_operator.kube.objects import Object
from mlflow_operator.model.names import Names


@dataclass(frozen=True)
class SecretKey:
    """One key of one Secret; `field` is where the spec names it.

    `namespace` None is the server's own. Pods can't read another one's: only the operator does, where the Secret allows
    it (`core.sharing`).
    """

    name: str
    key: str
    field: str
    namespace: str | None = None


@dataclass(frozen=True)
class ServerRef:
    """The MLflowServer an object belongs to; what it needs for labels and for the ownerReference."""

    name: str
    namespace: str
    uid: str

    @property
    def names(self) -> Names:
        """Names of what it owns."""
        return Names(self.name)


@dataclass(frozen=True)
class PodSettings:
    """`spec.podTemplate`: what the owner decides about pods.

    `service_account`, `affinity`, `spread`, `volumes`, `labels` and `annotations` concern pods that run MLflow;
    the rest, every pod we make, so that a tainted or mirrored cluster is a matter of one place.
    """

    labels: dict[str, str]
    annotations: dict[str, str]
    node_selector: dict[str, str]
    tolerations: tuple[Object, ...]
    affinity: Object
    spread: tuple[Object, ...]
    priority_class: str | None
    service_account: str | None
    pull_secrets: tuple[Object, ...]
    security_context: Object
    volumes: tuple[Object, ...]


@dataclass(frozen=True)
class Volume:
    """A volume of our own; it may only grow."""

    size: str
    storage_class: str | None


class TLSMode(StrEnum):
    """libpq's `sslmode`, by the names the resource uses."""

    DISABLE = "disable"
    PREFER = "prefer"
    REQUIRE = "require"
    VERIFY_CA = "verify-ca"
    VERIFY_FULL = "verify-full"


@dataclass(frozen=True)
class EmbeddedDatabase:
    """A Postgres of the server's own. `username` owns `database`, which is made with the cluster."""

    image: str
    volume: Volume
    resources: Object
    host: str
    port: int = 5432
    database: str = "mlflow"
    username: str = "mlflow"


@dataclass(frozen=True)
class ExternalDatabase:
    """A Postgres of somebody else's: either `uri` names all, or `host` and the credentials do."""

    uri: SecretKey | None
    host: str
    port: int
    database: str
    username: SecretKey | None
    password: SecretKey | None
    tls: TLSMode
    ca: SecretKey | None


@dataclass(frozen=True)
class ProvisionedDatabase:
    """A database made on a shared Postgres: `role` owns it, `username` and `password` are the administrator's."""

    host: str
    port: int
    database: str
    role: str
    username: SecretKey
    password: SecretKey
    tls: TLSMode
    ca: SecretKey | None


@dataclass(frozen=True)
class ClusterDatabase:
    """A database in the CloudNativePG Cluster `cluster`, whose Secret `secret` has the credentials."""

    cluster: str
    database: str
    secret: str
    host: str
    port: int
    tls: TLSMode
    ca: SecretKey


RemoteDatabase = ExternalDatabase | ProvisionedDatabase | ClusterDatabase
"""One that the operator does not run."""

Database = EmbeddedDatabase | RemoteDatabase


class BucketCreation(StrEnum):
    """Whether a missing bucket is made."""

    IF_MISSING = "IfMissing"
    NEVER = "Never"


@dataclass(frozen=True)
class StoreAdmin:
    """A key of a store's administrator, by which the server gets one of its own."""

    access_key: SecretKey
    secret_key: SecretKey


@dataclass(frozen=True)
class BucketSettings:
    """What the bucket shall do by itself. Of what is None nothing is said: that is left as it is.

    `lifecycle`: whether the operator's rule is managed at all; without both days there is none.
    """

    versioned: bool = False
    lifecycle: bool = False
    noncurrent_days: int | None = None
    abort_days: int | None = None
    encryption: str | None = None
    kms_key: str | None = None


@dataclass(frozen=True)
class ObjectStore:
    """An S3 bucket and a prefix in it. `endpoint` None is AWS; no keys is workload identity.

    `public_endpoint` is where clients reach it, None where that is `endpoint`, too. With an `admin` the keys are those
    that the operator makes.
    """

    endpoint: str | None
    region: str
    bucket: str
    prefix: str
    addressing_style: str
    creation: BucketCreation
    access_key: SecretKey | None
    secret_key: SecretKey | None
    ca: SecretKey | None
    admin: StoreAdmin | None = None
    settings: BucketSettings = BucketSettings()
    public_endpoint: str | None = None

    @property
    def name(self) -> str:
        """What tells it from another one of its kind: the bucket."""
        return self.bucket

    @property
    def uri(self) -> str:
        """As MLflow's `--artifacts-destination` wants it."""
        return f"s3://{self.bucket}/{self.prefix}".rstrip("/")


class Access(StrEnum):
    """Whether artifacts pass through the server, by URLs that it signs, or by keys that clients have themselves."""

    PROXIED = "Proxied"
    PRESIGNED = "Presigned"
    DIRECT = "Direct"


class Engine(StrEnum):
    """What an embedded artifact store runs."""

    MINIO = "MinIO"
    SEAWEEDFS = "SeaweedFS"


@dataclass(frozen=True)
class EmbeddedArtifactStore:
    """A store of the server's own. Its `root` key may do everything there, and is not the server's."""

    engine: Engine
    image: str
    volume: Volume
    resources: Object
    root: StoreAdmin


@dataclass(frozen=True)
class UnmanagedStore:
    """A store that is not S3: its address is all there is to know."""

    uri: str

    @property
    def name(self) -> str:
        """What tells it from another one of its kind."""
        return self.uri


@dataclass(frozen=True)
class Artifacts:
    """Where artifacts go. `embedded` is None where the store is somebody else's."""

    store: ObjectStore | UnmanagedStore
    embedded: EmbeddedArtifactStore | None
    access: Access

    @property
    def proxied(self) -> bool:
        """Whether clients reach the server alone."""
        return self.access is Access.PROXIED

    @property
    def s3(self) -> ObjectStore | None:
        """The store, if it is S3."""
        return self.store if isinstance(self.store, ObjectStore) else None


@dataclass(frozen=True)
class ServiceSettings:
    """`spec.service`."""

    type: str
    port: int
    annotations: dict[str, str]


@dataclass(frozen=True)
class Backup:
    """`spec.backup`. `store` is where they go; `elsewhere`: that is not the server's own artifact store.

    `longest` is in seconds: how old a backup gets.
    """

    schedule: str
    time_zone: str
    image: str
    max_count: int
    max_age_seconds: int
    store: ObjectStore
    separate_bucket: bool


@dataclass(frozen=True)
class GarbageCollection:
    """What is removed for good, and when. `experiments` empty is all; `traces_seconds` None keeps every trace."""

    schedule: str
    time_zone: str
    seconds: int
    traces_seconds: int | None
    experiments: tuple[str, ...]
    dry_run: bool


@dataclass(frozen=True)
class Restore:
    """`spec.restoreFrom`: a backup of `namespace`/`server`, or the `latest`, in `store`.

    `elsewhere`: that is not the server's own artifact store. `image` has Postgres' programs.
    """

    backup: str
    namespace: str
    server: str
    image: str
    store: ObjectStore
    separate_bucket: bool


@dataclass(frozen=True)
class Server:
    """One MLflow server, resolved. `replicas` is 0 while it is suspended.

    `official`: the image is the one the operator takes for the version, and so known to hold that MLflow.
    `version_named`: the image has to hold just this version, for the spec names it or the image is its official one.
    `direct`: its tracking API is taken straight to its handlers, by a process that imports MLflow once for all workers.
    `stops_to_migrate`: servers stop before the tables move under them. `backs_up_first`: and a backup is made before.
    """

    owner: ServerRef
    version: str
    image: str
    is_default_image: bool
    version_is_explicit: bool
    fast_path: bool
    pull_policy: str
    replicas: int
    suspended: bool
    workers: int
    job_execution: bool
    allowed_hosts: tuple[str, ...]
    resources: Object
    env: tuple[Object, ...]
    env_from: tuple[Object, ...]
    volume_mounts: tuple[Object, ...]
    pods: PodSettings
    service: ServiceSettings
    database: Database
    artifacts: Artifacts
    recreate_on_migration: bool
    backup: Backup | None = None
    backup_before_migration: bool = False
    garbage_collection: GarbageCollection | None = None
    restore: Restore | None = None

    @property
    def names(self) -> Names:
        """Names of what it owns."""
        return self.owner.names

    @property
    def database_ca(self) -> SecretKey | None:
        """What the database's certificate is verified with; None where it is not, or the database is our own."""
        return None if isinstance(self.database, EmbeddedDatabase) else self.database.ca

    @property
    def url(self) -> str:
        """Where clients in the cluster reach it; without a cluster domain, so that it holds in any cluster."""
        return f"http://{self.names.service}.{self.owner.namespace}.svc:{self.service.port}"
