"""The custom resource MLflowPlatform: the stores that a platform team offers, the namespaces that may use them, and the
defaults and limits of their servers.
"""

import re
from collections.abc import Mapping
from typing import Annotated, Any, Literal

from pydantic import Field

from mlflow_operator.api.artifacts import S3TLS, BucketCreation, S3Bucket
from mlflow_operator.api.bucket_settings import Encryption, Lifecycle
from mlflow_operator.api.buckets import Endpoint
from mlflow_operator.api.database import HOST_PATTERN, DatabaseTLS, DatabaseTLSMode
from mlflow_operator.api.label_selector import LabelSelector
from mlflow_operator.api.markers import Int32, Int64, ListMap, ListSet
from mlflow_operator.api.model import Model
from mlflow_operator.api.platform_policy import Policy
from mlflow_operator.api.references import CASecretRef, DatabaseUserRef, S3KeyRef
from mlflow_operator.api.resource import Metadata, parse_as
from mlflow_operator.api.rules import Rule, matches, string_rule
from mlflow_operator.api.server_defaults import ServerDefaults
from mlflow_operator.api.status import Condition
from mlflow_operator.api.string_types import NamespaceName, ObjectName

KIND = "MLflowPlatform"
PLURAL = "mlflowplatforms"

DEFAULT_ANNOTATION = "mlflow-operator.dev/is-default-platform"
"""Annotation with the value "true": the platform is the default of the namespaces that it selects."""

QualifiedHost = Annotated[
    str,
    Field(max_length=253),
    matches(
        HOST_PATTERN,
        "is not a valid host: use a host name or an IP address only, and set the port in port",
        sensitive=True,
    ),
    Rule(
        "self.contains('.') || self.contains(':')",
        "host must be an IP address or a name with a dot, because a short name is another Service in each namespace: "
        "use the name with its namespace, such as postgres.mlflow-platform.svc",
        holds=lambda host: "." in host or ":" in host,
    ),
]
"""Host name that does not depend on the namespace of a pod, or IP address."""

_QUALIFIED_ENDPOINT = r"^https?://(\[|[^/:]*[.])"

QualifiedEndpoint = Annotated[
    Endpoint,
    Rule(
        f"self.matches('{_QUALIFIED_ENDPOINT}')".replace("\\", "\\\\"),
        "the host of an endpoint must be an IP address or a name with a dot, because a short name is another Service "
        "in each namespace: use the name with its namespace, such as https://minio.mlflow-platform.svc:9000",
        holds=lambda endpoint: re.match(_QUALIFIED_ENDPOINT, endpoint) is not None,
    ),
]
"""URL whose host does not depend on the namespace of a pod."""

NAMESPACE_PLACEHOLDER, NAME_PLACEHOLDER = "{namespace}", "{name}"

OWNERS_SEGMENT = "_mlflow-operator"
"""First segment of the keys at which the operator records the owners of prefixes. No namespace begins with an
underscore, and no prefix begins with this segment: no server has access to these keys."""


def _contains_once(placeholder: str) -> Rule:
    return string_rule(
        f"self.split('/').exists_one(part, part == '{placeholder}')",
        f"must contain {placeholder} once as a whole segment, because servers without a prefix of their own could "
        f"access each other's artifacts: use a prefix such as {NAMESPACE_PLACEHOLDER}/{NAME_PLACEHOLDER}",
        lambda prefix: prefix.split("/").count(placeholder) == 1,
    )


_SEGMENT = r"([A-Za-z0-9_][A-Za-z0-9_.=@-]*|\{namespace\}|\{name\})"

PrefixTemplate = Annotated[
    str,
    Field(max_length=256),
    matches(
        f"{_SEGMENT}(/{_SEGMENT})*",
        "is not a valid prefix: use {namespace}, {name}, letters, digits and _ . = @ - in segments that are separated "
        "by '/', such as mlflow/{namespace}/{name}, without a '/' at the beginning or end",
    ),
    _contains_once(NAMESPACE_PLACEHOLDER),
    _contains_once(NAME_PLACEHOLDER),
    string_rule(
        f"self.split('/')[0] != '{OWNERS_SEGMENT}'",
        f"must not begin with {OWNERS_SEGMENT}, where the operator records which server each prefix belongs to: "
        "use another first segment",
        lambda prefix: prefix.split("/", maxsplit=1)[0] != OWNERS_SEGMENT,
    ),
]
"""Prefix with placeholders. Prefixes of different servers are never equal, and none contains another."""


Adoption = Annotated[
    str,
    Field(max_length=104),
    matches(
        r"[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?/[a-z]([a-z0-9-]{0,38}[a-z0-9])?",
        "is not a valid server: use its namespace and its name, such as team-a/tracking",
    ),
]
"""Namespace and name of a server."""


class PlatformCASecretRef(CASecretRef):
    """Reference to a key of a Secret that contains CA certificates in PEM format."""

    name: Annotated[ObjectName, Field(examples=["private-ca"])]
    """Name of the Secret, in `spec.secretsNamespace`."""


class PlatformDatabaseAdminRef(DatabaseUserRef):
    """Reference to a Secret with a database user that may create roles and databases."""

    name: Annotated[ObjectName, Field(examples=["postgres-admin"])]
    """Name of the Secret, in `spec.secretsNamespace`."""


class PlatformS3AdminRef(S3KeyRef):
    """Reference to a Secret with an access key that may create buckets, users and policies."""

    name: Annotated[ObjectName, Field(examples=["minio-admin"])]
    """Name of the Secret, in `spec.secretsNamespace`."""


class PlatformDatabaseTLS(DatabaseTLS):
    """TLS settings of connections to PostgreSQL."""

    mode: DatabaseTLSMode = DatabaseTLSMode.VERIFY_FULL
    """TLS mode, as libpq's `sslmode`. Disable: no TLS. Prefer: TLS if the database supports it. Require: TLS without
    verification of the certificate. VerifyCA: TLS, and the certificate must be signed by the CA in `caSecretRef`.
    VerifyFull: like VerifyCA, and the certificate must be issued for the host. Except with VerifyFull, another service
    can receive the administrator's login; the condition DatabaseReady then says so. Defaults to VerifyFull.
    """
    ca_secret_ref: PlatformCASecretRef | None = None
    """Secret with the CA that signed the database's certificate. Required by VerifyCA and VerifyFull."""


class PlatformPostgres(Model):
    """PostgreSQL on which the operator creates a database and a role for each server."""

    host: Annotated[QualifiedHost, Field(examples=["postgres.mlflow-platform.svc"])]
    """IP address of PostgreSQL, or host name with its domain or namespace. Must not be a connection pooler."""
    port: Annotated[Int32, Field(ge=1, le=65535)] = 5432
    """Port of PostgreSQL. Defaults to 5432."""
    admin_secret_ref: PlatformDatabaseAdminRef
    """Secret with a user that may create roles and databases (CREATEROLE and CREATEDB; superuser is not required). Only
    the operator reads this Secret.
    """
    tls: PlatformDatabaseTLS | None = None
    """TLS settings of connections. Required: set `caSecretRef`, or a mode that does not verify the certificate."""
    max_connections_per_server: Annotated[Int32, Field(ge=20, le=262143)] = 130
    """Maximum number of connections of each server, whichever `replicas`, `workers` and pool sizes its spec sets. If
    these need more, the operator makes the connection pools of the server smaller. A server that needs more even with
    the smallest pools has the reason PolicyViolation. A server with the default settings needs 129. Defaults to 130.
    """

    # Not a required field: the message of the API server would not say what to set.
    rules = (
        Rule(
            "has(self.tls)",
            "tls is required, because the default mode VerifyFull verifies the certificate of PostgreSQL with the CA "
            "that signed it: set tls.caSecretRef to a Secret with this CA in spec.secretsNamespace, or, for "
            "evaluations only, set tls.mode to Require, which does not verify the certificate",
            field=".tls",
            holds=lambda postgres: postgres.tls is not None,
        ),
    )


class PlatformDatabase(Model):
    """Database that the platform offers."""

    postgres: PlatformPostgres
    """PostgreSQL on which the operator creates a database and a role for each server."""


class PlatformS3TLS(S3TLS):
    """Verification of the store's TLS certificate."""

    ca_secret_ref: PlatformCASecretRef
    """Secret with the CA that signed the store's certificate."""


class PlatformS3(S3Bucket):
    """Bucket in a MinIO in which the operator gives each server a key for its own prefix."""

    endpoint: Annotated[QualifiedEndpoint, Field(examples=["https://minio.mlflow-platform.svc:9000"])]
    """URL of MinIO, such as `https://minio.mlflow-platform.svc:9000`."""
    prefix: PrefixTemplate = "{namespace}/{name}"
    """Key prefix of each server's artifacts in the bucket. `{namespace}` and `{name}` stand for those of the server;
    the prefix must contain both. Defaults to {namespace}/{name}.
    """
    admin_secret_ref: PlatformS3AdminRef
    """Secret with an administrator's access key for MinIO. The operator creates the bucket, and for each server an
    access key that is limited to its prefix. Only the operator reads this Secret.
    """
    tls: PlatformS3TLS | None = None
    """Verification of the store's TLS certificate. Defaults to the public CAs."""
    bucket_creation: BucketCreation = BucketCreation.IF_MISSING
    """Whether the operator creates the bucket. IfMissing: the operator creates a bucket that does not exist.
    Never: the condition ArtifactStoreReady is False until the bucket exists. Defaults to IfMissing.
    """
    lifecycle: Lifecycle | None = None
    """Lifecycle rule for the artifacts of all servers. It covers everything under the part of `prefix` before the first
    placeholder, with the default prefix the whole bucket. If not set, the operator does not manage the rule, and a rule
    that it created earlier stays. Set to `{}` to remove that rule.
    """
    encryption: Encryption | None = None
    """Default encryption of the bucket, which servers and their backups also request with each upload. If not set, the
    operator does not change it.
    """


class PlatformArtifacts(Model):
    """Artifact store that the platform offers."""

    s3: PlatformS3
    """Bucket in a MinIO in which the operator gives each server a key for its own prefix."""


class Spec(Model):
    """Stores that the platform offers, the namespaces that may use them, and the defaults and limits of their
    servers.
    """

    namespace_selector: LabelSelector
    """Selector of the namespaces whose servers may use the platform. `{}` selects every namespace."""
    secrets_namespace: Annotated[NamespaceName, Field(examples=["mlflow-platform"])]
    """Namespace of all Secrets that this resource references, except those in `serverDefaults`. Users of the platform
    need no access to it.
    """
    database: PlatformDatabase | None = None
    """Database for servers. If not set, servers use their own."""
    artifacts: PlatformArtifacts | None = None
    """Artifact store for servers. If not set, servers use their own."""
    server_defaults: ServerDefaults = ServerDefaults()
    """Defaults for fields that a new server leaves out. A server takes them once, when it is created, and records them
    in `status.platformDefaults`; later changes of the platform change no existing server. The server's own value takes
    precedence, also if it is set later. They apply to servers that use the platform, and to those with stores of their
    own in namespaces of which it is the default platform.
    """
    policy: Policy = Policy()
    """Limits for all servers in the selected namespaces, whichever stores they use and whenever they were created. If a
    namespace is selected by several platforms, the policies of all of them apply. A server that violates a policy has
    the reason PolicyViolation: the operator applies nothing, and its running pods continue.
    """
    adoptions: Annotated[
        tuple[Adoption, ...], Field(max_length=256, examples=[["team-a/tracking"]]), ListSet()
    ] = ()
    """Servers, as `namespace/name`, that may use a database, a role or a prefix of their name although these were
    created before the server used the platform, or for a server in another namespace of the same name, which was
    deleted. Without an entry, a namespace that is deleted and created again gets no data back. An entry counts for the
    first namespace that uses it, which `status.adoptions` records. To use it for a later namespace of the same name,
    remove it, and add it again once the status does not list it.
    """

    rules = (
        Rule(
            "has(self.database) || has(self.artifacts)",
            "spec must offer at least one store: set spec.database, spec.artifacts, or both",
            holds=lambda spec: spec.database is not None or spec.artifacts is not None,
        ),
    )


class PlatformCondition(Condition):
    """Condition of the platform, in the format of Kubernetes conditions."""

    type: Annotated[str, Field(max_length=316, examples=["DatabaseReady"])]
    """Type of the condition: Ready, DatabaseReady or ArtifactStoreReady."""


class UsedAdoption(Model):
    """Entry of `spec.adoptions` that a server has used."""

    server: Annotated[str, Field(max_length=1024, examples=["team-a/tracking"])]
    """Namespace and name of the server."""
    namespace_uid: Annotated[
        str,
        Field(alias="namespaceUID", max_length=1024, examples=["7c1f6c0e-4a0d-4a55-9d0e-1f8a6b1f9b57"]),
    ] = ""
    """UID of the namespace whose server has used the entry."""


class Status(Model):
    """Most recently observed state of the platform."""

    observed_generation: Annotated[Int64 | None, Field(examples=[3])] = None
    """Generation of the resource that the operator last reconciled."""
    conditions: Annotated[tuple[PlatformCondition, ...], Field(max_length=32), ListMap("type")] = ()
    """Conditions of the platform. Ready summarizes the others. A condition that is not True has a message with the
    cause and the next step.
    """
    is_default: Annotated[bool | None, Field(examples=[True])] = None
    """Whether new servers in the selected namespaces use the platform without naming it. False without the annotation
    `mlflow-operator.dev/is-default-platform: "true"`, if another default platform selects the same namespace, and while
    the platform is invalid or being deleted.
    """
    adoptions: Annotated[tuple[UsedAdoption, ...], Field(max_length=256), ListMap("server")] = ()
    """Entries of `spec.adoptions` that servers have used, each with the namespace for which it counts. They are not
    needed any more, and disappear here when they are removed there.
    """


class MLflowPlatform(Model):
    """PostgreSQL and S3 that a platform team offers to MLflowServers in selected namespaces. Only cluster
    administrators should be able to write it, because it decides to which hosts the operator sends the credentials that
    it references.
    """

    api_version: Literal["mlflow-operator.dev/v1alpha1"] = "mlflow-operator.dev/v1alpha1"
    kind: Literal["MLflowPlatform"] = "MLflowPlatform"
    metadata: Metadata
    spec: Spec
    """Stores that the platform offers, the namespaces that may use them, and the defaults and limits of their
    servers.
    """
    status: Status = Status()
    """Observed state of the platform."""

    @property
    def is_default(self) -> bool:
        """Whether the platform is the default of the namespaces that it selects."""
        return self.metadata.annotations.get(DEFAULT_ANNOTATION) == "true"


def parse(obj: Mapping[str, Any]) -> MLflowPlatform:
    """Parse a resource from the API server or from a manifest; unknown fields are ignored.

    Raises InvalidResource if the resource violates the CRD. The message names every invalid field.
    """
    return parse_as(MLflowPlatform, obj)
