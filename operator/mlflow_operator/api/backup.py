"""Backups of the database: `spec.backup`."""

from typing import Annotated

from pydantic import Field

from mlflow_operator.api.artifacts import S3TLS, AddressingStyle, BucketCreation
from mlflow_operator.api.buckets import BucketName, Endpoint, Prefix, Region
from mlflow_operator.api.duration import Duration
from mlflow_operator.api.markers import Int32
from mlflow_operator.api.model import Model
from mlflow_operator.api.references import S3CredentialsRef
from mlflow_operator.api.schedule import Schedule, TimeZone
from mlflow_operator.api.string_types import ImageReference


class Retention(Model):
    """Which backups are kept. Both limits hold, but the newest good backup is never deleted."""

    max_count: Annotated[Int32, Field(ge=1, le=1000)] = 14
    """How many are kept."""
    max_age: Duration = "720h"
    """How old they get, such as `720h` for 30 days."""


class BackupStore(Model):
    """A bucket in an S3 store, best in another place than the database and the artifacts."""

    endpoint: Endpoint | None = None
    """Address of the store, such as `https://minio.example.com:9000`. Absent: AWS."""
    region: Region = "us-east-1"
    """Region that requests are signed for. Stores other than AWS mostly take any."""
    bucket: BucketName
    """Name of the bucket."""
    prefix: Prefix | None = None
    """Where in the bucket backups go; below it each server has a folder of its own. Absent: its root."""
    bucket_creation: BucketCreation = BucketCreation.IF_MISSING
    """IfMissing: a bucket that does not exist is made, where `credentialsSecretRef` is given. Never: it is not."""
    addressing_style: AddressingStyle = AddressingStyle.AUTO
    """Path: the bucket stands in the path of a URL. Virtual: in its host name. Auto: boto3 decides."""
    credentials_secret_ref: S3CredentialsRef | None = None
    """A Secret with an access key that may list, read, write and delete there. Absent: the identity of
    `podTemplate.spec.serviceAccountName`.
    """
    tls: S3TLS | None = None
    """Trust in the certificate of the store. Absent: the public CAs."""


class Backup(Model):
    """Backups of the database; `{}` makes one each night. Files are not in them: see to versions or a copy of the
    bucket.
    """

    schedule: Schedule = "0 2 * * *"
    """When a backup is made, as cron has it: minute, hour, day of the month, month, day of the week."""
    time_zone: TimeZone = "Etc/UTC"
    """Time zone of the schedule."""
    image: ImageReference | None = None
    """Image with `pg_dump`, of at least the major version of the database. Absent: that of the embedded database, else
    the Postgres that the operator is tested with.
    """
    retention: Retention = Retention()
    """Which backups are kept."""
    s3: BackupStore | None = None
    """Where backups go. Absent: into the artifact store, which may well be lost together with the database."""
