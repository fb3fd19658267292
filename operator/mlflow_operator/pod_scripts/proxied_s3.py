"""An artifact repository for S3 that makes clients transfer artifacts through the tracking server.

MLflow lets clients access the store directly whenever the server's repository class can presign URLs, and has no
setting for it. This repository stores artifacts on S3 as MLflow's own does, but it cannot presign URLs: the server
transfers all data, and clients need no access to the store. Transfers are streamed; neither the memory nor the disk of
the server ever holds a complete file.
"""

import asyncio
import contextlib
import os
import posixpath
from mimetypes import guess_type

from botocore import xform_name
from botocore.exceptions import BotoCoreError, ClientError
from mlflow.exceptions import MlflowException
from mlflow.protos.databricks_pb2 import PERMISSION_DENIED, RESOURCE_DOES_NOT_EXIST
from mlflow.store.artifact import artifact_repo
from mlflow.store.artifact.artifact_repo import ArtifactRepository
from mlflow.store.artifact.s3_artifact_repo import S3ArtifactRepository

from .s3_common import configure_s3_clients

configure_s3_clients()

SIGNING_MIXINS = ("MultipartUploadMixin", "MultipartDownloadMixin", "PresignedUploadMixin")
# older MLflow versions write an upload to a file first, and have no such class
STREAMING_MIXINS = [
    getattr(artifact_repo, name) for name in ("StreamUploadMixin",) if hasattr(artifact_repo, name)
]

# Each upload has up to two parts in memory: the one that is received and the one that is sent. More uploads wait.
PART_BYTES, MAX_UPLOADS = 8 * 1024 * 1024, 32
# S3 allows 10000 parts. After every 1000 parts the part size grows by PART_BYTES: enough for 430 GiB.
PARTS_PER_SIZE = 1000

# Database backups may be in the same bucket and prefix. Clients must not be able to read or delete them.
BACKUP_FOLDER = "mlflow-operator-backups"


def signing_methods():
    """Names of the methods that only a repository with presigned URLs has."""
    mixins = [getattr(artifact_repo, name) for name in SIGNING_MIXINS if hasattr(artifact_repo, name)]
    members = (item for mixin in mixins for item in vars(mixin).items())
    return {name for name, value in members if callable(value) and not name.startswith("__")}


class Upload:
    """An upload of one file: in one request if it is small, otherwise in parts."""

    def __init__(self, client, bucket, key, extra_args):
        self.client, self.extra_args = client, extra_args
        self.location = {"Bucket": bucket, "Key": key}
        self.parts, self.upload_id = [], {}

    def call(self, operation, **arguments):
        """Call an S3 operation, with those of the extra arguments that it supports."""
        supported = self.client.meta.service_model.operation_model(operation).input_shape.members
        extra_args = {name: value for name, value in self.extra_args.items() if name in supported}
        call = getattr(self.client, xform_name(operation))
        return call(**extra_args, **self.location, **self.upload_id, **arguments)

    def part_size(self):
        """Number of bytes of the next part."""
        return PART_BYTES * (1 + len(self.parts) // PARTS_PER_SIZE)

    def send(self, part):
        """Upload one part."""
        if not self.upload_id:
            self.upload_id = {"UploadId": self.call("CreateMultipartUpload")["UploadId"]}
        number = len(self.parts) + 1
        response = self.call("UploadPart", PartNumber=number, Body=part)
        self.parts.append({"PartNumber": number, "ETag": response["ETag"]})

    def finish(self, rest):
        """Upload the rest and complete the upload. The file does not exist before that."""
        if not self.upload_id:
            self.call("PutObject", Body=rest)
            return
        if rest:
            self.send(rest)
        self.call("CompleteMultipartUpload", MultipartUpload={"Parts": self.parts})

    def abort(self):
        """Delete the uploaded parts. If the store refuses, they stay."""
        if self.upload_id:
            with contextlib.suppress(ClientError, BotoCoreError):
                self.call("AbortMultipartUpload")


class ProxiedS3ArtifactRepository(ArtifactRepository, *STREAMING_MIXINS):
    """An S3 repository that forwards all calls to MLflow's own repository, except those that presign URLs."""

    def __init__(self, artifact_uri, *args, **kwargs):
        super().__init__(artifact_uri, *args, **kwargs)
        self.store = S3ArtifactRepository(artifact_uri, *args, **kwargs)
        self.upload_slots = asyncio.Semaphore(MAX_UPLOADS)

    # abstract in ArtifactRepository, so they must be defined here; all other methods are forwarded below
    def log_artifact(self, local_file, artifact_path=None):
        return self.store.log_artifact(local_file, self.check_path(artifact_path))

    def log_artifacts(self, local_dir, artifact_path=None):
        return self.store.log_artifacts(local_dir, self.check_path(artifact_path))

    def list_artifacts(self, path=None):
        files = self.store.list_artifacts(self.check_path(path))
        return [file for file in files if BACKUP_FOLDER not in file.path.split("/")]

    def delete_artifacts(self, artifact_path=None):
        """Delete artifacts, unless the path contains the backups.

        Older MLflow versions delete everything whose key starts with the path, even if the path ends in a folder name.
        """
        bucket, key = self.locate(artifact_path or "")
        root_bucket, root = self.store.parse_s3_compliant_uri(
            os.environ.get("MLFLOW_ARTIFACTS_DESTINATION", "s3://")
        )
        if bucket == root_bucket and posixpath.join(root, BACKUP_FOLDER).startswith(key.rstrip("/")):
            raise permission_denied(key)
        return self.store.delete_artifacts(artifact_path)

    def log_artifact_from_stream(self, stream, artifact_file_name, artifact_path=None):
        """Upload `stream`. Nothing is stored if reading from it fails."""
        upload = self.create_upload(artifact_file_name, artifact_path)
        try:
            while len(part := stream.read(upload.part_size())) == upload.part_size():
                upload.send(part)
            upload.finish(part)
        except BaseException:
            upload.abort()
            raise

    async def log_artifact_from_async_stream(self, chunks, artifact_file_name, artifact_path=None):
        """Upload an asynchronous stream, no faster than the store accepts it. Nothing is stored if it fails."""
        async with self.upload_slots:
            upload, part, sending = self.create_upload(artifact_file_name, artifact_path), bytearray(), None
            try:
                async for chunk in chunks:
                    part += chunk
                    if len(part) >= upload.part_size():
                        if sending:
                            await sending
                        sending = asyncio.ensure_future(asyncio.to_thread(upload.send, part))
                        part = bytearray()
                if sending:
                    await sending
                await asyncio.to_thread(upload.finish, part)
            except BaseException:
                # the client or the store failed: an incomplete file must not look complete
                if sending:
                    await asyncio.wait([sending])
                await asyncio.to_thread(upload.abort)
                raise

    def create_upload(self, artifact_file_name, artifact_path):
        """Create an upload. It has not sent a request yet."""
        file_name = posixpath.basename(artifact_file_name)
        bucket, key = self.locate(posixpath.join(artifact_path or "", file_name))
        content_type, encoding = guess_type(artifact_file_name)
        headers = {"ContentType": content_type, "ContentEncoding": encoding}
        extra_args = {name: value for name, value in headers.items() if value}
        extra_args |= self.bucket_owner() | (self.store.get_s3_file_upload_extra_args() or {})
        return Upload(self.store._get_s3_client(), bucket, key, extra_args)

    def open_artifact(self, path):
        """Return the body of a file, which the caller reads and closes, and its size."""
        bucket, key = self.locate(path)
        try:
            response = self.store._get_s3_client().get_object(Bucket=bucket, Key=key, **self.bucket_owner())
        except ClientError as error:
            raise client_error(error, path) from error
        return response["Body"], response["ContentLength"]

    def locate(self, path):
        """Return bucket and key of a file. Raises MlflowException for a path to a backup."""
        bucket, root = self.store.parse_s3_compliant_uri(self.artifact_uri)
        key = posixpath.join(root, path)
        if BACKUP_FOLDER in posixpath.normpath(key).split("/"):
            raise permission_denied(key)
        return bucket, key

    def check_path(self, path):
        """Return the path. Raises MlflowException for a path to a backup."""
        self.locate(path or "")
        return path

    def bucket_owner(self):
        """MLFLOW_S3_EXPECTED_BUCKET_OWNER, which older MLflow versions do not support."""
        return getattr(self.store, "_bucket_owner_params", {})

    def _download_file(self, remote_file_path, local_path):
        """Download a file; a missing file becomes a 404.

        MLflow's own repository would cause a 500, which clients retry for four minutes. Every `runs:/<run>/model` first
        looks for a file of that name, which models logged by MLflow 3 do not have.
        """
        try:
            return self.store._download_file(self.check_path(remote_file_path), local_path)
        except ClientError as error:
            raise client_error(error, remote_file_path) from error


def permission_denied(key):
    """The exception for a path to a backup."""
    return MlflowException(f"{key} is not a location for artifacts.", error_code=PERMISSION_DENIED)


def client_error(error, path):
    """The exception that clients receive for an error of the store."""
    if error.response.get("ResponseMetadata", {}).get("HTTPStatusCode") != 404:
        return error
    return MlflowException(f"There is no artifact {path}.", error_code=RESOURCE_DOES_NOT_EXIST)


def forward(name):
    """Return a method that calls the method of the same name of MLflow's S3 repository."""

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
