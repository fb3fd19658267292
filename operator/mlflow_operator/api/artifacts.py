"""Where models, plots and files of runs are kept: `spec.artifacts`."""

from enum import StrEnum
from typing import Annotated

from mlflow_operator.api.bucket_settings import Encryption, Lifecycle, Versioning
from mlflow_operator.api.buckets import BucketName, Endpoint, Prefix, Region, UnmanagedURI
from mlflow_operator.api.markers import NotPersistedDefault
from mlflow_operator.api.model import Model
from mlflow_operator.api.quantities import Resources
from mlflow_operator.api.references import CASecretRef, S3AdminRef, S3CredentialsRef
from mlflow_operator.api.rules import Rule, at_most_one, not_empty
from mlflow_operator.api.storage import ArtifactStorage
from mlflow_operator.api.string_types import ImageReference


class Access(StrEnum):
    """How the bytes of an artifact travel between a client and the store."""

    PROXIED = "Proxied"
    PRESIGNED = "Presigned"
    DIRECT = "Direct"


class Engine(StrEnum):
    """What the embedded artifact store runs."""

    MINIO = "MinIO"
    SEAWEEDFS = "SeaweedFS"


class BucketCreation(StrEnum):
    """What happens when the bucket does not exist."""

    IF_MISSING = "IfMissing"
    NEVER = "Never"


class AddressingStyle(StrEnum):
    """Where requests name the bucket."""

    AUTO = "Auto"
    PATH = "Path"
    VIRTUAL = "Virtual"


class EmbeddedArtifactStore(Model):
    """An S3 store of the server's own, with one instance and one volume."""

    engine: Engine = Engine.MINIO
    """The software that is the store: MinIO, or SeaweedFS, which is maintained. Fixed once the server has data."""
    image: ImageReference | None = None
    """Image of the engine. Absent: the one the operator is tested with."""
    storage: ArtifactStorage = ArtifactStorage()
    """The volume that holds the artifacts."""
    resources: Resources | None = None
    """CPU and memory of the store. Absent: enough for a team of some ten people."""


class S3TLS(Model):
    """Trust in the certificate of the store."""

    ca_secret_ref: CASecretRef
    """The CA that signed the certificate of the store."""


class S3(Model):
    """A bucket in an S3 store that somebody else runs: AWS, MinIO, Ceph, SeaweedFS."""

    endpoint: Endpoint | None = None
    """Address of the store, such as `https://minio.example.com:9000`. Absent: AWS."""
    public_endpoint: Endpoint | None = None
    """Address of the store for clients, where they reach it by another one than the server: presigned URLs name it,
    and Direct clients are told it. Absent: `endpoint`.
    """
    region: Region = "us-east-1"
    """Region that requests are signed for. Stores other than AWS mostly take any."""
    bucket: BucketName
    """Name of the bucket."""
    prefix: Prefix | None = None
    """Where in the bucket this server's artifacts go, such as `team-a/mlflow`. Absent: its root."""
    bucket_creation: BucketCreation = BucketCreation.IF_MISSING
    """IfMissing: a bucket that does not exist is made. Never: it is waited for."""
    addressing_style: AddressingStyle = AddressingStyle.AUTO
    """Path: the bucket stands in the path of a URL. Virtual: in its host name. Auto: boto3 decides."""
    credentials_secret_ref: S3CredentialsRef | None = None
    """A Secret with an access key. Without it and `adminSecretRef`: the identity of
    `podTemplate.spec.serviceAccountName`.
    """
    admin_secret_ref: S3AdminRef | None = None
    """A Secret with an administrator's key of a MinIO, instead of `credentialsSecretRef`: the operator makes the bucket
    and a key that opens nothing but the prefix. The server never sees the administrator's.
    """
    tls: S3TLS | None = None
    """Trust in the certificate of the store. Absent: the public CAs."""
    versioning: Versioning = Versioning.UNMANAGED
    """Enabled: the bucket keeps what is overwritten or deleted. Unmanaged: it is left as it is."""
    lifecycle: Lifecycle | None = None
    """What the store clears away under the prefix. Absent: unmanaged, and a rule made before stays; `{}`: none."""
    encryption: Encryption | None = None
    """How the bucket encrypts. Absent: unmanaged."""

    rules = (
        Rule(
            "!(has(self.credentialsSecretRef) && has(self.adminSecretRef))",
            "spec.artifacts.s3 takes either credentialsSecretRef, a key for the server, or adminSecretRef, with which "
            "one is made: keep one, remove the other",
            holds=lambda it: it.credentials_secret_ref is None or it.admin_secret_ref is None,
        ),
        Rule(
            "!has(self.adminSecretRef) || has(self.endpoint)",
            "spec.artifacts.s3.adminSecretRef makes keys on a MinIO, and without endpoint the store is AWS: name the "
            "MinIO's endpoint, or use credentialsSecretRef or a workload identity",
            field=".adminSecretRef",
            holds=lambda it: it.admin_secret_ref is None or it.endpoint is not None,
        ),
        Rule(
            "has(self.credentialsSecretRef) || has(self.adminSecretRef) || !((has(self.versioning) && "
            "self.versioning == 'Enabled') || has(self.lifecycle) || has(self.encryption))",
            "spec.artifacts.s3.versioning, lifecycle and encryption need a key that the operator can use, and with a "
            "workload identity it has none: set them on the bucket yourself and remove them here, or name a Secret in "
            "credentialsSecretRef or adminSecretRef",
            holds=lambda it: (
                it.credentials_secret_ref is not None
                or it.admin_secret_ref is not None
                or (it.versioning is Versioning.UNMANAGED and it.lifecycle is None and it.encryption is None)
            ),
        ),
    )


class ExternalArtifactStore(Model):
    """A store that is not S3. MLflow opens it by what `spec.env`, `spec.envFrom` or the pods' identity give it; the
    operator passes the address on and can neither check nor make anything there.
    """

    uri: UnmanagedURI
    """Address of the store as MLflow takes it, such as `gs://bucket/path` or
    `wasbs://container@account.blob.core.windows.net/path`.
    """


class Artifacts(Model):
    """One of `embedded`, `s3` and `external` at most; none means `embedded`."""

    access: Annotated[Access, NotPersistedDefault()] = Access.PROXIED
    """Proxied: everything passes through the server and clients reach nothing else. Presigned: the server
    signs URLs, and clients transfer straight from and to the store. Direct: clients do so with the keys in Secret
    `<name>-client`. The last two need `s3`, and clients that reach its `publicEndpoint` or `endpoint`. Default
    Proxied.
    """
    embedded: EmbeddedArtifactStore | None = None
    """A store of the server's own, made and kept by the operator."""
    s3: S3 | None = None
    """A bucket that somebody else runs."""
    external: ExternalArtifactStore | None = None
    """A store that is not S3."""

    rules = (
        at_most_one("spec.artifacts", "embedded", "s3", "external"),
        not_empty("spec.artifacts", "embedded", "s3", "external", "access"),
        Rule(
            "self.?access.orValue('Proxied') == 'Proxied' || has(self.s3)",
            "spec.artifacts.access Presigned or Direct makes clients reach the store, which only an S3 store can let "
            "them: "
            "use Proxied, or a store of your own in spec.artifacts.s3",
            field=".access",
            holds=lambda it: it.access is Access.PROXIED or it.s3 is not None,
        ),
        Rule(
            "!has(self.s3) || !has(self.s3.publicEndpoint) || self.?access.orValue('Proxied') != 'Proxied'",
            "spec.artifacts.s3.publicEndpoint has no effect while spec.artifacts.access is Proxied, for then no client "
            "reaches the store: remove it, or set spec.artifacts.access to Presigned or Direct",
            field=".s3",
            holds=lambda it: (
                it.s3 is None or it.s3.public_endpoint is None or it.access is not Access.PROXIED
            ),
        ),
    )
