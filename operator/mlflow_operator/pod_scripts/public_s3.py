"""Signs URLs for the address at which clients reach the store, where the server reaches it at another.

The host is part of what is signed, so an address can't be changed afterwards. A signature is computed, nobody is
asked for it: a second client that never connects gives it, and the first does all else.
"""

import os

from mlflow.store.artifact import s3_artifact_repo
from mlflow.store.artifact.s3_artifact_repo import S3ArtifactRepository

ADDRESS = "MLFLOW_OPERATOR_S3_PUBLIC_ENDPOINT_URL"


class Signing:
    """An S3 client that signs by another one."""

    def __init__(self, client, signer):
        self.client = client
        self.generate_presigned_url = signer.generate_presigned_url

    def __getattr__(self, name):
        return getattr(self.client, name)


class PublicS3ArtifactRepository(S3ArtifactRepository):
    """MLflow's own S3 repository, with URLs that begin with the public address."""

    def _get_s3_client(self):
        keys = {
            "access_key_id": self._access_key_id,
            "secret_access_key": self._secret_access_key,
            "session_token": self._session_token,
        }
        signer = s3_artifact_repo._get_s3_client(**keys, s3_endpoint_url=os.environ[ADDRESS])
        return Signing(super()._get_s3_client(), signer)
