"""What lies under a prefix: tried once whether it can be read and written, and deleted as a whole."""

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from botocore.exceptions import ClientError

from mlflow_operator.status.conditions import Reason
from mlflow_operator.status.errors import TransientError

if TYPE_CHECKING:
    from mypy_boto3_s3 import S3Client

_PROBE = ".mlflow-operator-probe"
_MARKER = "zzz-made-by-mlflow-operator"
"""Key of a word of whose folder it is. Deletion goes in the order of keys: what says that all may go must go last."""
_LONGEST = 1024
_PAGE = 500
"""Versions deleted at a time: half of what S3 takes, so that a slow store gets it done within a call's time."""

_NO_VERSIONS = {"NotImplemented", "MethodNotAllowed", "501", "405"}


def check_access(client: "S3Client", bucket: str, folder: str, about: Callable[[str], None]) -> None:
    """Tries to write and to read under `folder`, and leaves nothing there.

    An upload that is begun and taken back needs the same leave as an object that is written, and makes none: no
    version, no delete marker, nothing that a lock would keep. `about` is told the action that is tried next.
    """
    key = f"{folder}{_PROBE}"
    about("s3:PutObject")
    upload = client.create_multipart_upload(Bucket=bucket, Key=key)["UploadId"]
    about("s3:AbortMultipartUpload")
    client.abort_multipart_upload(Bucket=bucket, Key=key, UploadId=upload)
    about("s3:GetObject")
    try:
        client.head_object(Bucket=bucket, Key=key)
    except ClientError as error:
        if error.response["ResponseMetadata"]["HTTPStatusCode"] != 404:
            raise


def write_marker(client: "S3Client", bucket: str, folder: str, marker: str) -> None:
    """Leaves a word of whose `folder` is, where nothing else lies under it."""
    if not client.list_objects_v2(Bucket=bucket, Prefix=folder, MaxKeys=1).get("Contents"):
        client.put_object(Bucket=bucket, Key=f"{folder}{_MARKER}", Body=marker.encode())


def has_marker(client: "S3Client", bucket: str, folder: str) -> str | None:
    """The word that `claim` left; None where there is none, or no bucket."""
    try:
        return client.get_object(Bucket=bucket, Key=f"{folder}{_MARKER}")["Body"].read(_LONGEST).decode()
    except ClientError as error:
        if error.response["ResponseMetadata"]["HTTPStatusCode"] != 404:
            raise
        return None


def has_objects(client: "S3Client", bucket: str, folder: str) -> bool:
    """Whether anything lies under `folder`; not in a bucket that is not there."""
    try:
        found = client.list_objects_v2(Bucket=bucket, Prefix=folder, MaxKeys=1)
    except ClientError as error:
        if error.response["ResponseMetadata"]["HTTPStatusCode"] != 404:
            raise
        return False
    return bool(found.get("Contents"))


def delete_page(client: "S3Client", bucket: str, folder: str, before: str) -> str | None:
    """Deletes the first page of what lies under `folder`, with its versions; None when there was nothing any more.

    Otherwise the first key of the page, to be given as `before` the next time, so that a store that only says it
    deletes is noticed.
    """
    found = _page(client, bucket, folder)
    if not found:
        return None
    first = f"{found[0]['Key']} {found[0].get('VersionId', '')}"
    if first == before:
        raise TransientError(
            Reason.BUCKET_ACCESS_DENIED,
            f'The store keeps what it is told to delete under "{folder}" in the bucket "{bucket}": a lock or a '
            "retention may hold it. Take that away, or delete the objects yourself.",
        )
    answer: Any = client.delete_objects(Bucket=bucket, Delete={"Objects": found, "Quiet": True})
    refused = answer.get("Errors")
    if refused:
        raise ClientError({"Error": refused[0], "ResponseMetadata": {"HTTPStatusCode": 403}}, "DeleteObjects")  # type: ignore[typeddict-item]
    return first


def _page(client: "S3Client", bucket: str, folder: str) -> list[Any]:
    try:
        versions: Any = client.list_object_versions(Bucket=bucket, Prefix=folder, MaxKeys=_PAGE)
    except ClientError as error:
        if str(error.response.get("Error", {}).get("Code")) not in _NO_VERSIONS:
            raise
        objects: Any = client.list_objects_v2(Bucket=bucket, Prefix=folder, MaxKeys=_PAGE)
        return [{"Key": each["Key"]} for each in objects.get("Contents") or ()]
    found = [*(versions.get("Versions") or ()), *(versions.get("DeleteMarkers") or ())]
    return [{"Key": each["Key"], "VersionId": each["VersionId"]} for each in found]
