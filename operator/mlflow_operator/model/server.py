"""The resolved configuration of one MLflow server: every default is set. The manifest builders read nothing else."""

from dataclasses import dataclass

from mlflow_operator.api.artifacts import ArtifactAccess, BucketCreation, Engine
from mlflow_operator.api.database import DatabaseTLSMode
from mlflow_operator.kube.objects import Object
from mlflow_operator.model.names import Names
from mlflow_operator.model.pod_template import PodSettings


@dataclass(frozen=True)
class SecretKey:
    """One key of one Secret. `field` is the field of the spec that references it.

    `namespace` None means the server's own namespace. Only `resolve_platform` sets another one, for what an
    MLflowPlatform references: a server's spec cannot name a Secret of another namespace. The operator reads such a
    Secret; pods cannot. `optional`: pods start without it.
    """

    name: str
    key: str
    field: str
    namespace: str | None = None
    optional: bool = False


@dataclass(frozen=True)
class ServerRef:
    """Reference to an MLflowServer: what labels and ownerReferences of its objects need."""

    name: str
    namespace: str
    uid: str

    @property
    def names(self) -> Names:
        """Names of the objects that the server owns."""
        return Names(self.name)

    def __str__(self) -> str:
        """Return namespace and name, as in messages, markers and `spec.adoptions` of a platform."""
        return f"{self.namespace}/{self.name}"


@dataclass(frozen=True)
class PlatformOrigin:
    """The MLflowPlatform `name` that a store belongs to, and what distinguishes the server from others on it.

    `namespace_uid`: uid of the server's namespace. A namespace that was deleted and created again has another one.
    `adopts`: whether the server may use what was created for a server in an earlier namespace of the same name.
    """

    name: str
    namespace_uid: str
    adopts: bool = False


@dataclass(frozen=True)
class Volume:
    """Size and storage class of a PersistentVolumeClaim of the server. The size can only grow."""

    size: str
    storage_class: str | None


@dataclass(frozen=True)
class EmbeddedDatabase:
    """A Postgres that runs for this server only. `username` owns `database`; both are created at the first start.

    `max_connections`: setting of Postgres; its own default is 100.
    """

    image: str
    volume: Volume
    resources: Object
    host: str
    port: int = 5432
    database: str = "mlflow"
    username: str = "mlflow"
    max_connections: int = 100


@dataclass(frozen=True)
class ExternalDatabase:
    """A Postgres that the operator does not run. Either `uri` is set, or `host` and the credentials are."""

    uri: SecretKey | None
    host: str
    port: int
    database: str
    username: SecretKey | None
    password: SecretKey | None
    tls: DatabaseTLSMode
    ca: SecretKey | None


@dataclass(frozen=True)
class ConnectionPool:
    """SQLAlchemy's settings of each pool: connections that stay open, and additional ones under load."""

    size: int
    max_overflow: int


@dataclass(frozen=True)
class ProvisionedDatabase:
    """A database that the operator creates on a shared Postgres.

    `role` owns the database; `username` and `password` are the administrator's. `field` configures it, for messages.
    `origin`: the platform that offers it, None if the server's spec names the Postgres itself. The pods read the CA
    from `ca`; `ca_source` is the platform's Secret that the operator copies it from. `max_connections`: upper bound of
    the platform for the connections of the server, None if there is none.
    """

    host: str
    port: int
    database: str
    role: str
    username: SecretKey
    password: SecretKey
    tls: DatabaseTLSMode
    ca: SecretKey | None
    field: str = "spec.database.provision"
    origin: PlatformOrigin | None = None
    ca_source: SecretKey | None = None
    max_connections: int | None = None


@dataclass(frozen=True)
class ClusterDatabase:
    """A database in the CloudNativePG Cluster `cluster`. The Secret `secret` contains its credentials."""

    cluster: str
    database: str
    secret: str
    host: str
    port: int
    tls: DatabaseTLSMode
    ca: SecretKey


RemoteDatabase = ExternalDatabase | ProvisionedDatabase | ClusterDatabase
"""A database server that the operator does not run."""

Database = EmbeddedDatabase | RemoteDatabase


@dataclass(frozen=True)
class AdminCredentials:
    """Access key of the administrator of a store. With it the operator creates the server's own access key."""

    access_key: SecretKey
    secret_key: SecretKey


@dataclass(frozen=True)
class BucketSettings:
    """Bucket settings that the operator manages. A setting that is None or False is left unchanged.

    `lifecycle`: whether the operator manages its lifecycle rule; if both day counts are None, it removes the rule.
    """

    versioned: bool = False
    lifecycle: bool = False
    noncurrent_days: int | None = None
    abort_multipart_days: int | None = None
    encryption: str | None = None
    kms_key: str | None = None

    @property
    def is_managed(self) -> bool:
        """Whether the operator manages any setting."""
        return bool(self.versioned or self.lifecycle or self.encryption)


@dataclass(frozen=True)
class ObjectStore:
    """An S3 bucket and a prefix in it. `endpoint` None means AWS; no keys means workload identity.

    `public_endpoint` is the endpoint for clients, None if it is the same as `endpoint`. If `admin` is set, `access_key`
    and `secret_key` are keys that the operator creates. `upload_arguments` are those of boto3 for uploads, such as
    encryption headers, as JSON; empty if there are none, or if only the pods know them. `origin`: the platform that
    offers the bucket, None if the server's spec names it. The pods read the CA from `ca`; `ca_source` is the platform's
    Secret that the operator copies it from. `owner_arguments` are those of the platform for the operator's own uploads.
    """

    endpoint: str | None
    region: str
    bucket: str
    prefix: str
    addressing_style: str
    bucket_creation: BucketCreation
    access_key: SecretKey | None
    secret_key: SecretKey | None
    ca: SecretKey | None
    admin: AdminCredentials | None = None
    settings: BucketSettings = BucketSettings()
    public_endpoint: str | None = None
    upload_arguments: str = ""
    origin: PlatformOrigin | None = None
    ca_source: SecretKey | None = None
    owner_arguments: str = ""

    @property
    def name(self) -> str:
        """Identifier of the store: the bucket."""
        return self.bucket

    @property
    def uri(self) -> str:
        """URI for MLflow's `--artifacts-destination`."""
        return f"s3://{self.bucket}/{self.prefix}".rstrip("/")


@dataclass(frozen=True)
class EmbeddedArtifactStore:
    """An artifact store that runs for this server only.

    `root_credentials` have full access to the store; the server uses an access key of its own.
    """

    engine: Engine
    image: str
    volume: Volume
    resources: Object
    root_credentials: AdminCredentials


@dataclass(frozen=True)
class UnmanagedStore:
    """An artifact store that is not S3. Only its URI is known."""

    uri: str

    @property
    def name(self) -> str:
        """Identifier of the store: its URI."""
        return self.uri


@dataclass(frozen=True)
class Artifacts:
    """The artifact store and how clients access it. `embedded` is None if the operator does not run the store."""

    store: ObjectStore | UnmanagedStore
    embedded: EmbeddedArtifactStore | None
    access: ArtifactAccess

    @property
    def proxied(self) -> bool:
        """Whether clients connect to the server only, never to the store."""
        return self.access is ArtifactAccess.PROXIED

    @property
    def s3(self) -> ObjectStore | None:
        """The store if it is S3, else None."""
        return self.store if isinstance(self.store, ObjectStore) else None


@dataclass(frozen=True)
class ServiceSettings:
    """`spec.service`."""

    type: str
    port: int
    annotations: dict[str, str]


@dataclass(frozen=True)
class Backup:
    """`spec.backup`. `store` is the destination of the backups.

    `separate_bucket`: `store` is not the artifact store of the server. `max_age_seconds`: retention time of a backup.
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
    """`spec.garbageCollection`: what is deleted permanently, and when.

    `experiments` empty means all experiments. `traces_older_than_seconds` None means that traces are never deleted.
    """

    schedule: str
    time_zone: str
    older_than_seconds: int
    traces_older_than_seconds: int | None
    experiments: tuple[str, ...]
    dry_run: bool


@dataclass(frozen=True)
class Restore:
    """`spec.restoreFrom`: a backup of `namespace`/`server` in `store`. `backup` is its name, or `latest`.

    `separate_bucket`: `store` is not the artifact store of the server. `image` contains pg_restore.
    `ignores_missing_keys`: restore the backup even if its encrypted secrets are then unreadable.
    """

    backup: str
    namespace: str
    server: str
    image: str
    store: ObjectStore
    separate_bucket: bool
    ignores_missing_keys: bool = False


@dataclass(frozen=True)
class EncryptionKeys:
    """Keys with which MLflow encrypts secrets in the database. The pods get those that are not None.

    The others are set by the user in `spec.env` or `spec.envFrom`. `passphrase` is also None while the stored secrets
    are not yet encrypted with it; `manages_passphrase` is then True. `secret`: the Secret with the keys. `is_withheld`:
    the pods get no key yet, so that they restart once and not for each key.
    `rotation_requested_at`: `spec.encryption.rotatePassphraseAt` as in the status (RFC 3339, UTC).
    """

    secret: str
    is_generated: bool
    manages_passphrase: bool
    passphrase: SecretKey | None
    passphrase_version: SecretKey | None
    webhook_key: SecretKey | None
    flask_key: SecretKey | None
    rotation_requested_at: str | None = None
    is_withheld: bool = False


@dataclass(frozen=True)
class BasicAuth:
    """`spec.auth` with user names and passwords.

    `administrator` is the name of the account that the operator keeps usable, `password` its password. `is_generated`:
    the operator generates the password. `default_permission` is MLflow's name of the permission. `is_withheld`: the
    pods run without authentication, because they did so before and the accounts are not ready.
    """

    administrator: str
    password: SecretKey
    is_generated: bool
    default_permission: str
    is_withheld: bool = False


@dataclass(frozen=True)
class Server:
    """One MLflow server with all defaults set. `replicas` is 0 while the server is suspended.

    `is_default_image`: `image` is the operator's default image for `version`, so the MLflow version in it is known.
    `version_is_explicit`: the image must contain exactly `version`, because the spec sets it or the image is the
    default.
    `fast_path`: the pod calls MLflow's tracking API handlers directly, and imports MLflow once for all workers.
    `version_is_default`: neither the spec nor the status names a version or an image.
    `explicit_resources`: `spec.resources`, empty if they are not set.
    `recreate_on_migration`: the server is scaled to 0 before a schema migration.
    `backup_before_migration`: a backup is made before a schema migration.
    `storage_change_allowed`: the server may switch to another database or artifact store.
    `rotation_requested_at`: `spec.rotateCredentialsAt` in the format of the status (RFC 3339, UTC).
    `pool`: set if its own connection pools would exceed the limit of its platform.
    `auth` None: clients need no credentials. `declines_auth`: the spec says so explicitly.
    """

    owner: ServerRef
    version: str
    image: str
    is_default_image: bool
    version_is_explicit: bool
    version_is_default: bool
    fast_path: bool
    pull_policy: str
    replicas: int
    suspended: bool
    workers: int
    job_execution: bool
    telemetry: bool
    assistant: bool
    allowed_hosts: tuple[str, ...]
    allowed_origins: tuple[str, ...]
    resources: Object
    explicit_resources: Object
    env: tuple[Object, ...]
    env_from: tuple[Object, ...]
    volume_mounts: tuple[Object, ...]
    pods: PodSettings
    service: ServiceSettings
    database: Database
    artifacts: Artifacts
    encryption: EncryptionKeys
    recreate_on_migration: bool
    backup: Backup | None = None
    backup_before_migration: bool = False
    garbage_collection: GarbageCollection | None = None
    restore: Restore | None = None
    storage_change_allowed: bool = False
    rotation_requested_at: str | None = None
    pool: ConnectionPool | None = None
    auth: BasicAuth | None = None
    declines_auth: bool = False

    @property
    def names(self) -> Names:
        """Names of the objects that the server owns."""
        return self.owner.names

    @property
    def requires_login(self) -> bool:
        """Whether the pods require authentication."""
        return self.auth is not None and not self.auth.is_withheld

    @property
    def database_ca(self) -> SecretKey | None:
        """CA certificate for TLS to the database; None if none is configured or the database is embedded."""
        return None if isinstance(self.database, EmbeddedDatabase) else self.database.ca

    @property
    def database_field(self) -> str:
        """The field that configures the database, for messages: one of the platform if the database is on it."""
        database = self.database
        is_on_platform = isinstance(database, ProvisionedDatabase) and database.origin
        return (
            database.field
            if isinstance(database, ProvisionedDatabase) and is_on_platform
            else "spec.database"
        )

    @property
    def database_ca_source(self) -> SecretKey | None:
        """The Secret from which the operator reads this certificate: a platform's, or the one that the pods read."""
        database = self.database
        return (database.ca_source if isinstance(database, ProvisionedDatabase) else None) or self.database_ca

    @property
    def url(self) -> str:
        """URL for clients in the cluster. It has no cluster domain, so it is valid in every cluster."""
        return f"http://{self.names.service}.{self.owner.namespace}.svc:{self.service.port}"
