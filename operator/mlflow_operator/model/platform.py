"""The resolved configuration of a platform: its stores, and the namespaces that may use them."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from mlflow_operator.api import mlflowplatform
from mlflow_operator.api.artifacts import BucketCreation
from mlflow_operator.api.database import DatabaseTLSMode
from mlflow_operator.api.mlflowplatform import NAME_PLACEHOLDER, NAMESPACE_PLACEHOLDER, MLflowPlatform
from mlflow_operator.model import bucket_settings, label_selector
from mlflow_operator.model.label_selector import Selector
from mlflow_operator.model.postgres_uri import Connection
from mlflow_operator.model.server import AdminCredentials, BucketSettings, SecretKey

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

    def admin_connection(self, database: str, username: str, password: str) -> Connection:
        """Return a connection with the administrator's credentials.

        The host is resolved in the operator's own namespace: a namespace's users could otherwise direct the connection
        to a Service of theirs. The password is only sent as a SCRAM proof, which does not disclose it to a server that
        does not know it, unless the platform allows unencrypted connections.
        """
        options = () if self.tls in UNPROTECTED_MODES else (_REQUIRED_AUTHENTICATION,)
        return Connection(self.host, self.port, database, username, password, options).with_tls(
            self.tls, None
        )


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


@dataclass(frozen=True)
class Platform:
    """Platform with all defaults set. A part that it does not offer is None.

    `secrets_namespace` contains all Secrets that the parts reference.
    """

    name: str
    uid: str
    is_default: bool
    selector: Selector
    secrets_namespace: str
    database: PlatformDatabase | None
    artifacts: PlatformStore | None

    def selects(self, namespace_labels: Mapping[str, str]) -> bool:
        """Whether servers in a namespace with these labels may use the platform."""
        return self.selector.selects(namespace_labels)


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
    )


def defaults_for(platforms: Iterable[Platform], namespace_labels: Mapping[str, str]) -> list[Platform]:
    """Return the default platforms that select a namespace with these labels. With more than one, none applies."""
    return [platform for platform in platforms if platform.is_default and platform.selects(namespace_labels)]


def _database(spec: mlflowplatform.PlatformPostgres, namespace: str) -> PlatformDatabase:
    admin, ca_ref = spec.admin_secret_ref, spec.tls.ca_secret_ref
    ref_field = f"{DATABASE_FIELD}.adminSecretRef"
    return PlatformDatabase(
        host=spec.host,
        port=spec.port,
        username=SecretKey(admin.name, admin.username_key, ref_field, namespace),
        password=SecretKey(admin.name, admin.password_key, ref_field, namespace),
        tls=spec.tls.mode,
        ca=_ca(ca_ref, DATABASE_FIELD, namespace) if ca_ref else None,
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
            SecretKey(admin.name, admin.access_key_id_key, ref_field, namespace),
            SecretKey(admin.name, admin.secret_access_key_key, ref_field, namespace),
        ),
        ca=_ca(ca_ref, ARTIFACTS_FIELD, namespace) if ca_ref else None,
        settings=bucket_settings.resolve(spec),
        upload_encryption=bucket_settings.upload_encryption(spec.encryption),
    )


def _ca(ref: mlflowplatform.PlatformCASecretRef, field: str, namespace: str) -> SecretKey:
    return SecretKey(ref.name, ref.key, f"{field}.tls.caSecretRef", namespace)
