"""The plugin that keeps artifacts behind the server, against the very MLflow it will run in."""

import inspect

import pytest
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
