"""boto3 session with only the parts of botocore's data that the operator needs.

botocore loads the description of S3 and the endpoints of all services in all regions, and keeps them in memory: 13 MiB
with the first client, and 0.35 MiB more with each further client, which gets a method for every operation. Most of that
is documentation and endpoints of other services. Without them it is 5 MiB, and 0.2 MiB per client.
"""

import gzip
import json
from pathlib import Path
from typing import Any

import boto3
import botocore.session
from botocore.loaders import JSONFileLoader, Loader

_USED_OPERATIONS = {
    "AbortMultipartUpload",
    "CreateBucket",
    "CreateMultipartUpload",
    "CreateSession",  # boto3 itself uses it to authenticate to directory buckets.
    "DeleteBucketLifecycle",
    "DeleteObjects",
    "GetBucketEncryption",
    "GetBucketLifecycleConfiguration",
    "GetBucketVersioning",
    "GetObject",
    "HeadBucket",  # boto3 itself uses it to find a bucket's region.
    "HeadObject",
    "ListObjectVersions",
    "ListObjectsV2",
    "PutBucketEncryption",
    "PutBucketLifecycleConfiguration",
    "PutBucketVersioning",
    "PutObject",
    "UploadPart",
}


def session() -> boto3.Session:
    """Return a boto3 session whose S3 clients support only the operations that the operator uses."""
    botocore_session = botocore.session.get_session()
    botocore_session.register_component("data_loader", Loader(file_loader=_TrimmedFileLoader()))
    return boto3.Session(botocore_session=botocore_session)


class _TrimmedFileLoader(JSONFileLoader):
    """Loader of botocore's data files. It gets their paths without the file extension."""

    def load_file(self, file_path: str) -> Any:
        plain, compressed = Path(f"{file_path}.json"), Path(f"{file_path}.json.gz")
        if plain.is_file():
            return json.loads(plain.read_bytes(), object_pairs_hook=_trim_object)
        if compressed.is_file():
            return json.loads(gzip.decompress(compressed.read_bytes()), object_pairs_hook=_trim_object)
        return None


def _trim_object(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    return {name: _trim_value(name, value) for name, value in pairs}


def _trim_value(name: str, value: Any) -> Any:
    match name, value:
        case "documentation", str():
            return ""  # botocore requires the key for some objects.
        case "services", {"s3": endpoints}:
            return {"s3": endpoints}
        case "operations", {"HeadBucket": _}:
            return {operation: value[operation] for operation in value if operation in _USED_OPERATIONS}
    return value
