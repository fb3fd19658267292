"""Versioning, encryption and lifecycle of a bucket: read first, and written only where they differ."""

import re
from typing import TYPE_CHECKING, Any

from botocore.exceptions import ClientError

from mlflow_operator.clients.s3 import lifecycle as bucket_rules
from mlflow_operator.kube.objects import Object
from mlflow_operator.model.server import BucketSettings
from mlflow_operator.status.conditions import Reason
from mlflow_operator.status.errors import ConfigurationError

if TYPE_CHECKING:
    from mypy_boto3_s3 import S3Client

UNKNOWN = "MlflowOperatorUnknown"
_NONE_YET = {"NoSuchLifecycleConfiguration", "ServerSideEncryptionConfigurationNotFoundError"}
_KNOWN = frozenset(
    """
    LifecycleConfiguration Rule ID Status Filter Prefix And Tag Key Value ObjectSizeGreaterThan ObjectSizeLessThan
    Expiration Date Days ExpiredObjectDeleteMarker Transition StorageClass NoncurrentVersionTransition NoncurrentDays
    NewerNoncurrentVersions NoncurrentVersionExpiration AbortIncompleteMultipartUpload DaysAfterInitiation
    """.split()  # noqa: SIM905
)
"""All that boto3 reads of a lifecycle."""


def watch(client: "S3Client") -> None:
    """Has `client` note what of a lifecycle it can't read, and so would lose in writing it back."""
    client.meta.events.register("before-parse.s3.GetBucketLifecycleConfiguration", _note_unknown)


def versioning(client: "S3Client", bucket: str) -> None:
    """Sees to it that the bucket keeps versions."""
    if client.get_bucket_versioning(Bucket=bucket).get("Status") != "Enabled":
        client.put_bucket_versioning(Bucket=bucket, VersioningConfiguration={"Status": "Enabled"})


def encryption(client: "S3Client", bucket: str, wanted: BucketSettings) -> None:
    """Sees to it that the bucket encrypts as `wanted`.

    Raises UserMistake where it does by another key: several servers may share the bucket, and none shall undo what
    another asks for, or weaken it.
    """
    default: Any = {"SSEAlgorithm": wanted.encryption}
    if wanted.kms_key:
        default["KMSMasterKeyID"] = wanted.kms_key
    live: Any = _or_none(lambda: client.get_bucket_encryption(Bucket=bucket)) or {}
    rules = live.get("ServerSideEncryptionConfiguration", {}).get("Rules") or [{}]
    before = rules[0].get("ApplyServerSideEncryptionByDefault") or {}
    if before == default:
        return
    if str(before.get("SSEAlgorithm", "")).startswith("aws:kms"):
        raise ConfigurationError(
            Reason.BUCKET_SETTINGS_REFUSED,
            f'The bucket "{bucket}" is encrypted with another key of the key management than '
            "spec.artifacts.s3.encryption names, and is left so, for others may count on it. Change the bucket, or "
            "write its key into spec.artifacts.s3.encryption.kmsKeyID.",
        )
    client.put_bucket_encryption(
        Bucket=bucket,
        ServerSideEncryptionConfiguration={"Rules": [{"ApplyServerSideEncryptionByDefault": default}]},
    )


def lifecycle(client: "S3Client", bucket: str, name: str, wanted: Object | None) -> None:
    """Sees to it that the bucket's rule called `name` is `wanted`; None: that there is none. Others stay as they are.

    MinIO gets no rule about unfinished uploads: it takes them away by itself, drops such a rule, or refuses it.
    """
    live: Any = _or_none(lambda: client.get_bucket_lifecycle_configuration(Bucket=bucket)) or {}
    if _is_minio(live or client.get_bucket_versioning(Bucket=bucket)):
        wanted = _without_uploads(wanted)
    rules = bucket_rules.merged(live.get("Rules") or (), name, wanted)
    if rules is None:
        return
    if live.get(UNKNOWN):
        raise ConfigurationError(
            Reason.BUCKET_SETTINGS_REFUSED,
            f'The bucket "{bucket}" has lifecycle rules of somebody else\'s with parts that only its store knows '
            f"({', '.join(live[UNKNOWN])}), which would be lost in adding one. Add the rule for the prefix yourself, "
            "and take spec.artifacts.s3.lifecycle away.",
        )
    if rules:
        client.put_bucket_lifecycle_configuration(
            Bucket=bucket,
            LifecycleConfiguration={"Rules": rules},  # type: ignore[typeddict-item]
        )
    else:
        client.delete_bucket_lifecycle(Bucket=bucket)


def _without_uploads(rule: Object | None) -> Object | None:
    rest = {key: value for key, value in (rule or {}).items() if key != "AbortIncompleteMultipartUpload"}
    return rest if "NoncurrentVersionExpiration" in rest else None


def _is_minio(answer: Any) -> bool:
    return str(answer["ResponseMetadata"]["HTTPHeaders"].get("server", "")).startswith("MinIO")


def _or_none(read: Any) -> Any:
    try:
        return read()
    except ClientError as error:
        if error.response.get("Error", {}).get("Code") in _NONE_YET:
            return None
        raise


def _note_unknown(response_dict: Any, customized_response_dict: Any, **_: Any) -> None:
    tags = set(re.findall(rb"<([A-Za-z]+)", response_dict.get("body") or b""))
    unknown = sorted(tag.decode() for tag in tags if tag.decode() not in _KNOWN)
    if unknown and response_dict.get("status_code", 500) < 300:
        customized_response_dict[UNKNOWN] = unknown
