"""boto3 with a tenth of its data asks S3 as it does with all of it."""

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
def test_a_bucket_is_asked_for_at_the_same_address(region: str, endpoint: str | None) -> None:
    """Every part of AWS has domains of its own, and a bucket is part of the host or of the path."""
    asked = []
    for session in (boto3.Session(), boto_session.session()):
        client = _client(session, region_name=region, endpoint_url=endpoint)
        asked.append(client.generate_presigned_url("head_bucket", {"Bucket": "models"}).partition("?")[0])
    assert asked[0] == asked[1]


def test_a_client_does_what_is_needed_and_keeps_no_more() -> None:
    """The operator holds one for each store: what each keeps adds up in its memory."""
    tracemalloc.start()
    try:
        session = boto_session.session()
        kept = [_client(session)]
        gc.collect()
        first, _ = tracemalloc.get_traced_memory()
        kept += [_client(session) for _ in range(5)]
        gc.collect()
        more = tracemalloc.get_traced_memory()[0] - first
    finally:
        tracemalloc.stop()
    assert {"head_bucket", "create_bucket"} <= set(dir(kept[0]))
    assert first < 6 * 2**20
    assert more / 5 < 0.2 * 2**20


def _client(session: boto3.Session, **more: Any) -> "S3Client":
    options = {"region_name": "us-east-1", "aws_access_key_id": "a", "aws_secret_access_key": "b"}
    return session.client("s3", **options | more)
