"""MLflow's artifact repository for S3 for servers whose clients access the store themselves.

It presigns URLs for the endpoint that clients use, if it differs from the endpoint that the server uses.

The signature covers the host, so the host of a URL cannot be changed afterwards. Presigning sends no request: a second
client for the public endpoint, which never connects, signs the URLs, and the first client does everything else.
"""

import os

from mlflow.store.artifact import s3_artifact_repo
from mlflow.store.artifact.s3_artifact_repo import S3ArtifactRepository

from .s3_common import configure_s3_clients

configure_s3_clients()

PUBLIC_ENDPOINT_VARIABLE = "MLFLOW_OPERATOR_S3_PUBLIC_ENDPOINT_URL"


class PresigningClient:
    """An S3 client that uses another client to presign URLs."""

    def __init__(self, client, signer):
        self.client = client
        self.generate_presigned_url = signer.generate_presigned_url

    def __getattr__(self, name):
        return getattr(self.client, name)


class PublicS3ArtifactRepository(S3ArtifactRepository):
    """MLflow's S3 repository, with presigned URLs for the public endpoint if there is one."""

    def _get_s3_client(self):
        endpoint = os.environ.get(PUBLIC_ENDPOINT_VARIABLE)
        if not endpoint:
            return super()._get_s3_client()
        keys = {
            "access_key_id": self._access_key_id,
            "secret_access_key": self._secret_access_key,
            "session_token": self._session_token,
        }
        signer = s3_artifact_repo._get_s3_client(**keys, s3_endpoint_url=endpoint)
        return PresigningClient(super()._get_s3_client(), signer)
