"""The plugin that signs for the address of clients, against the very MLflow it will run in."""

from collections.abc import Iterator
from urllib.parse import parse_qs, urlsplit

import pytest
import requests

from mlflow_operator.model import plugins
from mlflow_operator.pod_scripts import public_s3
from mlflow_operator.pod_scripts.public_s3 import PublicS3ArtifactRepository
from tests.unit.pod_scripts.minimal_s3 import Bucket, tiny_s3


@pytest.fixture
def bucket(monkeypatch: pytest.MonkeyPatch) -> Iterator[Bucket]:
    """What the server reaches; clients reach `https://s3.example.com`."""
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"):
        monkeypatch.setenv(name, "key")
    monkeypatch.setenv("AWS_DEFAULT_REGION", "us-east-1")
    monkeypatch.setenv("MLFLOW_BOTO_CLIENT_ADDRESSING_STYLE", "path")
    monkeypatch.setenv(plugins.PUBLIC_ADDRESS, "https://s3.example.com")
    with tiny_s3() as made:
        monkeypatch.setenv("MLFLOW_S3_ENDPOINT_URL", made.url)
        yield made


def test_the_address_is_where_the_operator_says() -> None:
    """The plugin imports nothing of the operator, so the name stands in both."""
    assert public_s3.ADDRESS == plugins.PUBLIC_ADDRESS


def test_every_url_names_the_public_address_and_all_else_the_stores_own(bucket: Bucket) -> None:
    """Downloads, uploads, uploads in parts: what must be asked of the store is asked where the server reaches it."""
    bucket.files["/bucket/prefix/a.txt"] = b"content"
    repository = PublicS3ArtifactRepository("s3://bucket/prefix")
    found = repository.get_download_presigned_url("a.txt")
    assert found.file_size == 7
    begun = repository.create_multipart_upload("b.bin", 2)
    urls = [
        found.url,
        repository.create_presigned_upload_url("c.txt").presigned_url,
        *(each.url for each in begun.credentials),
    ]
    assert len(urls) == 4
    for url in urls:
        parts = urlsplit(url)
        assert (parts.scheme, parts.netloc) == ("https", "s3.example.com")
        assert "host" in parse_qs(parts.query)["X-Amz-SignedHeaders"][0].split(";")
    for credential in begun.credentials:
        # the proxy that stands at the public address
        inside = credential.url.replace("https://s3.example.com", bucket.url)
        assert requests.put(inside, data=b"part", timeout=5).ok
    repository.abort_multipart_upload("b.bin", begun.upload_id)
    assert not bucket.parts
    repository._download_file("a.txt", "/dev/null")
