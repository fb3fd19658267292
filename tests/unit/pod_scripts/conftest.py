"""Fixtures for the tests of the scripts in MLflow's image."""

from collections.abc import Iterator

import pytest

from tests.unit.pod_scripts.minimal_s3 import Bucket, minimal_s3


@pytest.fixture
def bucket(monkeypatch: pytest.MonkeyPatch) -> Iterator[Bucket]:
    """An empty bucket on a server that MLflow and boto3 use by default."""
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"):
        monkeypatch.setenv(name, "key")
    monkeypatch.setenv("AWS_DEFAULT_REGION", "us-east-1")
    monkeypatch.setenv("MLFLOW_BOTO_CLIENT_ADDRESSING_STYLE", "path")
    with minimal_s3() as bucket:
        monkeypatch.setenv("MLFLOW_S3_ENDPOINT_URL", bucket.url)
        yield bucket
