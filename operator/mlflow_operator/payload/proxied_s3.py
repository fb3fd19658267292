"""Keeps artifacts behind the tracking server.

MLflow lets clients take artifacts straight from the store whenever the server's repository class can sign URLs;
there is no switch. This repository stores on S3 as MLflow's own does, but can't sign, so the server streams
every byte itself and clients never need to reach the store.
"""

from botocore.exceptions import ClientError
from mlflow.exceptions import MlflowException
from mlflow.protos.databricks_pb2 import RESOURCE_DOES_NOT_EXIST
from mlflow.store.artifact import artifact_repo
from mlflow.store.artifact.artifact_repo import ArtifactRepository
from mlflow.store.artifact.s3_artifact_repo import S3ArtifactRepository

SIGNING = ("MultipartUploadMixin", "MultipartDownloadMixin", "PresignedUploadMixin")


def signing_methods():
    """Names of what only a repository that can sign URLs has."""
    mixins = [getattr(artifact_repo, name) for name in SIGNING if hasattr(artifact_repo, name)]
    return {name for mixin in mixins for name in vars(mixin) if not name.startswith("__")}


class ProxiedS3ArtifactRepository(ArtifactRepository):
    """An S3 repository that hands every call to MLflow's own one, signing excepted."""

    def __init__(self, artifact_uri, *args, **kwargs):
        super().__init__(artifact_uri, *args, **kwargs)
        self.store = S3ArtifactRepository(artifact_uri, *args, **kwargs)

    # abstract in ArtifactRepository, so they must stand here; all else is forwarded below
    def log_artifact(self, *args, **kwargs):
        return self.store.log_artifact(*args, **kwargs)

    def log_artifacts(self, *args, **kwargs):
        return self.store.log_artifacts(*args, **kwargs)

    def list_artifacts(self, *args, **kwargs):
        return self.store.list_artifacts(*args, **kwargs)

    def _download_file(self, remote_file_path, local_path):
        """As MLflow's own, but what is not there is told as that.

        Its own way becomes a 500, which clients try again for four minutes; and every `runs:/<run>/model` starts
        with a look for a file of that name, which models logged by MLflow 3 don't have.
        """
        try:
            return self.store._download_file(remote_file_path, local_path)
        except ClientError as error:
            if error.response.get("ResponseMetadata", {}).get("HTTPStatusCode") != 404:
                raise
            raise MlflowException(
                f"There is no artifact {remote_file_path}.", error_code=RESOURCE_DOES_NOT_EXIST
            ) from error


def forward(name):
    """A method that calls the one of the same name of the S3 repository."""

    def call(self, *args, **kwargs):
        return getattr(self.store, name)(*args, **kwargs)

    call.__name__ = name
    return call


for method, value in vars(S3ArtifactRepository).items():
    if (
        callable(value)
        and not method.startswith("__")
        and method not in vars(ProxiedS3ArtifactRepository)
        and method not in signing_methods()
    ):
        setattr(ProxiedS3ArtifactRepository, method, forward(method))
