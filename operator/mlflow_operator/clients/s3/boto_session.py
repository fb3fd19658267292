"""What boto3 knows of AWS, cut down to what is asked of S3 here.

botocore reads the description of S3 and the endpoints of all services in all regions, and keeps them for good: 13 MiB
with the first client, and 0.35 MiB more with each other one, which gets a method for every operation. Most of that is
documentation and other services' endpoints. Without them it is 5 MiB, and 0.2 MiB a client.
"""

import gzip
import json
from pathlib import Path
from typing import Any

import boto3
import botocore.session
from botocore.loaders import JSONFileLoader, Loader

_OPERATIONS = {
    "AbortMultipartUpload",
    "CreateBucket",
    "CreateMultipartUpload",
    "CreateSession",  # how boto3 itself signs in to directory buckets
    "DeleteBucketLifecycle",
    "DeleteObjects",
    "GetBucketEncryption",
    "GetBucketLifecycleConfiguration",
    "GetBucketVersioning",
    "GetObject",
    "HeadBucket",  # how boto3 itself finds a bucket's region
    "HeadObject",
    "ListObjectVersions",
    "ListObjectsV2",
    "PutBucketEncryption",
    "PutBucketLifecycleConfiguration",
    "PutBucketVersioning",
    "PutObject",
}


def session() -> boto3.Session:
    """A boto3 session whose S3 clients can do what is asked of them here, and nothing else."""
    core = botocore.session.get_session()
    core.register_component("data_loader", Loader(file_loader=_Files()))
    return boto3.Session(botocore_session=core)


class _Files(JSONFileLoader):
    """Reads botocore's data files, each by its path without the ending."""

    def load_file(self, file_path: str) -> Any:
        plain, packed = Path(f"{file_path}.json"), Path(f"{file_path}.json.gz")
        if plain.is_file():
            return json.loads(plain.read_bytes(), object_pairs_hook=_needed)
        if packed.is_file():
            return json.loads(gzip.decompress(packed.read_bytes()), object_pairs_hook=_needed)
        return None


def _needed(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    return {name: _cut(name, value) for name, value in pairs}


def _cut(name: str, value: Any) -> Any:
    match name, value:
        case "documentation", str():
            return ""  # of some things botocore insists to have one
        case "services", {"s3": endpoints}:
            return {"s3": endpoints}
        case "operations", {"HeadBucket": _}:
            return {operation: value[operation] for operation in value if operation in _OPERATIONS}
    return value
