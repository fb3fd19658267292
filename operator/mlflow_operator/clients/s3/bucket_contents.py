"""Objects under a key prefix: access check, ownership marker and deletion."""

import contextlib
import json
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from botocore.exceptions import ClientError
from botocore.validate import ParamValidator

from mlflow_operator.model.mlflow_env import UPLOAD_ARGUMENTS_ENV
from mlflow_operator.status.conditions import Reason
from mlflow_operator.status.errors import ConfigurationError, TransientError

if TYPE_CHECKING:
    from mypy_boto3_s3 import S3Client

_PROBE_KEY, _PROBE_BODY = ".mlflow-operator-probe", b"probe"
_MARKER_KEY = "zzz-made-by-mlflow-operator"
"""Key of the object that identifies the owner of the prefix. Deletion follows the order of keys, and the marker, which
permits the deletion, must be deleted last."""
_MAX_MARKER_BYTES = 1024
_UPLOAD_PARAMETERS = {"Bucket", "Key", "UploadId", "PartNumber", "Body", "ContentLength"}
_TYPE_NAMES = {
    "string": "a text of printable characters",
    "map": "an object whose values are texts of ASCII characters",
    "boolean": "true or false",
    "integer": "a number",
    "timestamp": "a time",
}
PAGE_SIZE = 250
"""Number of versions per DeleteObjects request: a quarter of S3's maximum, so that a slow store answers in time, and a
page with the longest keys is smaller than the limit for responses."""

_NO_VERSION = "null"
"""Version of an object that was written while the bucket had no versioning."""

_VERSIONS_UNSUPPORTED_CODES = {"NotImplemented", "MethodNotAllowed", "501", "405"}


def check_access(
    client: "S3Client",
    bucket: str,
    key_prefix: str,
    upload_arguments: str,
    set_action: Callable[[str], None],
) -> None:
    """Check that the key may write and read under `key_prefix`, without leaving objects there.

    A multipart upload that is aborted needs the same permission and the same headers as PutObject, and creates no
    object: no version, no delete marker, nothing that an object lock would retain. Its part has a body, because some
    stores reject only that: its encoding, or its checksum. `set_action` receives the permission that is checked next.
    """
    key = f"{key_prefix}{_PROBE_KEY}"
    set_action("s3:PutObject")
    arguments = _supported(client, "CreateMultipartUpload", upload_arguments)
    part_arguments = _supported(client, "UploadPart", upload_arguments)
    upload: Any = {"Bucket": bucket, "Key": key}
    upload["UploadId"] = client.create_multipart_upload(**upload, **arguments)["UploadId"]
    try:
        client.upload_part(**upload, PartNumber=1, Body=_PROBE_BODY, **part_arguments)
    except Exception:
        with contextlib.suppress(Exception):
            client.abort_multipart_upload(**upload)
        raise
    set_action("s3:AbortMultipartUpload")
    client.abort_multipart_upload(**upload)
    set_action("s3:GetObject")
    try:
        client.head_object(Bucket=bucket, Key=key)
    except ClientError as error:
        if error.response["ResponseMetadata"]["HTTPStatusCode"] != 404:
            raise


def _supported(client: "S3Client", operation: str, upload_arguments: str) -> Any:
    """The upload arguments that an operation supports, as MLflow and the backups select them.

    Raises ConfigurationError for an argument that boto3 does not accept: some cause other exceptions than its own.
    """
    shape: Any = client.meta.service_model.operation_model(operation).input_shape
    arguments = {
        name: value for name, value in json.loads(upload_arguments or "{}").items() if name in shape.members
    }
    for name, value in arguments.items():
        if name in _UPLOAD_PARAMETERS:
            raise _invalid_argument(name, ", which MLflow itself sets for each upload", "Remove it.")
        if not _is_valid(value, shape.members[name]):
            type_name = _TYPE_NAMES.get(shape.members[name].type_name, shape.members[name].type_name)
            raise _invalid_argument(name, f" to a value that is not {type_name}", "Correct it.")
    return arguments


def _invalid_argument(name: str, fault: str, advice: str) -> ConfigurationError:
    # Without the value: an argument can be an encryption key.
    return ConfigurationError(
        Reason.INVALID_RESOURCE,
        f"{UPLOAD_ARGUMENTS_ENV} in spec.env sets {name}{fault}, so all uploads of MLflow fail. {advice}",
    )


def _is_valid(value: Any, shape: Any) -> bool:
    """Whether boto3 can send `value`. Texts become headers, which have no line breaks; those of metadata are ASCII."""
    try:
        if ParamValidator().validate(value, shape).has_errors():
            return False
    except (RuntimeError, ArithmeticError):  # A number that is no time.
        return False
    if isinstance(value, dict):
        return all(text.isascii() and text.isprintable() for item in value.items() for text in item)
    return not isinstance(value, str) or value.isprintable()


def write_marker(
    client: "S3Client", bucket: str, key_prefix: str, upload_arguments: str, marker: str
) -> None:
    """Write the ownership marker, unless an object exists under `key_prefix`."""
    if not client.list_objects_v2(Bucket=bucket, Prefix=key_prefix, MaxKeys=1).get("Contents"):
        arguments = _supported(client, "PutObject", upload_arguments)
        client.put_object(Bucket=bucket, Key=f"{key_prefix}{_MARKER_KEY}", Body=marker.encode(), **arguments)


def read_marker(client: "S3Client", bucket: str, key_prefix: str) -> str | None:
    """Return the ownership marker, None if there is no marker or no bucket."""
    try:
        return (
            client.get_object(Bucket=bucket, Key=f"{key_prefix}{_MARKER_KEY}")["Body"]
            .read(_MAX_MARKER_BYTES)
            .decode()
        )
    except ClientError as error:
        if error.response["ResponseMetadata"]["HTTPStatusCode"] != 404:
            raise
        return None


def has_objects(client: "S3Client", bucket: str, key_prefix: str) -> bool:
    """Return whether an object exists under `key_prefix`. False if the bucket does not exist."""
    try:
        objects = client.list_objects_v2(Bucket=bucket, Prefix=key_prefix, MaxKeys=1)
    except ClientError as error:
        if error.response["ResponseMetadata"]["HTTPStatusCode"] != 404:
            raise
        return False
    return bool(objects.get("Contents"))


def delete_page(
    client: "S3Client", bucket: str, key_prefix: str, previous_first: str, page_size: int = PAGE_SIZE
) -> str | None:
    """Delete the first page of objects under `key_prefix`, including their versions. Return None if there were none.

    Otherwise return the first key of the page. The caller passes it as `previous_first` to the next call, which thus
    detects a store that confirms deletions without deleting.
    """
    page = _list_page(client, bucket, key_prefix, page_size)
    if not page:
        return None
    if len(page) > page_size or not all(entry["Key"].startswith(key_prefix) for entry in page):
        raise TransientError(
            Reason.BUCKET_ACCESS_DENIED,
            f'The store lists objects that are not under "{key_prefix}" in the bucket "{bucket}", or more than '
            "requested. The operator deletes none of them. Check that spec.artifacts.s3.endpoint is the address of the "
            "store.",
        )
    first = f"{page[0]['Key']} {page[0].get('VersionId', '')}"
    if first == previous_first:
        raise TransientError(
            Reason.BUCKET_ACCESS_DENIED,
            f'The store does not delete objects under "{key_prefix}" in the bucket "{bucket}": an object lock or a '
            "retention period may protect them. Remove it, or delete the objects yourself.",
        )
    response: Any = client.delete_objects(Bucket=bucket, Delete={"Objects": page, "Quiet": True})
    errors = response.get("Errors")
    if errors:
        error_response: Any = {"Error": errors[0], "ResponseMetadata": {"HTTPStatusCode": 403}}
        raise ClientError(error_response, "DeleteObjects")
    return first


def _list_page(client: "S3Client", bucket: str, key_prefix: str, page_size: int) -> list[Any]:
    try:
        versions: Any = client.list_object_versions(Bucket=bucket, Prefix=key_prefix, MaxKeys=page_size)
    except ClientError as error:
        if str(error.response.get("Error", {}).get("Code")) not in _VERSIONS_UNSUPPORTED_CODES:
            raise
        objects: Any = client.list_objects_v2(Bucket=bucket, Prefix=key_prefix, MaxKeys=page_size)
        return [{"Key": entry.get("Key", "")} for entry in objects.get("Contents") or ()]
    entries = [*(versions.get("Versions") or ()), *(versions.get("DeleteMarkers") or ())]
    return [
        {"Key": entry.get("Key", ""), "VersionId": entry.get("VersionId", _NO_VERSION)} for entry in entries
    ]
