"""Presign URLs for the endpoint that clients use, if it differs from the endpoint that the server uses.

The signature covers the host, so the host of a URL cannot be changed afterwards. Presigning sends no request: a second
client for the public endpoint, which never connects, signs the URLs, and the first client does everything else.
"""

import os

from mlflow.store.artifact import s3_artifact_repo
from mlflow.store.artifact.s3_artifact_repo import S3ArtifactRepository

PUBLIC_ENDPOINT_VARIABLE = "MLFLOW_OPERATOR_S3_PUBLIC_ENDPOINT_URL"


class PresigningClient:
    """An S3 client that uses another client to presign URLs."""

    def __init__(self, client, signer):
        self.client = client
        self.generate_presigned_url = signer.generate_presigned_url

    def __getattr__(self, name):
        return getattr(self.client, name)


class PublicS3ArtifactRepository(S3ArtifactRepository):
    """MLflow's S3 repository, with presigned URLs for the public endpoint."""

    def _get_s3_client(self):
        keys = {
            "access_key_id": self._access_key_id,
            "secret_access_key": self._secret_access_key,
            "session_token": self._session_token,
        }
        endpoint = os.environ[PUBLIC_ENDPOINT_VARIABLE]
        signer = s3_artifact_repo._get_s3_client(**keys, s3_endpoint_url=endpoint)
        return PresigningClient(super()._get_s3_client(), signer)
