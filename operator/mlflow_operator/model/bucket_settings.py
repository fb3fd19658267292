"""Resolve `versioning`, `lifecycle` and `encryption` of a bucket."""

from mlflow_operator.api.artifacts import S3Bucket
from mlflow_operator.api.bucket_settings import Encryption, EncryptionType, Versioning
from mlflow_operator.model.server import BucketSettings

_ENCRYPTION = {EncryptionType.SSE_S3: "AES256", EncryptionType.SSE_KMS: "aws:kms"}


def resolve(spec: S3Bucket) -> BucketSettings:
    """Return the settings that the operator manages."""
    lifecycle, encryption = spec.lifecycle, spec.encryption
    return BucketSettings(
        versioned=spec.versioning is Versioning.ENABLED,
        lifecycle=lifecycle is not None,
        noncurrent_days=lifecycle.noncurrent_version_expiration_days if lifecycle else None,
        abort_multipart_days=lifecycle.abort_incomplete_multipart_upload_days if lifecycle else None,
        encryption=_ENCRYPTION[encryption.type] if encryption else None,
        kms_key=encryption.kms_key_id if encryption else None,
    )


def upload_encryption(encryption: Encryption | None) -> dict[str, str]:
    """Return the arguments of boto3 that encrypt an upload."""
    if encryption is None:
        return {}
    key = {"SSEKMSKeyId": encryption.kms_key_id} if encryption.kms_key_id else {}
    return {"ServerSideEncryption": _ENCRYPTION[encryption.type], **key}
