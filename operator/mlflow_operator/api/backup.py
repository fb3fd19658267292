"""Database backups: `spec.backup`."""

from typing import Annotated

from pydantic import Field

from mlflow_operator.api.artifacts import S3TLS, AddressingStyle, BucketCreation
from mlflow_operator.api.bucket_settings import Encryption
from mlflow_operator.api.buckets import BucketName, Endpoint, Prefix, Region
from mlflow_operator.api.duration import Duration
from mlflow_operator.api.markers import Int32
from mlflow_operator.api.model import Model
from mlflow_operator.api.references import S3CredentialsRef
from mlflow_operator.api.schedule import Schedule, TimeZone
from mlflow_operator.api.string_types import ImageReference


class Retention(Model):
    """Retention of backups. A backup that exceeds either limit is deleted, except the latest successful one."""

    max_count: Annotated[Int32, Field(ge=1, le=1000)] = 14
    """Maximum number of backups to keep. Defaults to 14."""
    max_age: Duration = "720h"
    """Maximum age of backups, such as `720h` for 30 days. Defaults to 720h."""


class BackupStore(Model):
    """Bucket in an S3 store. Use a store whose failure does not also affect the database and the artifacts."""

    endpoint: Annotated[Endpoint | None, Field(examples=["https://backups.example.com:9000"])] = None
    """URL of the store, such as `https://minio.example.com:9000`. Defaults to Amazon S3."""
    region: Region = "us-east-1"
    """Region that requests are signed for. Most stores other than AWS accept any region. Defaults to us-east-1."""
    bucket: Annotated[BucketName, Field(examples=["mlflow-backups"])]
    """Name of the bucket."""
    prefix: Annotated[Prefix | None, Field(examples=["backups/tracking"])] = None
    """Key prefix of backups in the bucket. Each server has its own folder below it. Defaults to the root of the
    bucket.
    """
    bucket_creation: BucketCreation = BucketCreation.IF_MISSING
    """Whether the operator creates the bucket. IfMissing: the operator creates a bucket that does not exist, if
    `credentialsSecretRef` is set. Never: the operator does not create it. Defaults to IfMissing.
    """
    addressing_style: AddressingStyle = AddressingStyle.AUTO
    """Where requests name the bucket. Path: in the path of the URL. Virtual: in the host name. Auto: boto3 decides.
    Defaults to Auto.
    """
    credentials_secret_ref: S3CredentialsRef | None = None
    """Secret with an access key that may list, read, write and delete objects in the bucket. Defaults to the identity
    of `podTemplate.spec.serviceAccountName`.
    """
    tls: S3TLS | None = None
    """Verification of the store's TLS certificate. Defaults to the public CAs."""
    encryption: Encryption | None = None
    """Encryption that each upload requests. The operator does not change the bucket. Defaults to the default encryption
    of the bucket.
    """


class Backup(Model):
    """Database backups. `{}` creates one backup a day. Artifacts are not included; enable versioning or replication of
    the bucket to protect them.
    """

    schedule: Schedule = "0 2 * * *"
    """Cron schedule of backups: minute, hour, day of the month, month, day of the week. Defaults to every day at
    02:00.
    """
    time_zone: TimeZone = "Etc/UTC"
    """Time zone of the schedule. Defaults to Etc/UTC."""
    image: Annotated[ImageReference | None, Field(examples=["registry.example.com/postgres:17"])] = None
    """Image with `pg_dump` of at least the major version of the database. Defaults to the image of the embedded
    database, or the PostgreSQL image that the operator is tested with.
    """
    retention: Retention = Retention()
    """Retention of backups."""
    s3: BackupStore | None = None
    """Bucket for backups. Defaults to the artifact store of this server, which may be lost together with the
    database.
    """
