"""What a bucket does by itself: `versioning`, `lifecycle` and `encryption` of `spec.artifacts.s3`."""

from enum import StrEnum
from typing import Annotated

from pydantic import Field

from mlflow_operator.api.markers import Int32
from mlflow_operator.api.model import Model
from mlflow_operator.api.rules import Rule, matches

Days = Annotated[Int32, Field(ge=1, le=36500)]


class Versioning(StrEnum):
    """Whether the bucket keeps what is overwritten or deleted."""

    UNMANAGED = "Unmanaged"
    ENABLED = "Enabled"


class Lifecycle(Model):
    """What the store clears away under the prefix. The bucket's other rules stay as they are."""

    noncurrent_version_expiration_days: Days | None = None
    """Days after which versions go that were overwritten or deleted. Absent: they are kept."""
    abort_incomplete_multipart_upload_days: Days | None = None
    """Days after which parts of uploads go that were never completed. Absent: they are kept. MinIO takes them away by
    itself, after a day, and knows no such rule.
    """


class EncryptionType(StrEnum):
    """Whose key encrypts objects: the store's, or one of its key management."""

    SSE_S3 = "SSES3"
    SSE_KMS = "SSEKMS"


KmsKeyID = Annotated[
    str,
    Field(max_length=2048),
    matches(r"[A-Za-z0-9][A-Za-z0-9_:/.-]*", "is no id of a key: write it as the key management does"),
]


class Encryption(Model):
    """How the bucket encrypts what is written from now on."""

    type: EncryptionType
    """SSES3: with a key of the store's. SSEKMS: with a key of its key management, by `kmsKeyID`."""
    kms_key_id: Annotated[KmsKeyID | None, Field(alias="kmsKeyID")] = None
    """The key of the key management. Needed by SSEKMS."""

    rules = (
        Rule(
            "(self.type == 'SSEKMS') == has(self.kmsKeyID)",
            "spec.artifacts.s3.encryption takes kmsKeyID with type SSEKMS, and only with it: add the key's id, or use "
            "type SSES3 without",
            field=".type",
            holds=lambda it: (it.type is EncryptionType.SSE_KMS) == (it.kms_key_id is not None),
        ),
    )
