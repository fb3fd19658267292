"""The plugin that presigns URLs for the public endpoint, with the pinned MLflow version."""

import json
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, urlsplit

import pytest
import requests

from mlflow_operator.model import container_parts, plugins
from mlflow_operator.pod_scripts import public_s3
from mlflow_operator.pod_scripts.proxied_s3 import ProxiedS3ArtifactRepository
from mlflow_operator.pod_scripts.public_s3 import PublicS3ArtifactRepository
from tests.unit.pod_scripts.minimal_s3 import Bucket


@pytest.fixture
def bucket(bucket: Bucket, monkeypatch: pytest.MonkeyPatch) -> Bucket:
    """A store at the server's endpoint; the endpoint for clients is `https://s3.example.com`."""
    monkeypatch.setenv(plugins.PUBLIC_ENDPOINT_ENV, "https://s3.example.com")
    return bucket


def test_plugin_and_operator_use_same_variable() -> None:
    """The plugin imports nothing from the operator, so the name of the variable is in both."""
    assert public_s3.PUBLIC_ENDPOINT_VARIABLE == plugins.PUBLIC_ENDPOINT_ENV


def test_presigned_urls_use_public_endpoint_and_requests_use_server_endpoint(bucket: Bucket) -> None:
    """URLs of downloads, uploads and multipart uploads; the server sends its own requests to its own endpoint."""
    bucket.files["/bucket/prefix/a.txt"] = b"content"
    repository = PublicS3ArtifactRepository("s3://bucket/prefix")
    download = repository.get_download_presigned_url("a.txt")
    assert download.file_size == 7
    upload = repository.create_multipart_upload("b.bin", 2)
    urls = [
        download.url,
        repository.create_presigned_upload_url("c.txt").presigned_url,
        *(credential.url for credential in upload.credentials),
    ]
    assert len(urls) == 4
    for url in urls:
        parts = urlsplit(url)
        assert (parts.scheme, parts.netloc) == ("https", "s3.example.com")
        assert "host" in parse_qs(parts.query)["X-Amz-SignedHeaders"][0].split(";")
    for credential in upload.credentials:
        # as a proxy at the public endpoint does
        forwarded = credential.url.replace("https://s3.example.com", bucket.url)
        assert requests.put(forwarded, data=b"part", timeout=5).ok
    repository.abort_multipart_upload("b.bin", upload.upload_id)
    assert not bucket.parts
    repository._download_file("a.txt", "/dev/null")


@pytest.mark.parametrize("repository_class", [PublicS3ArtifactRepository, ProxiedS3ArtifactRepository])
def test_older_stores_accept_all_requests(
    bucket: Bucket, repository_class: Any, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """By default boto3 sends checksums that many stores other than AWS reject."""
    for name in container_parts.OVERRIDABLE_ENV:
        monkeypatch.setenv(name, "when_required")
    bucket.is_older = True
    (tmp_path / "a.txt").write_text("content")
    repository = repository_class("s3://bucket/older")
    repository.log_artifact(str(tmp_path / "a.txt"))
    assert bucket.files == {"/bucket/older/a.txt": b"content"}
    repository.delete_artifacts()
    assert not bucket.files


def test_multipart_uploads_have_the_encryption_headers(
    bucket: Bucket, monkeypatch: pytest.MonkeyPatch
) -> None:
    """MLflow sends them with all other uploads, but not when it creates an upload whose parts are presigned."""
    arguments = {"ServerSideEncryption": "aws:kms", "SSEKMSKeyId": "tracking"}
    monkeypatch.setenv("MLFLOW_S3_UPLOAD_EXTRA_ARGS", json.dumps({**arguments, "Unknown": "x"}))
    bucket.upload_headers = {
        "x-amz-server-side-encryption": "aws:kms",
        "x-amz-server-side-encryption-aws-kms-key-id": "tracking",
    }
    repository = PublicS3ArtifactRepository("s3://bucket/encrypted")
    upload = repository.create_multipart_upload("b.bin", 1)
    repository.abort_multipart_upload("b.bin", upload.upload_id)
