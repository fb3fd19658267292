"""Versioning, encryption and lifecycle of a bucket. The settings are read first and written only if they differ."""

import re
from typing import TYPE_CHECKING, Any, cast

from botocore.exceptions import ClientError

from mlflow_operator.clients.s3 import lifecycle as lifecycle_rules
from mlflow_operator.kube.objects import Object
from mlflow_operator.model.server import BucketSettings
from mlflow_operator.status.conditions import Reason
from mlflow_operator.status.errors import ConfigurationError

if TYPE_CHECKING:
    from mypy_boto3_s3 import S3Client

UNKNOWN_ELEMENTS = "MlflowOperatorUnknown"
_NOT_CONFIGURED_CODES = {"NoSuchLifecycleConfiguration", "ServerSideEncryptionConfigurationNotFoundError"}
_KNOWN_ELEMENTS = frozenset(
    """
    LifecycleConfiguration Rule ID Status Filter Prefix And Tag Key Value ObjectSizeGreaterThan ObjectSizeLessThan
    Expiration Date Days ExpiredObjectDeleteMarker Transition StorageClass NoncurrentVersionTransition NoncurrentDays
    NewerNoncurrentVersions NoncurrentVersionExpiration AbortIncompleteMultipartUpload DaysAfterInitiation
    """.split()  # noqa: SIM905
)
"""XML elements of a lifecycle configuration that boto3 parses."""


def record_unknown_elements(client: "S3Client") -> None:
    """Make `client` report lifecycle elements that boto3 does not parse: writing the rules back would delete them."""
    client.meta.events.register("before-parse.s3.GetBucketLifecycleConfiguration", _add_unknown_elements)


def ensure_versioning(client: "S3Client", bucket: str) -> None:
    """Enable versioning of the bucket."""
    if client.get_bucket_versioning(Bucket=bucket).get("Status") != "Enabled":
        client.put_bucket_versioning(Bucket=bucket, VersioningConfiguration={"Status": "Enabled"})


def ensure_encryption(client: "S3Client", bucket: str, desired: BucketSettings) -> None:
    """Set the default encryption of the bucket.

    Raises ConfigurationError if the bucket is encrypted with another KMS key: several servers may share the bucket, and
    none may revert or weaken what another one configures.
    """
    desired_default: Any = {"SSEAlgorithm": desired.encryption}
    if desired.kms_key:
        desired_default["KMSMasterKeyID"] = desired.kms_key
    observed: Any = _none_if_not_configured(lambda: client.get_bucket_encryption(Bucket=bucket)) or {}
    rules = observed.get("ServerSideEncryptionConfiguration", {}).get("Rules") or [{}]
    current_default = rules[0].get("ApplyServerSideEncryptionByDefault") or {}
    if current_default == desired_default:
        return
    if str(current_default.get("SSEAlgorithm", "")).startswith("aws:kms"):
        raise ConfigurationError(
            Reason.BUCKET_SETTINGS_REFUSED,
            f'The bucket "{bucket}" is encrypted with another KMS key than the one in spec.artifacts.s3.encryption. '
            "The operator does not change it, because other clients may depend on it. Change the bucket, or set "
            "spec.artifacts.s3.encryption.kmsKeyID to its key.",
        )
    client.put_bucket_encryption(
        Bucket=bucket,
        ServerSideEncryptionConfiguration={
            "Rules": [{"ApplyServerSideEncryptionByDefault": desired_default}]
        },
    )


def ensure_lifecycle_rule(client: "S3Client", bucket: str, rule_id: str, desired: Object | None) -> None:
    """Set the lifecycle rule `rule_id` of the bucket, or delete it if `desired` is None. Other rules do not change.

    On MinIO the rule does not cover incomplete uploads: MinIO deletes them itself, and drops or rejects such a rule.
    """
    observed: Any = (
        _none_if_not_configured(lambda: client.get_bucket_lifecycle_configuration(Bucket=bucket)) or {}
    )
    if _is_minio(observed or client.get_bucket_versioning(Bucket=bucket)):
        desired = _without_upload_expiry(desired)
    rules = lifecycle_rules.merge(observed.get("Rules") or (), rule_id, desired)
    if rules is None:
        return
    if observed.get(UNKNOWN_ELEMENTS):
        raise ConfigurationError(
            Reason.BUCKET_SETTINGS_REFUSED,
            f'The bucket "{bucket}" has other lifecycle rules with elements that only its store supports '
            f"({', '.join(observed[UNKNOWN_ELEMENTS])}). Adding a rule would delete these elements. Add the rule for "
            "the prefix yourself, and remove spec.artifacts.s3.lifecycle.",
        )
    if rules:
        client.put_bucket_lifecycle_configuration(
            Bucket=bucket,
            LifecycleConfiguration={"Rules": cast("Any", rules)},
        )
    else:
        client.delete_bucket_lifecycle(Bucket=bucket)


def _without_upload_expiry(rule: Object | None) -> Object | None:
    remaining = {key: value for key, value in (rule or {}).items() if key != "AbortIncompleteMultipartUpload"}
    return remaining if "NoncurrentVersionExpiration" in remaining else None


def _is_minio(response: Any) -> bool:
    return str(response["ResponseMetadata"]["HTTPHeaders"].get("server", "")).startswith("MinIO")


def _none_if_not_configured(read: Any) -> Any:
    try:
        return read()
    except ClientError as error:
        if error.response.get("Error", {}).get("Code") in _NOT_CONFIGURED_CODES:
            return None
        raise


def _add_unknown_elements(response_dict: Any, customized_response_dict: Any, **_: Any) -> None:
    elements = set(re.findall(rb"<([A-Za-z]+)", response_dict.get("body") or b""))
    unknown = sorted(element.decode() for element in elements if element.decode() not in _KNOWN_ELEMENTS)
    if unknown and response_dict.get("status_code", 500) < 300:
        customized_response_dict[UNKNOWN_ELEMENTS] = unknown
