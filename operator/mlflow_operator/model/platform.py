"""The resolved configuration of a platform: its stores, and the namespaces that may use them."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from enum import StrEnum
from itertools import takewhile

from mlflow_operator.api import mlflowplatform
from mlflow_operator.api.artifacts import BucketCreation
from mlflow_operator.api.database import DatabaseTLSMode
from mlflow_operator.api.mlflowplatform import (
    NAME_PLACEHOLDER,
    NAMESPACE_PLACEHOLDER,
    OWNERS_SEGMENT,
    MLflowPlatform,
)
from mlflow_operator.api.platform_policy import Policy
from mlflow_operator.api.server_defaults import ServerDefaults
from mlflow_operator.kube.objects import Object
from mlflow_operator.model import bucket_settings, label_selector, provisioning, secrets, upload_arguments
from mlflow_operator.model.label_selector import Selector
from mlflow_operator.model.postgres_uri import Connection
from mlflow_operator.model.server import (
    AdminCredentials,
    BucketSettings,
    ObjectStore,
    PlatformOrigin,
    ProvisionedDatabase,
    SecretKey,
    ServerRef,
)

DATABASE_FIELD, ARTIFACTS_FIELD = "spec.database.postgres", "spec.artifacts.s3"

UNPROTECTED_MODES = frozenset({DatabaseTLSMode.DISABLE, DatabaseTLSMode.PREFER})
"""TLS modes in which connections may be unencrypted."""

_REQUIRED_AUTHENTICATION = ("require_auth", "scram-sha-256")


@dataclass(frozen=True)
class PlatformDatabase:
    """PostgreSQL with an administrator who creates a database for each server."""

    host: str
    port: int
    username: SecretKey
    password: SecretKey
    tls: DatabaseTLSMode
    ca: SecretKey | None
    max_connections_per_server: int

    def admin_connection(self, database: str, username: str, password: str) -> Connection:
        """Return a connection with the administrator's credentials."""
        return admin_connection(Connection(self.host, self.port, database, username, password), self.tls)


@dataclass(frozen=True)
class PlatformStore:
    """Bucket in a MinIO with an administrator who creates a key for each server.

    `prefix` is a template with placeholders for the namespace and the name of the server. `public_endpoint` is the
    endpoint for clients, None if it is the same as `endpoint`. `upload_encryption` are arguments of boto3.
    """

    endpoint: str
    public_endpoint: str | None
    region: str
    bucket: str
    prefix: str
    addressing_style: str
    bucket_creation: BucketCreation
    admin: AdminCredentials
    ca: SecretKey | None
    settings: BucketSettings
    upload_encryption: Mapping[str, str]

    def prefix_of(self, namespace: str, name: str) -> str:
        """Return the prefix of the artifacts of a server. Different servers have prefixes that do not overlap."""
        values = {NAMESPACE_PLACEHOLDER: namespace, NAME_PLACEHOLDER: name}
        return "/".join(values.get(segment, segment) for segment in self.prefix.split("/"))

    @property
    def common_prefix(self) -> str:
        """The prefix that contains those of all servers; empty if that is the whole bucket."""
        first = {NAMESPACE_PLACEHOLDER, NAME_PLACEHOLDER}
        return "/".join(takewhile(lambda segment: segment not in first, self.prefix.split("/")))


def admin_connection(connection: Connection, tls: DatabaseTLSMode) -> Connection:
    """Return `connection`, which has an administrator's credentials, with the options that protect these.

    The host is resolved in the operator's own namespace: a namespace's users could otherwise direct the connection to a
    Service of theirs. The password is only sent as a SCRAM proof, which does not disclose it to a server that does not
    know it, unless the platform allows unencrypted connections.
    """
    options = () if tls in UNPROTECTED_MODES else (_REQUIRED_AUTHENTICATION,)
    return replace(connection, options=options).with_tls(tls, None)


class Part(StrEnum):
    """Store that a server can use of a platform, as in `status.platform.parts`."""

    DATABASE = "Database"
    ARTIFACTS = "Artifacts"


@dataclass(frozen=True)
class Platform:
    """Platform with all defaults set. A part that it does not offer is None.

    `secrets_namespace` contains all Secrets that the parts reference. `adoptions`: servers, as `namespace/name`, that
    may use what was created for a server in an earlier namespace of the same name. `used_adoptions`: the uid of the
    namespace that has used the entry of a server. `server_defaults` and `policy` are those of the spec.
    """

    name: str
    uid: str
    is_default: bool
    selector: Selector
    secrets_namespace: str
    database: PlatformDatabase | None
    artifacts: PlatformStore | None
    adoptions: frozenset[str]
    server_defaults: ServerDefaults
    policy: Policy
    used_adoptions: Mapping[str, str] = field(default_factory=dict)

    @property
    def parts(self) -> frozenset[Part]:
        """The stores that the platform offers."""
        offered = {Part.DATABASE: self.database, Part.ARTIFACTS: self.artifacts}
        return frozenset(part for part, store in offered.items() if store is not None)

    def selects(self, namespace_labels: Mapping[str, str]) -> bool:
        """Whether servers in a namespace with these labels may use the platform."""
        return self.selector.selects(namespace_labels)


@dataclass(frozen=True)
class PlatformUse:
    """What a server uses of a platform. `namespace_uid`: uid of the server's namespace.

    Raises ValueError without the uid: the server would count as the owner of what its predecessors left behind.
    """

    platform: Platform
    parts: frozenset[Part]
    namespace_uid: str

    def __post_init__(self) -> None:
        """Check the uid."""
        if not self.namespace_uid:
            raise ValueError("the uid of the namespace is required")

    def origin(self, owner: ServerRef) -> PlatformOrigin:
        """Return the origin of the stores of `owner` on the platform.

        An entry in `spec.adoptions` counts only once its use by this namespace is recorded, and only while it exists.
        """
        server = str(owner)
        is_recorded = self.platform.used_adoptions.get(server) == self.namespace_uid
        adopts = server in self.platform.adoptions and is_recorded
        return PlatformOrigin(self.platform.name, self.namespace_uid, adopts)

    def has_unused_adoption(self, owner: ServerRef) -> bool:
        """Whether `spec.adoptions` lists `owner`, and no namespace has used the entry."""
        server = str(owner)
        return server in self.platform.adoptions and server not in self.platform.used_adoptions

    def server_database(self, owner: ServerRef) -> ProvisionedDatabase | None:
        """Return the database of `owner`, None if it uses another one."""
        database = self.platform.database
        if database is None or Part.DATABASE not in self.parts:
            return None
        name = provisioning.derived_name(owner)
        return ProvisionedDatabase(
            host=database.host,
            port=database.port,
            database=name,
            role=name,
            username=self._reference(database.username),
            password=self._reference(database.password),
            tls=database.tls,
            ca=_ca_of_pods(owner, secrets.DATABASE_CA_KEY, database.ca),
            field=f"{self._prefix}{DATABASE_FIELD}",
            origin=self.origin(owner),
            ca_source=self._reference(database.ca) if database.ca else None,
            max_connections=database.max_connections_per_server,
        )

    def server_store(self, owner: ServerRef, env: Sequence[Object]) -> ObjectStore | None:
        """Return the bucket and prefix of `owner`, None if it uses another store. `env` is `spec.env`."""
        store = self.platform.artifacts
        if store is None or Part.ARTIFACTS not in self.parts:
            return None
        admin = AdminCredentials(
            self._reference(store.admin.access_key), self._reference(store.admin.secret_key)
        )
        access_key, secret_key = (
            SecretKey(owner.names.artifacts_secret, key, admin.access_key.field)
            for key in secrets.ACCESS_KEY_FIELDS
        )
        return ObjectStore(
            endpoint=store.endpoint,
            region=store.region,
            bucket=store.bucket,
            prefix=store.prefix_of(owner.namespace, owner.name),
            addressing_style=store.addressing_style,
            bucket_creation=store.bucket_creation,
            access_key=access_key,
            secret_key=secret_key,
            ca=_ca_of_pods(owner, secrets.ARTIFACTS_CA_KEY, store.ca),
            admin=admin,
            # Without `settings`, which the platform applies: its servers would overwrite each other's lifecycle rules.
            public_endpoint=store.public_endpoint,
            upload_arguments=upload_arguments.merge(store.upload_encryption, env),
            origin=self.origin(owner),
            ca_source=self._reference(store.ca) if store.ca else None,
            owner_arguments=upload_arguments.merge(store.upload_encryption, ()),
        )

    @property
    def _prefix(self) -> str:
        return field_prefix(self.platform.name)

    def _reference(self, key: SecretKey) -> SecretKey:
        """Return `key` for messages about a server, which must name the platform."""
        return replace(key, field=f"{self._prefix}{key.field}")


def field_prefix(platform: str) -> str:
    """Return what precedes a field of the platform in messages about a server."""
    return f"MLflowPlatform {platform}, "


def owners_prefix(prefix: str) -> str:
    """Return the prefix of the object that records the owner of a server's `prefix`. No server has access to it.

    It has one segment per prefix, so that no owner is recorded below another one.
    """
    return f"{OWNERS_SEGMENT}/owners/{prefix.replace('/', '!')}"


def _ca_of_pods(owner: ServerRef, key: str, source: SecretKey | None) -> SecretKey | None:
    """Return the copy of a CA certificate in the Secret of the server's pods, which cannot read other namespaces."""
    return SecretKey(owner.names.server_secret, key, source.field) if source else None


def resolve_platform(resource: MLflowPlatform) -> Platform:
    """Return the platform that `resource` specifies."""
    spec, meta = resource.spec, resource.metadata
    namespace = spec.secrets_namespace
    return Platform(
        name=meta.name,
        uid=meta.uid,
        is_default=resource.is_default,
        selector=label_selector.resolve(spec.namespace_selector),
        secrets_namespace=namespace,
        database=_database(spec.database.postgres, namespace) if spec.database else None,
        artifacts=_store(spec.artifacts.s3, namespace) if spec.artifacts else None,
        adoptions=frozenset(spec.adoptions),
        used_adoptions={used.server: used.namespace_uid for used in resource.status.adoptions},
        server_defaults=spec.server_defaults,
        policy=spec.policy,
    )


def defaults_for(platforms: Iterable[Platform], namespace_labels: Mapping[str, str]) -> list[Platform]:
    """Return the default platforms that select a namespace with these labels. With more than one, none applies."""
    return [platform for platform in platforms if platform.is_default and platform.selects(namespace_labels)]


def _database(spec: mlflowplatform.PlatformPostgres, namespace: str) -> PlatformDatabase:
    # A rule requires the field. With the defaults, no connection would be unverified.
    tls = spec.tls or mlflowplatform.PlatformDatabaseTLS()
    admin, ca_ref = spec.admin_secret_ref, tls.ca_secret_ref
    ref_field = f"{DATABASE_FIELD}.adminSecretRef"
    return PlatformDatabase(
        host=spec.host,
        port=spec.port,
        username=_reference(admin.name, admin.username_key, ref_field, namespace),
        password=_reference(admin.name, admin.password_key, ref_field, namespace),
        tls=tls.mode,
        ca=_ca(ca_ref, DATABASE_FIELD, namespace) if ca_ref else None,
        max_connections_per_server=spec.max_connections_per_server,
    )


def _store(spec: mlflowplatform.PlatformS3, namespace: str) -> PlatformStore:
    admin, ca_ref = spec.admin_secret_ref, spec.tls.ca_secret_ref if spec.tls else None
    ref_field = f"{ARTIFACTS_FIELD}.adminSecretRef"
    return PlatformStore(
        endpoint=spec.endpoint,
        public_endpoint=spec.public_endpoint,
        region=spec.region,
        bucket=spec.bucket,
        prefix=spec.prefix,
        addressing_style=spec.addressing_style.value.lower(),
        bucket_creation=spec.bucket_creation,
        admin=AdminCredentials(
            _reference(admin.name, admin.access_key_id_key, ref_field, namespace),
            _reference(admin.name, admin.secret_access_key_key, ref_field, namespace),
        ),
        ca=_ca(ca_ref, ARTIFACTS_FIELD, namespace) if ca_ref else None,
        settings=bucket_settings.resolve(spec),
        upload_encryption=bucket_settings.upload_encryption(spec.encryption),
    )


def _ca(ref: mlflowplatform.PlatformCASecretRef, field: str, namespace: str) -> SecretKey:
    return _reference(ref.name, ref.key, f"{field}.tls.caSecretRef", namespace)


def _reference(name: str, key: str, field: str, namespace: str) -> SecretKey:
    return SecretKey(name, key, field, namespace)
