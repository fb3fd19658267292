"""boto3 with trimmed data sends the same requests to S3 as with all of its data, and uses less memory."""

import gc
import tracemalloc
from typing import TYPE_CHECKING, Any

import boto3
import pytest

from mlflow_operator.clients.s3 import boto_session

if TYPE_CHECKING:
    from mypy_boto3_s3 import S3Client


@pytest.mark.parametrize(
    ("region", "endpoint"),
    [
        ("us-east-1", None),
        ("eu-central-1", None),
        ("cn-north-1", None),
        ("us-gov-west-1", None),
        ("us-east-1", "http://minio.team.svc:9000"),
    ],
)
def test_bucket_url_equals_that_of_plain_boto3(region: str, endpoint: str | None) -> None:
    """Each AWS partition has its own domains, and the bucket is part of the host name or of the path."""
    urls = []
    for session in (boto3.Session(), boto_session.session()):
        client = _client(session, region_name=region, endpoint_url=endpoint)
        urls.append(client.generate_presigned_url("head_bucket", {"Bucket": "models"}).partition("?")[0])
    assert urls[0] == urls[1]


def test_client_supports_used_operations_with_little_memory() -> None:
    """The operator keeps one client per store, so their memory adds up."""
    tracemalloc.start()
    try:
        session = boto_session.session()
        clients = [_client(session)]
        gc.collect()
        first, _ = tracemalloc.get_traced_memory()
        clients += [_client(session) for _ in range(5)]
        gc.collect()
        further = tracemalloc.get_traced_memory()[0] - first
    finally:
        tracemalloc.stop()
    assert {"head_bucket", "create_bucket"} <= set(dir(clients[0]))
    assert first < 6 * 2**20
    assert further / 5 < 0.2 * 2**20


def _client(session: boto3.Session, **changes: Any) -> "S3Client":
    options = {"region_name": "us-east-1", "aws_access_key_id": "a", "aws_secret_access_key": "b"}
    return session.client("s3", **options | changes)
