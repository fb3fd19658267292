"""Storage of artifacts (models, plots and other files of runs): `spec.artifacts`."""

from enum import StrEnum
from typing import Annotated

from pydantic import Field

from mlflow_operator.api.bucket_settings import Encryption, Lifecycle, Versioning
from mlflow_operator.api.buckets import BucketName, Endpoint, Prefix, Region, UnmanagedURI
from mlflow_operator.api.markers import NotPersistedDefault
from mlflow_operator.api.model import Model
from mlflow_operator.api.quantities import Resources
from mlflow_operator.api.references import CASecretRef, S3AdminRef, S3CredentialsRef
from mlflow_operator.api.rules import Rule, at_most_one, not_empty
from mlflow_operator.api.storage import ArtifactStorage
from mlflow_operator.api.string_types import ImageReference


class ArtifactAccess(StrEnum):
    """How clients upload and download artifacts."""

    PROXIED = "Proxied"
    PRESIGNED = "Presigned"
    DIRECT = "Direct"


class Engine(StrEnum):
    """Software of the embedded artifact store."""

    MINIO = "MinIO"
    SEAWEEDFS = "SeaweedFS"


class BucketCreation(StrEnum):
    """Whether the operator creates a bucket that does not exist."""

    IF_MISSING = "IfMissing"
    NEVER = "Never"


class AddressingStyle(StrEnum):
    """Where S3 requests name the bucket."""

    AUTO = "Auto"
    PATH = "Path"
    VIRTUAL = "Virtual"


class EmbeddedArtifactStore(Model):
    """S3 store that the operator runs for this server only, with one pod and one volume."""

    engine: Engine = Engine.MINIO
    """Software of the store: MinIO, or SeaweedFS, which is still maintained. Immutable unless `storageChangePolicy` is
    Allow. Defaults to MinIO.
    """
    image: Annotated[
        ImageReference | None,
        Field(examples=["registry.example.com/minio/minio:RELEASE.2025-09-07T16-13-09Z"]),
    ] = None
    """Image of the engine. Defaults to the image that the operator is tested with."""
    storage: ArtifactStorage = ArtifactStorage()
    """Volume that holds the artifacts."""
    resources: Resources | None = None
    """Compute resources of the store's container. Defaults to values for a team of about ten people."""


class S3TLS(Model):
    """Verification of the store's TLS certificate."""

    ca_secret_ref: CASecretRef
    """Secret with the CA that signed the store's certificate."""


class S3Bucket(Model):
    """Bucket in an S3 store, with the settings that do not depend on who provides its credentials."""

    endpoint: Endpoint | None = None
    """URL of the store, such as `https://minio.example.com:9000`. Defaults to Amazon S3."""
    public_endpoint: Annotated[Endpoint | None, Field(examples=["https://minio.example.com"])] = None
    """URL of the store for clients that cannot use `endpoint`. The server signs presigned URLs for this URL, and the
    client ConfigMap passes it to clients with access Direct. Defaults to `endpoint`.
    """
    region: Region = "us-east-1"
    """Region that requests are signed for. Most stores other than AWS accept any region. Defaults to us-east-1."""
    bucket: Annotated[BucketName, Field(examples=["mlflow"])]
    """Name of the bucket."""
    prefix: Prefix | None = None
    """Key prefix of this server's artifacts in the bucket, such as `team-a/mlflow`. Defaults to the root of the
    bucket.
    """
    bucket_creation: BucketCreation = BucketCreation.IF_MISSING
    """Whether the operator creates the bucket. IfMissing: the operator creates a bucket that does not exist.
    Never: the server waits until the bucket exists. Defaults to IfMissing.
    """
    addressing_style: AddressingStyle = AddressingStyle.AUTO
    """Where requests name the bucket. Path: in the path of the URL. Virtual: in the host name. Auto: boto3 decides.
    Defaults to Auto.
    """
    tls: S3TLS | None = None
    """Verification of the store's TLS certificate. Defaults to the public CAs."""
    versioning: Versioning = Versioning.UNMANAGED
    """Versioning of the bucket. Enabled: the bucket keeps old versions of overwritten and deleted objects.
    Unmanaged: the operator does not change the setting. Defaults to Unmanaged.
    """
    lifecycle: Lifecycle | None = None
    """Lifecycle rule for the prefix. If not set, the operator does not manage the rule, and a rule that it created
    earlier stays. Set to `{}` to remove that rule.
    """
    encryption: Encryption | None = None
    """Default encryption of the bucket, which the server and backups in this bucket also request with each upload. If
    not set, the operator does not change it.
    """


class S3(S3Bucket):
    """Bucket in an S3 store that the operator does not run, such as AWS, MinIO, Ceph or SeaweedFS."""

    credentials_secret_ref: S3CredentialsRef | None = None
    """Secret with an access key for the bucket. Without it and without `adminSecretRef`, pods use the identity of
    `podTemplate.spec.serviceAccountName`.
    """
    admin_secret_ref: S3AdminRef | None = None
    """Secret with an administrator's access key for MinIO, instead of `credentialsSecretRef`. The operator creates
    the bucket and an access key that is limited to the prefix. The server never gets the administrator's key.
    """

    rules = (
        Rule(
            "!(has(self.credentialsSecretRef) && has(self.adminSecretRef))",
            "spec.artifacts.s3 must not set both credentialsSecretRef (an access key for the server) and "
            "adminSecretRef (an administrator's key to create one): remove one of them",
            holds=lambda s3: s3.credentials_secret_ref is None or s3.admin_secret_ref is None,
        ),
        Rule(
            "!has(self.adminSecretRef) || has(self.endpoint)",
            "spec.artifacts.s3.adminSecretRef requires endpoint, because the operator creates access keys on MinIO "
            "and not on AWS: set endpoint to the URL of MinIO, or use credentialsSecretRef or a workload identity",
            field=".adminSecretRef",
            holds=lambda s3: s3.admin_secret_ref is None or s3.endpoint is not None,
        ),
        Rule(
            "has(self.credentialsSecretRef) || has(self.adminSecretRef) || !((has(self.versioning) && "
            "self.versioning == 'Enabled') || has(self.lifecycle) || has(self.encryption))",
            "spec.artifacts.s3.versioning, lifecycle and encryption require an access key for the operator, which "
            "cannot use the workload identity of the pods: configure the bucket yourself and remove these fields, or "
            "set credentialsSecretRef or adminSecretRef",
            holds=lambda s3: (
                s3.credentials_secret_ref is not None
                or s3.admin_secret_ref is not None
                or (s3.versioning is Versioning.UNMANAGED and s3.lifecycle is None and s3.encryption is None)
            ),
        ),
    )


class PlatformArtifactStore(Model):
    """Bucket of a platform, in which the server has a prefix and an access key of its own. It has no settings: the
    platform has them.
    """


class ExternalArtifactStore(Model):
    """Store that is not S3. MLflow gets its credentials from `spec.env`, `spec.envFrom` or the identity of the pods.
    The operator passes the URI to MLflow and neither checks nor creates anything in the store.
    """

    uri: UnmanagedURI
    """URI of the store in MLflow's notation, such as `gs://bucket/path` or
    `wasbs://container@account.blob.core.windows.net/path`.
    """


_MEMBERS = ("embedded", "s3", "external", "platform")


class Artifacts(Model):
    """At most one of `embedded`, `s3`, `external` and `platform`. If none is set, a new server uses the platform in
    `platformRef`, or the default platform of its namespace, if it offers an artifact store, and otherwise `embedded`.
    """

    access: Annotated[ArtifactAccess, NotPersistedDefault()] = ArtifactAccess.PROXIED
    """How clients upload and download artifacts. Proxied: through the server, clients need no access to the store.
    Presigned: directly from and to the store, with URLs that the server signs. Direct: directly from and to the store,
    with the access key in Secret `<name>-client`. Presigned and Direct require `s3` or `platform`, and clients that can
    connect to `publicEndpoint` or `endpoint`. Defaults to Proxied.
    """
    embedded: EmbeddedArtifactStore | None = None
    """S3 store that the operator runs for this server only."""
    s3: S3 | None = None
    """Bucket in an S3 store that the operator does not run."""
    external: ExternalArtifactStore | None = None
    """Store that is not S3."""
    platform: PlatformArtifactStore | None = None
    """Bucket of the platform in `platformRef`, or of the default platform of the namespace."""

    rules = (
        at_most_one("spec.artifacts", *_MEMBERS),
        not_empty("spec.artifacts", *_MEMBERS, "access"),
        Rule(
            "self.?access.orValue('Proxied') == 'Proxied' || has(self.s3) || has(self.platform)",
            "spec.artifacts.access Presigned and Direct require spec.artifacts.s3 or spec.artifacts.platform, because "
            "clients connect to the store themselves: set access to Proxied, or configure one of them",
            field=".access",
            holds=lambda artifacts: (
                artifacts.access is ArtifactAccess.PROXIED
                or artifacts.s3 is not None
                or artifacts.platform is not None
            ),
        ),
        Rule(
            "!has(self.s3) || !has(self.s3.publicEndpoint) || self.?access.orValue('Proxied') != 'Proxied'",
            "spec.artifacts.s3.publicEndpoint has no effect with spec.artifacts.access Proxied, because clients do not "
            "connect to the store: remove publicEndpoint, or set spec.artifacts.access to Presigned or Direct",
            field=".s3",
            holds=lambda artifacts: (
                artifacts.s3 is None
                or artifacts.s3.public_endpoint is None
                or artifacts.access is not ArtifactAccess.PROXIED
            ),
        ),
    )
