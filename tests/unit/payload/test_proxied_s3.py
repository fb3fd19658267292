"""The plugin that keeps artifacts behind the server, against the very MLflow it will run in."""

import inspect
from pathlib import Path

import pytest
from botocore.exceptions import ClientError
from mlflow.exceptions import MlflowException
from mlflow.store.artifact import artifact_repo
from mlflow.store.artifact.artifact_repo import ArtifactRepository
from mlflow.store.artifact.s3_artifact_repo import S3ArtifactRepository

from mlflow_operator.payload.proxied_s3 import SIGNING, ProxiedS3ArtifactRepository, signing_methods


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
