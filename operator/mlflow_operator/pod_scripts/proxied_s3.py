"""Keeps artifacts behind the tracking server.

MLflow lets clients take artifacts straight from the store whenever the server's repository class can sign URLs;
there is no switch. This repository stores on S3 as MLflow's own does, but can't sign, so the server hands on
every byte itself and clients never need to reach the store. It does so in pieces: neither memory nor disk of the
server ever holds a whole file.
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

SIGNING = ("MultipartUploadMixin", "MultipartDownloadMixin", "PresignedUploadMixin")
# older releases write an upload to a file first, and know no such class
STREAMING = [getattr(artifact_repo, name) for name in ("StreamUploadMixin",) if hasattr(artifact_repo, name)]

# An upload holds one part that comes in and one that goes out; when there are more than these, others wait.
PART, UPLOADS = 8 * 1024 * 1024, 32
# S3 takes ten thousand parts. They grow by one PART with each thousand: enough for 430 GiB.
THOUSAND = 1000

# Backups of the database may lie beside the artifacts. They hold what no client may see, or delete.
BACKUPS = "mlflow-operator-backups"


def signing_methods():
    """Names of what only a repository that can sign URLs has."""
    mixins = [getattr(artifact_repo, name) for name in SIGNING if hasattr(artifact_repo, name)]
    found = (item for mixin in mixins for item in vars(mixin).items())
    return {name for name, value in found if callable(value) and not name.startswith("__")}


class Upload:
    """A file on its way into the store: at once, where it is small, else in parts."""

    def __init__(self, client, bucket, key, extra):
        self.client, self.extra = client, extra
        self.place = {"Bucket": bucket, "Key": key}
        self.parts, self.begun = [], {}

    def call(self, operation, **arguments):
        """Asks the store, with what of `extra` this operation takes."""
        known = self.client.meta.service_model.operation_model(operation).input_shape.members
        extra = {name: value for name, value in self.extra.items() if name in known}
        return getattr(self.client, xform_name(operation))(**extra, **self.place, **self.begun, **arguments)

    def enough(self):
        """How many bytes make the next part."""
        return PART * (1 + len(self.parts) // THOUSAND)

    def send(self, part):
        """Stores one part."""
        if not self.begun:
            self.begun = {"UploadId": self.call("CreateMultipartUpload")["UploadId"]}
        number = len(self.parts) + 1
        stored = self.call("UploadPart", PartNumber=number, Body=part)
        self.parts.append({"PartNumber": number, "ETag": stored["ETag"]})

    def finish(self, rest):
        """Stores what is left. Only now is there a file of that name."""
        if not self.begun:
            self.call("PutObject", Body=rest)
            return
        if rest:
            self.send(rest)
        self.call("CompleteMultipartUpload", MultipartUpload={"Parts": self.parts})

    def give_up(self):
        """Takes away the parts that are stored, as far as the store lets it."""
        if self.begun:
            with contextlib.suppress(ClientError, BotoCoreError):
                self.call("AbortMultipartUpload")


class ProxiedS3ArtifactRepository(ArtifactRepository, *STREAMING):
    """An S3 repository that hands every call to MLflow's own one, signing excepted."""

    def __init__(self, artifact_uri, *args, **kwargs):
        super().__init__(artifact_uri, *args, **kwargs)
        self.store = S3ArtifactRepository(artifact_uri, *args, **kwargs)
        self.uploads = asyncio.Semaphore(UPLOADS)

    # abstract in ArtifactRepository, so they must stand here; all else is forwarded below
    def log_artifact(self, local_file, artifact_path=None):
        return self.store.log_artifact(local_file, self.open_to_clients(artifact_path))

    def log_artifacts(self, local_dir, artifact_path=None):
        return self.store.log_artifacts(local_dir, self.open_to_clients(artifact_path))

    def list_artifacts(self, path=None):
        found = self.store.list_artifacts(self.open_to_clients(path))
        return [each for each in found if BACKUPS not in each.path.split("/")]

    def delete_artifacts(self, artifact_path=None):
        """Not all of the folder that the backups are in; older releases take for a part of a folder all that begins
        like it."""
        bucket, key = self.place(artifact_path or "")
        home, root = self.store.parse_s3_compliant_uri(
            os.environ.get("MLFLOW_ARTIFACTS_DESTINATION", "s3://")
        )
        if bucket == home and posixpath.join(root, BACKUPS).startswith(key.rstrip("/")):
            raise closed(key)
        return self.store.delete_artifacts(artifact_path)

    def log_artifact_from_stream(self, stream, artifact_file_name, artifact_path=None):
        """Stores what `stream` gives until its end; nothing, where reading from it fails."""
        upload = self.upload(artifact_file_name, artifact_path)
        try:
            while len(part := stream.read(upload.enough())) == upload.enough():
                upload.send(part)
            upload.finish(part)
        except BaseException:
            upload.give_up()
            raise

    async def log_artifact_from_async_stream(self, chunks, artifact_file_name, artifact_path=None):
        """The same for what comes in bit by bit, no faster than the store takes it."""
        async with self.uploads:
            upload, part, sending = self.upload(artifact_file_name, artifact_path), bytearray(), None
            try:
                async for chunk in chunks:
                    part += chunk
                    if len(part) >= upload.enough():
                        if sending:
                            await sending
                        sending = asyncio.ensure_future(asyncio.to_thread(upload.send, part))
                        part = bytearray()
                if sending:
                    await sending
                await asyncio.to_thread(upload.finish, part)
            except BaseException:
                # the client is gone, or the store: what was begun must not be there as if it were whole
                if sending:
                    await asyncio.wait([sending])
                await asyncio.to_thread(upload.give_up)
                raise

    def upload(self, artifact_file_name, artifact_path):
        """One that has not asked the store for anything yet."""
        bucket, key = self.place(posixpath.join(artifact_path or "", posixpath.basename(artifact_file_name)))
        kind, encoding = guess_type(artifact_file_name)
        named = {"ContentType": kind, "ContentEncoding": encoding}
        extra = {name: value for name, value in named.items() if value}
        extra |= self.owner() | (self.store.get_s3_file_upload_extra_args() or {})
        return Upload(self.store._get_s3_client(), bucket, key, extra)

    def opened(self, path):
        """The content of a file, to be read and closed, and its size."""
        bucket, key = self.place(path)
        try:
            found = self.store._get_s3_client().get_object(Bucket=bucket, Key=key, **self.owner())
        except ClientError as error:
            raise told(error, path) from error
        return found["Body"], found["ContentLength"]

    def place(self, path):
        """Bucket and key of a file."""
        bucket, root = self.store.parse_s3_compliant_uri(self.artifact_uri)
        key = posixpath.join(root, path)
        if BACKUPS in posixpath.normpath(key).split("/"):
            raise closed(key)
        return bucket, key

    def open_to_clients(self, path):
        """The path, if it leads to no backup."""
        self.place(path or "")
        return path

    def owner(self):
        """MLFLOW_S3_EXPECTED_BUCKET_OWNER, which older releases don't know."""
        return getattr(self.store, "_bucket_owner_params", {})

    def _download_file(self, remote_file_path, local_path):
        """As MLflow's own, but what is not there is told as that.

        Its own way becomes a 500, which clients try again for four minutes; and every `runs:/<run>/model` starts
        with a look for a file of that name, which models logged by MLflow 3 don't have.
        """
        try:
            return self.store._download_file(self.open_to_clients(remote_file_path), local_path)
        except ClientError as error:
            raise told(error, remote_file_path) from error


def closed(key):
    """What clients hear who ask for a backup."""
    return MlflowException(f"{key} is no artifact's place.", error_code=PERMISSION_DENIED)


def told(error, path):
    """What clients hear of a store's refusal."""
    if error.response.get("ResponseMetadata", {}).get("HTTPStatusCode") != 404:
        return error
    return MlflowException(f"There is no artifact {path}.", error_code=RESOURCE_DOES_NOT_EXIST)


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
