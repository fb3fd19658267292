"""Settings of a bucket: `versioning`, `lifecycle` and `encryption` of `spec.artifacts.s3`."""

from enum import StrEnum
from typing import Annotated

from pydantic import Field

from mlflow_operator.api.markers import Int32
from mlflow_operator.api.model import Model
from mlflow_operator.api.rules import Rule, matches

Days = Annotated[Int32, Field(ge=1, le=36500)]


class Versioning(StrEnum):
    """Whether the bucket keeps old versions of overwritten and deleted objects."""

    UNMANAGED = "Unmanaged"
    ENABLED = "Enabled"


class Lifecycle(Model):
    """Lifecycle rule for the prefix. The operator does not change other lifecycle rules of the bucket."""

    noncurrent_version_expiration_days: Annotated[Days | None, Field(examples=[30])] = None
    """Days after which versions of overwritten and deleted objects expire. If not set, they are kept."""
    abort_incomplete_multipart_upload_days: Annotated[Days | None, Field(examples=[7])] = None
    """Days after which incomplete multipart uploads are aborted. If not set, they are kept. MinIO does not support this
    rule; it aborts incomplete uploads after one day.
    """


class EncryptionType(StrEnum):
    """Whether the store or its key management service (KMS) provides the encryption key."""

    SSE_S3 = "SSES3"
    SSE_KMS = "SSEKMS"


KmsKeyID = Annotated[
    str,
    Field(max_length=2048),
    matches(
        r"[A-Za-z0-9][A-Za-z0-9_:/.-]*",
        "is not a valid KMS key ID: use the ID or the ARN that the key management service shows",
    ),
]


class Encryption(Model):
    """Server-side encryption of objects that are written from now on."""

    type: EncryptionType
    """Type of server-side encryption. SSES3: with a key that the store manages. SSEKMS: with the key `kmsKeyID` of the
    store's key management service.
    """
    kms_key_id: Annotated[KmsKeyID | None, Field(alias="kmsKeyID"), Field(examples=["tracking-key"])] = None
    """ID of the key in the key management service. Required by type SSEKMS."""

    rules = (
        Rule(
            "(self.type == 'SSEKMS') == has(self.kmsKeyID)",
            "encryption.kmsKeyID is required by type SSEKMS and not allowed with type SSES3: set "
            "kmsKeyID for SSEKMS, or remove it and use type SSES3",
            field=".type",
            holds=lambda encryption: (
                (encryption.type is EncryptionType.SSE_KMS) == (encryption.kms_key_id is not None)
            ),
        ),
    )
