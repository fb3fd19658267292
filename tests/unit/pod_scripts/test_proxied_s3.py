"""The plugin that makes clients transfer artifacts through the server, with the pinned MLflow version."""

import inspect
import io
import os
from collections.abc import AsyncIterator, Callable
from pathlib import Path

import pytest
from botocore.exceptions import ClientError
from mlflow.entities import FileInfo
from mlflow.exceptions import MlflowException
from mlflow.store.artifact import artifact_repo
from mlflow.store.artifact.artifact_repo import ArtifactRepository
from mlflow.store.artifact.s3_artifact_repo import S3ArtifactRepository

from mlflow_operator.pod_scripts import proxied_s3
from mlflow_operator.pod_scripts.proxied_s3 import (
    SIGNING_MIXINS,
    ProxiedS3ArtifactRepository,
    signing_methods,
)
from tests.unit.pod_scripts.minimal_s3 import Bucket


@pytest.fixture
def repository() -> ProxiedS3ArtifactRepository:
    """A repository that has not sent any request yet."""
    return ProxiedS3ArtifactRepository("s3://bucket/prefix")


@pytest.mark.parametrize("mixin", SIGNING_MIXINS)
def test_repository_cannot_presign_urls(repository: ProxiedS3ArtifactRepository, mixin: str) -> None:
    """MLflow checks with isinstance, and then tells clients to access the store directly."""
    assert isinstance(S3ArtifactRepository("s3://bucket"), getattr(artifact_repo, mixin))
    assert not isinstance(repository, getattr(artifact_repo, mixin))


def test_all_other_methods_are_forwarded() -> None:
    """A method that is not forwarded would use the base class and fail, or silently do the wrong thing."""
    overridden = {
        name
        for name, value in vars(S3ArtifactRepository).items()
        if inspect.isfunction(value) and hasattr(ArtifactRepository, name) and not name.startswith("__")
    }
    assert {
        "log_artifact",
        "log_artifacts",
        "list_artifacts",
        "delete_artifacts",
        "_download_file",
    } <= overridden
    assert overridden - signing_methods() <= vars(ProxiedS3ArtifactRepository).keys()
    assert not signing_methods() & vars(ProxiedS3ArtifactRepository).keys()


def test_calls_reach_mlflow_repository(repository: ProxiedS3ArtifactRepository) -> None:
    """With the same store, bucket and path."""
    assert repository.store.artifact_uri == "s3://bucket/prefix"
    assert repository.parse_s3_compliant_uri("s3://bucket/prefix/x") == ("bucket", "prefix/x")


@pytest.mark.parametrize(("store_status", "client_status"), [(404, 404), (403, 500), (503, 500)])
def test_missing_file_becomes_404(
    repository: ProxiedS3ArtifactRepository,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    store_status: int,
    client_status: int,
) -> None:
    """Clients do not retry a 404, and retry a 500 for minutes. Only a 404 of the store may become a 404."""

    def fail(remote: str, local: str) -> None:
        response = {
            "Error": {"Code": str(store_status)},
            "ResponseMetadata": {"HTTPStatusCode": store_status},
        }
        raise ClientError(response, "HeadObject")  # type: ignore[arg-type]

    monkeypatch.setattr(repository.store, "_download_file", fail)
    monkeypatch.setattr(repository.store, "list_artifacts", lambda path=None: [])
    with pytest.raises(MlflowException) as error:
        repository.download_artifacts("run/artifacts/model", str(tmp_path))
    assert error.value.get_http_status_code() == client_status


@pytest.fixture
def bucket(bucket: Bucket, monkeypatch: pytest.MonkeyPatch) -> Bucket:
    """An empty bucket that new repositories use, and parts of a few KiB."""
    monkeypatch.setenv("AWS_REQUEST_CHECKSUM_CALCULATION", "when_required")
    monkeypatch.setattr(proxied_s3, "PART_BYTES", 4096)
    return bucket


async def chunks(content: bytes, size: int = 1000) -> AsyncIterator[bytes]:
    """The body of a client's request."""
    for start in range(0, len(content), size):
        yield content[start : start + size]


SIZES = [0, 1, 4095, 4096, 4097, 12288, 50_000]
KEY = "/bucket/prefix/run/model.txt"


@pytest.mark.parametrize("size", SIZES)
async def test_async_stream_is_stored_completely(
    repository: ProxiedS3ArtifactRepository, bucket: Bucket, size: int
) -> None:
    """With any size, and with the content type of its file name."""
    content = os.urandom(size)
    await repository.log_artifact_from_async_stream(chunks(content), "model.txt", "run")
    assert bucket.files == {KEY: content}
    assert bucket.content_types[KEY] == "text/plain"
    assert not bucket.parts


@pytest.mark.parametrize("size", SIZES)
def test_stream_is_stored_completely(
    repository: ProxiedS3ArtifactRepository, bucket: Bucket, size: int
) -> None:
    """Servers without FastAPI use this method."""
    content = os.urandom(size)
    repository.log_artifact_from_stream(io.BytesIO(content), "model.txt", "run")
    assert bucket.files == {KEY: content}


async def test_part_size_grows_so_that_10000_parts_are_enough(
    repository: ProxiedS3ArtifactRepository, bucket: Bucket, monkeypatch: pytest.MonkeyPatch
) -> None:
    """S3 does not allow more parts."""
    monkeypatch.setattr(proxied_s3, "PART_BYTES", 100)
    monkeypatch.setattr(proxied_s3, "PARTS_PER_SIZE", 3)
    await repository.log_artifact_from_async_stream(chunks(os.urandom(1800), 100), "model.txt", "run")
    assert (bucket.part_sizes[0], max(bucket.part_sizes), sum(bucket.part_sizes)) == (100, 300, 1800)


async def test_interrupted_upload_leaves_nothing(
    repository: ProxiedS3ArtifactRepository, bucket: Bucket
) -> None:
    """Otherwise a client could load an incomplete model."""

    async def interrupted() -> AsyncIterator[bytes]:
        async for chunk in chunks(os.urandom(20_000)):
            yield chunk
        raise ConnectionResetError

    with pytest.raises(ConnectionResetError):
        await repository.log_artifact_from_async_stream(interrupted(), "model.txt", "run")
    assert not bucket.files
    assert not bucket.parts


@pytest.mark.parametrize("part", [1, 3])
async def test_denied_part_fails_and_aborts_upload(
    repository: ProxiedS3ArtifactRepository, bucket: Bucket, part: int
) -> None:
    """The client gets the error, and the uploaded parts are deleted."""
    bucket.denied_part = part
    with pytest.raises(ClientError, match="AccessDenied"):
        await repository.log_artifact_from_async_stream(chunks(os.urandom(50_000)), "model.txt", "run")
    assert not bucket.files
    assert not bucket.parts


def test_extra_args_are_added_to_requests_that_support_them(
    repository: ProxiedS3ArtifactRepository, bucket: Bucket, monkeypatch: pytest.MonkeyPatch
) -> None:
    """MLFLOW_S3_UPLOAD_EXTRA_ARGS, as for files that MLflow uploads itself; UploadPart, for example, has no ACL."""
    monkeypatch.setenv("MLFLOW_S3_UPLOAD_EXTRA_ARGS", '{"ServerSideEncryption": "AES256", "ACL": "private"}')
    repository.log_artifact_from_stream(io.BytesIO(b"x" * 10_000), "model.txt", "run")
    assert bucket.files == {KEY: b"x" * 10_000}


def test_open_artifact_returns_body_and_size(repository: ProxiedS3ArtifactRepository, bucket: Bucket) -> None:
    """With the size, a client notices a truncated response. A missing file is a 404."""
    bucket.files[KEY] = b"content"
    body, size = repository.open_artifact("run/model.txt")
    with body:
        assert (body.read(), size) == (b"content", 7)
    with pytest.raises(MlflowException) as error:
        repository.open_artifact("run/none.txt")
    assert error.value.get_http_status_code() == 404


@pytest.mark.parametrize(
    ("uri", "path"),
    [
        ("s3://bucket/prefix", "mlflow-operator-backups"),
        ("s3://bucket/prefix", "mlflow-operator-backups/ns/server/id/database.dump"),
        ("s3://bucket/prefix", "1/../mlflow-operator-backups/ns"),
        ("s3://bucket/prefix/mlflow-operator-backups/ns", "server/id/manifest.json"),
        ("s3://bucket/elsewhere/mlflow-operator-backups", ""),
    ],
)
async def test_clients_cannot_access_backups(bucket: Bucket, tmp_path: Path, uri: str, path: str) -> None:
    """Backups contain the complete database: clients cannot read, list, write or delete them."""
    repository = ProxiedS3ArtifactRepository(uri)
    file = tmp_path / "file"
    file.write_text("content")
    attempts: list[Callable[[], object]] = [
        lambda: repository.open_artifact(path),
        lambda: repository.list_artifacts(path),
        lambda: repository.delete_artifacts(path),
        lambda: repository.log_artifact(str(file), path),
        lambda: repository.log_artifacts(str(tmp_path), path),
        lambda: repository._download_file(path, str(tmp_path / "downloaded")),
        lambda: repository.log_artifact_from_stream(io.BytesIO(b"x"), "file", path),
    ]
    for attempt in attempts:
        with pytest.raises(MlflowException) as error:
            attempt()
        assert error.value.get_http_status_code() == 403
    with pytest.raises(MlflowException):
        await repository.log_artifact_from_async_stream(chunks(b"x"), "file", path)
    assert not bucket.files


@pytest.mark.parametrize(
    ("uri", "path"),
    [
        ("s3://bucket/prefix", None),
        ("s3://bucket", None),
        ("s3://bucket/prefix", "mlflow-op"),
        ("s3://bucket", "pre"),
    ],
)
def test_prefix_of_backups_cannot_be_deleted(
    bucket: Bucket, monkeypatch: pytest.MonkeyPatch, uri: str, path: str | None
) -> None:
    """Neither the parent folders nor the beginning of the name: MLflow before 3 deletes all keys with the prefix."""
    monkeypatch.setenv("MLFLOW_ARTIFACTS_DESTINATION", "s3://bucket/prefix")
    with pytest.raises(MlflowException, match="not a location for artifacts"):
        ProxiedS3ArtifactRepository(uri).delete_artifacts(path)


def test_artifacts_of_a_run_are_deleted(
    repository: ProxiedS3ArtifactRepository, monkeypatch: pytest.MonkeyPatch
) -> None:
    """By MLflow's own repository."""
    monkeypatch.setenv("MLFLOW_ARTIFACTS_DESTINATION", "s3://bucket/prefix")
    deleted: list[str | None] = []
    monkeypatch.setattr(repository.store, "delete_artifacts", deleted.append)
    repository.delete_artifacts("1/run/artifacts")
    assert deleted == ["1/run/artifacts"]


def test_backup_folder_is_not_listed(
    repository: ProxiedS3ArtifactRepository, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Other folders are."""
    files = [FileInfo(path, True, None) for path in ("1", "mlflow-operator-backups")]
    monkeypatch.setattr(repository.store, "list_artifacts", lambda path: files)
    assert [file.path for file in repository.list_artifacts()] == ["1"]
