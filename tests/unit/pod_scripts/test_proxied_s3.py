"""The plugin that keeps artifacts behind the server, against the very MLflow it will run in."""

import inspect
import io
import os
from collections.abc import AsyncIterator, Callable, Iterator
from pathlib import Path

import pytest
from botocore.exceptions import ClientError
from mlflow.entities import FileInfo
from mlflow.exceptions import MlflowException
from mlflow.store.artifact import artifact_repo
from mlflow.store.artifact.artifact_repo import ArtifactRepository
from mlflow.store.artifact.s3_artifact_repo import S3ArtifactRepository

from mlflow_operator.pod_scripts import proxied_s3
from mlflow_operator.pod_scripts.proxied_s3 import SIGNING, ProxiedS3ArtifactRepository, signing_methods
from tests.unit.pod_scripts.minimal_s3 import Bucket, tiny_s3


@pytest.fixture
def repository() -> ProxiedS3ArtifactRepository:
    """One that has not spoken to any store yet."""
    return ProxiedS3ArtifactRepository("s3://bucket/prefix")


@pytest.mark.parametrize("mixin", SIGNING)
def test_the_server_finds_nothing_that_can_sign(repository: ProxiedS3ArtifactRepository, mixin: str) -> None:
    """MLflow asks by isinstance and then tells clients to go to the store themselves."""
    assert isinstance(S3ArtifactRepository("s3://bucket"), getattr(artifact_repo, mixin))
    assert not isinstance(repository, getattr(artifact_repo, mixin))


def test_everything_else_that_s3_does_differently_is_forwarded() -> None:
    """A method left out would fall back to the base class and fail, or do the wrong thing in silence."""
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


def test_calls_reach_mlflows_own_repository(repository: ProxiedS3ArtifactRepository) -> None:
    """Same store, same bucket, same path."""
    assert repository.store.artifact_uri == "s3://bucket/prefix"
    assert repository.parse_s3_compliant_uri("s3://bucket/prefix/x") == ("bucket", "prefix/x")


@pytest.mark.parametrize(("store_says", "client_hears"), [(404, 404), (403, 500), (503, 500)])
def test_what_is_not_there_is_told_as_that(
    repository: ProxiedS3ArtifactRepository,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    store_says: int,
    client_hears: int,
) -> None:
    """Clients give up at once on 404, and try a 500 again for minutes; only the store's 404 may become one."""

    def refuse(remote: str, local: str) -> None:
        answer = {"Error": {"Code": str(store_says)}, "ResponseMetadata": {"HTTPStatusCode": store_says}}
        raise ClientError(answer, "HeadObject")  # type: ignore[arg-type]

    monkeypatch.setattr(repository.store, "_download_file", refuse)
    monkeypatch.setattr(repository.store, "list_artifacts", lambda path=None: [])
    with pytest.raises(MlflowException) as told:
        repository.download_artifacts("run/artifacts/model", str(tmp_path))
    assert told.value.get_http_status_code() == client_hears


@pytest.fixture
def bucket(monkeypatch: pytest.MonkeyPatch) -> Iterator[Bucket]:
    """An empty one, that a repository made now stores in; parts are of a few KiB."""
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"):
        monkeypatch.setenv(name, "key")
    monkeypatch.setenv("AWS_DEFAULT_REGION", "us-east-1")
    monkeypatch.setenv("AWS_REQUEST_CHECKSUM_CALCULATION", "when_required")
    monkeypatch.setenv("MLFLOW_BOTO_CLIENT_ADDRESSING_STYLE", "path")
    monkeypatch.setattr(proxied_s3, "PART", 4096)
    with tiny_s3() as made:
        monkeypatch.setenv("MLFLOW_S3_ENDPOINT_URL", made.url)
        yield made


async def chunks(content: bytes, size: int = 1000) -> AsyncIterator[bytes]:
    """As they come from a client."""
    for start in range(0, len(content), size):
        yield content[start : start + size]


SIZES = [0, 1, 4095, 4096, 4097, 12288, 50_000]
KEY = "/bucket/prefix/run/model.txt"


@pytest.mark.parametrize("size", SIZES)
async def test_what_comes_in_bit_by_bit_is_stored_whole(
    repository: ProxiedS3ArtifactRepository, bucket: Bucket, size: int
) -> None:
    """Of any size, and of the type that its name tells."""
    content = os.urandom(size)
    await repository.log_artifact_from_async_stream(chunks(content), "model.txt", "run")
    assert bucket.files == {KEY: content}
    assert bucket.kinds[KEY] == "text/plain"
    assert not bucket.parts


@pytest.mark.parametrize("size", SIZES)
def test_a_file_that_is_read_is_stored_whole(
    repository: ProxiedS3ArtifactRepository, bucket: Bucket, size: int
) -> None:
    """The way of servers without FastAPI."""
    content = os.urandom(size)
    repository.log_artifact_from_stream(io.BytesIO(content), "model.txt", "run")
    assert bucket.files == {KEY: content}


async def test_parts_grow_so_that_ten_thousand_are_enough(
    repository: ProxiedS3ArtifactRepository, bucket: Bucket, monkeypatch: pytest.MonkeyPatch
) -> None:
    """S3 takes no more than that many."""
    monkeypatch.setattr(proxied_s3, "PART", 100)
    monkeypatch.setattr(proxied_s3, "THOUSAND", 3)
    await repository.log_artifact_from_async_stream(chunks(os.urandom(1800), 100), "model.txt", "run")
    assert (bucket.sizes[0], max(bucket.sizes), sum(bucket.sizes)) == (100, 300, 1800)


async def test_an_upload_that_breaks_off_leaves_nothing(
    repository: ProxiedS3ArtifactRepository, bucket: Bucket
) -> None:
    """Half a model under the name of a whole one would be loaded."""

    async def broken() -> AsyncIterator[bytes]:
        async for chunk in chunks(os.urandom(20_000)):
            yield chunk
        raise ConnectionResetError

    with pytest.raises(ConnectionResetError):
        await repository.log_artifact_from_async_stream(broken(), "model.txt", "run")
    assert not bucket.files
    assert not bucket.parts


@pytest.mark.parametrize("part", [1, 3])
async def test_a_store_that_refuses_a_part_is_told(
    repository: ProxiedS3ArtifactRepository, bucket: Bucket, part: int
) -> None:
    """To the client, and what was begun goes."""
    bucket.fails_at = part
    with pytest.raises(ClientError, match="AccessDenied"):
        await repository.log_artifact_from_async_stream(chunks(os.urandom(50_000)), "model.txt", "run")
    assert not bucket.files
    assert not bucket.parts


def test_the_owners_wishes_reach_each_request_that_takes_them(
    repository: ProxiedS3ArtifactRepository, bucket: Bucket, monkeypatch: pytest.MonkeyPatch
) -> None:
    """MLFLOW_S3_UPLOAD_EXTRA_ARGS, as for files that MLflow stores itself; a part takes no ACL."""
    monkeypatch.setenv("MLFLOW_S3_UPLOAD_EXTRA_ARGS", '{"ServerSideEncryption": "AES256", "ACL": "private"}')
    repository.log_artifact_from_stream(io.BytesIO(b"x" * 10_000), "model.txt", "run")
    assert bucket.files == {KEY: b"x" * 10_000}


def test_a_file_is_read_from_the_store_as_it_is_sent(
    repository: ProxiedS3ArtifactRepository, bucket: Bucket
) -> None:
    """With its size, so that a client notices one that ends early; what is not there is told as that."""
    bucket.files[KEY] = b"content"
    body, size = repository.opened("run/model.txt")
    with body:
        assert (body.read(), size) == (b"content", 7)
    with pytest.raises(MlflowException) as told:
        repository.opened("run/none.txt")
    assert told.value.get_http_status_code() == 404


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
async def test_no_client_gets_at_backups(bucket: Bucket, tmp_path: Path, uri: str, path: str) -> None:
    """They lie beside the artifacts, and hold the whole database: not to be read, listed, written or deleted."""
    repository = ProxiedS3ArtifactRepository(uri)
    file = tmp_path / "file"
    file.write_text("content")
    attempts: list[Callable[[], object]] = [
        lambda: repository.opened(path),
        lambda: repository.list_artifacts(path),
        lambda: repository.delete_artifacts(path),
        lambda: repository.log_artifact(str(file), path),
        lambda: repository.log_artifacts(str(tmp_path), path),
        lambda: repository._download_file(path, str(tmp_path / "there")),
        lambda: repository.log_artifact_from_stream(io.BytesIO(b"x"), "file", path),
    ]
    for attempt in attempts:
        with pytest.raises(MlflowException) as told:
            attempt()
        assert told.value.get_http_status_code() == 403
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
def test_what_holds_the_backups_is_not_deleted_as_a_whole(
    bucket: Bucket, monkeypatch: pytest.MonkeyPatch, uri: str, path: str | None
) -> None:
    """Nor what begins like their folder: releases before 3 delete all that begins alike."""
    monkeypatch.setenv("MLFLOW_ARTIFACTS_DESTINATION", "s3://bucket/prefix")
    with pytest.raises(MlflowException, match="no artifact's place"):
        ProxiedS3ArtifactRepository(uri).delete_artifacts(path)


def test_artifacts_are_deleted_as_ever(
    repository: ProxiedS3ArtifactRepository, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Those of a run, by MLflow's own repository."""
    monkeypatch.setenv("MLFLOW_ARTIFACTS_DESTINATION", "s3://bucket/prefix")
    deleted: list[str | None] = []
    monkeypatch.setattr(repository.store, "delete_artifacts", deleted.append)
    repository.delete_artifacts("1/run/artifacts")
    assert deleted == ["1/run/artifacts"]


def test_the_folder_of_backups_is_not_listed(
    repository: ProxiedS3ArtifactRepository, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Beside what is."""
    there = [FileInfo(path, True, None) for path in ("1", "mlflow-operator-backups")]
    monkeypatch.setattr(repository.store, "list_artifacts", lambda path: there)
    assert [each.path for each in repository.list_artifacts()] == ["1"]
