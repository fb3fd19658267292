"""Asks an S3 store whether a server can live in its bucket, and makes the bucket where that is asked for.

boto3 blocks, so it runs in a few threads of its own. Cancelling never stops a thread: only the sockets' own
time-outs end a call, which is why they are short and nothing is retried.
"""

import asyncio
import threading
from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import partial
from typing import TYPE_CHECKING, Any, TypeVar

import boto3
from botocore.config import Config
from botocore.exceptions import BotoCoreError, ClientError

from mlflow_operator.clients.limits import ThreadPool
from mlflow_operator.clients.s3 import boto_session, bucket_contents, bucket_settings
from mlflow_operator.clients.s3 import errors as s3_faults
from mlflow_operator.clients.ttl_cache import TTLCache
from mlflow_operator.kube.objects import Object
from mlflow_operator.model.server import BucketSettings
from mlflow_operator.status.conditions import Reason
from mlflow_operator.status.errors import ConfigurationError

if TYPE_CHECKING:
    from mypy_boto3_s3 import S3Client

T = TypeVar("T")

_CONNECT_SECONDS, _READ_SECONDS, _CLIENTS, _PROVED = 5, 10, 64, 1024
_UNUSED_SECONDS = 300
"""After which a client is let go: each holds 0.2 MiB, and every store of a server that is still there is asked once a
minute."""
_THREADS, _A_STORE = 32, 4
"""In all, and at most at one store, so that one that is silent leaves threads to the others."""

_CALL_SECONDS = 20
"""For the whole of a look: a name that takes long to resolve, or threads that all wait for stores that are away,
must not hold up a reconcile."""


@dataclass(frozen=True)
class Bucket:
    """A bucket and how to speak to its store. `endpoint` None is AWS. `field` is where the spec names the key.

    `prefix` is the server's part of it, without a slash at either end; empty is all of it.
    """

    endpoint: str | None
    region: str
    name: str
    addressing_style: str
    access_key: str
    secret_key: str
    ca_path: str | None
    field: str
    prefix: str = ""

    def __repr__(self) -> str:
        """Without the keys: this may land in a log."""
        return f"Bucket({self.name} at {self.place})"

    @property
    def place(self) -> str:
        """For people: where the store is."""
        return self.endpoint or f"AWS S3 in {self.region}"

    @property
    def folder(self) -> str:
        """What all keys of the server begin with."""
        return f"{self.prefix}/" if self.prefix else ""


class ObjectStores:
    """The clients of every store in use, kept between reconciles because each costs some 10 ms to make."""

    def __init__(self) -> None:
        self._threads = ThreadPool(_THREADS, _A_STORE, "s3")
        self._clients: TTLCache[Bucket, S3Client] = TTLCache(_CLIENTS, _UNUSED_SECONDS)
        self._proved: OrderedDict[Bucket, None] = OrderedDict()
        self._lock = threading.Lock()
        self._session: boto3.Session | None = None

    async def ensure_bucket(self, bucket: Bucket, create: bool) -> bool:
        """Sees to it that the bucket is there and may be listed under the prefix; returns whether it was made just now.

        Raises UserMistake (denied, missing and not to be made) or NotReady (no answer).
        """
        return await self._run(self._ensure, bucket, create)

    async def check_access(self, bucket: Bucket) -> None:
        """Tries once per key and place whether it may be written and read, and leaves nothing there; raises as
        `ensure`. To know costs nothing after that: a leave that is taken away later shows in the server's log."""
        if bucket not in self._proved:
            await self._run(self._prove, bucket)

    async def apply_settings(
        self, bucket: Bucket, settings: BucketSettings, rule_id: str, rule: Object | None
    ) -> None:
        """Sees to the bucket's versioning, encryption and lifecycle, where `settings` ask for any; writes only what
        differs. Raises as `ensure`."""
        await self._run(self._manage, bucket, settings, rule_id, rule)

    async def write_marker(self, bucket: Bucket, marker: str) -> None:
        """Leaves `marker` under the prefix where nothing else lies there. Raises as `ensure`."""
        await self._run(self._claim, bucket, marker)

    async def has_marker(self, bucket: Bucket) -> str | None:
        """The marker that `claim` left; None where there is none, or no bucket. Raises as `ensure`."""
        return await self._run(self._claimed, bucket)

    async def has_objects(self, bucket: Bucket) -> bool:
        """Whether anything lies under the prefix. Raises as `ensure`."""
        return await self._run(self._holds, bucket)

    async def delete_objects(self, bucket: Bucket) -> None:
        """Deletes everything under the prefix, with all versions and delete markers, page by page.

        It takes as long as there is to delete; cut off anywhere, it goes on when called again. Raises as `ensure`.
        """
        before: str | None = ""
        while before is not None:
            before = await self._run(self._empty_page, bucket, before)

    def close(self) -> None:
        """Lets go of the threads without waiting for calls under way."""
        self._threads.close()

    async def _run(self, task: Callable[..., T], bucket: Bucket, *args: Any) -> T:
        try:
            async with asyncio.timeout(_CALL_SECONDS):
                return await self._threads.run(bucket.place, partial(task, bucket, *args))
        except TimeoutError:
            raise s3_faults.silent(bucket.place) from None

    def _client(self, bucket: Bucket) -> "S3Client":
        # one for all that a key opens: an administrator's is the same for every server
        return self._clients.get(replace(bucket, name="", prefix="", field=""), partial(self._made, bucket))

    def _made(self, bucket: Bucket) -> "S3Client":
        self._session = self._session or boto_session.session()
        client = self._session.client(
            "s3",
            endpoint_url=bucket.endpoint,
            region_name=bucket.region,
            aws_access_key_id=bucket.access_key,
            aws_secret_access_key=bucket.secret_key,
            verify=bucket.ca_path,
            config=Config(
                connect_timeout=_CONNECT_SECONDS,
                read_timeout=_READ_SECONDS,
                retries={"total_max_attempts": 1},
                max_pool_connections=1,
                s3={"addressing_style": _style(bucket.addressing_style)},
            ),
        )
        bucket_settings.watch(client)
        return client

    def _ensure(self, bucket: Bucket, create: bool) -> bool:
        with _Speaking(bucket, "s3:ListBucket") as speaking:
            client = self._client(bucket)
            try:
                client.list_objects_v2(Bucket=bucket.name, Prefix=bucket.folder, MaxKeys=1)
            except ClientError as error:
                if s3_faults.status(error) != 404:
                    raise
            else:
                return False
            if not create:
                raise ConfigurationError(
                    Reason.BUCKET_NOT_FOUND,
                    f'The bucket "{bucket.name}" does not exist at {bucket.place}, and '
                    "spec.artifacts.s3.bucketCreation is Never. Create it, or set bucketCreation to IfMissing.",
                )
            speaking.about("s3:CreateBucket")
            client.create_bucket(**_creation(bucket))
        return True

    def _prove(self, bucket: Bucket) -> None:
        with _Speaking(bucket, "") as speaking:
            bucket_contents.check_access(self._client(bucket), bucket.name, bucket.folder, speaking.about)
        with self._lock:
            self._proved[bucket] = None
            if len(self._proved) > _PROVED:
                self._proved.popitem(last=False)

    def _manage(self, bucket: Bucket, settings: BucketSettings, rule_id: str, rule: Object | None) -> None:
        with _Speaking(bucket, "") as speaking:
            client = self._client(bucket)
            if settings.versioned:
                speaking.about("s3:GetBucketVersioning and s3:PutBucketVersioning", "versioning")
                bucket_settings.versioning(client, bucket.name)
            if settings.encryption:
                speaking.about(
                    "s3:GetEncryptionConfiguration and s3:PutEncryptionConfiguration", "encryption"
                )
                bucket_settings.encryption(client, bucket.name, settings)
            if settings.lifecycle:
                speaking.about("s3:GetLifecycleConfiguration and s3:PutLifecycleConfiguration", "lifecycle")
                bucket_settings.lifecycle(client, bucket.name, rule_id, rule)

    def _claim(self, bucket: Bucket, marker: str) -> None:
        with _Speaking(bucket, "s3:ListBucket and s3:PutObject"):
            bucket_contents.write_marker(self._client(bucket), bucket.name, bucket.folder, marker)

    def _claimed(self, bucket: Bucket) -> str | None:
        with _Speaking(bucket, "s3:GetObject"):
            return bucket_contents.has_marker(self._client(bucket), bucket.name, bucket.folder)

    def _holds(self, bucket: Bucket) -> bool:
        with _Speaking(bucket, "s3:ListBucket"):
            return bucket_contents.has_objects(self._client(bucket), bucket.name, bucket.folder)

    def _empty_page(self, bucket: Bucket, before: str) -> str | None:
        with _Speaking(bucket, "s3:ListBucketVersions, s3:DeleteObject and s3:DeleteObjectVersion"):
            return bucket_contents.delete_page(self._client(bucket), bucket.name, bucket.folder, before)


class _Speaking:
    """Turns what boto3 raises into faults. `action` is what the key needs for what is under way; `setting` the member
    of spec.artifacts.s3 that asks for it."""

    def __init__(self, bucket: Bucket, action: str) -> None:
        self._bucket = bucket
        self.action = action
        self.setting = ""

    def about(self, action: str, setting: str = "") -> None:
        """What comes next."""
        self.action, self.setting = action, setting

    def __enter__(self) -> "_Speaking":
        return self

    def __exit__(self, kind: object, error: BaseException | None, trace: object) -> None:
        if isinstance(error, ClientError):
            raise s3_faults.from_client_error(error, self._bucket, self.action, self.setting) from None
        if isinstance(error, BotoCoreError | ValueError | OSError):
            raise s3_faults.unreachable(error, self._bucket.place) from None


def _style(name: str) -> Any:
    return name.lower()


def _creation(bucket: Bucket) -> Any:
    # AWS refuses us-east-1 as a constraint, and elsewhere refuses its absence
    if bucket.endpoint or bucket.region == "us-east-1":
        return {"Bucket": bucket.name}
    return {
        "Bucket": bucket.name,
        "CreateBucketConfiguration": {"LocationConstraint": bucket.region},
    }
