"""Async client for S3 stores: checks that a server can use its bucket, and creates and configures the bucket.

boto3 blocks, so it runs in a small thread pool. Its requests are sent on the event loop, where they have a total
timeout: with boto3's own timeouts per read, a store that answers byte by byte would keep the thread forever. Nothing is
retried here.
"""

import asyncio
import io
import threading
import time
from collections import OrderedDict
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from functools import partial
from typing import TYPE_CHECKING, Any, TypeVar

import aiohttp
import boto3
from botocore.awsrequest import AWSPreparedRequest, AWSResponse
from botocore.config import Config
from botocore.exceptions import BotoCoreError, ClientError

from mlflow_operator.clients.limits import STORE_LIMITS, ThreadPool
from mlflow_operator.clients.s3 import boto_session, bucket_contents, bucket_settings, content_md5
from mlflow_operator.clients.s3 import errors as s3_errors
from mlflow_operator.clients.s3.http_transport import HTTPRequest, HTTPTransport, ResponseTooLarge
from mlflow_operator.clients.ttl_cache import TTLCache
from mlflow_operator.kube.objects import Object
from mlflow_operator.model.server import BucketSettings
from mlflow_operator.status.conditions import Reason
from mlflow_operator.status.errors import ConfigurationError

if TYPE_CHECKING:
    from mypy_boto3_s3 import S3Client

T = TypeVar("T")

_MAX_CLIENTS, _MAX_CHECKED_BUCKETS = 64, 1024
_CLIENT_TTL_SECONDS = 300
"""Time after its last use when a client is discarded. Each holds 0.2 MiB; a client in use is used once a minute."""
_LOOP_DELAY_SECONDS = 5.0
"""Time that a busy event loop may need to end a request after its timeout."""
_MAX_THREADS = 64


@dataclass(frozen=True)
class Timeouts:
    """Timeouts in seconds.

    `connect` and `read` are those of a socket. `call` is that of a whole call with all of its requests: a slow DNS
    lookup, or threads that all wait for unresponsive stores, must not delay a reconcile further. The thread of a call
    ends with it.
    """

    connect: float = 5.0
    read: float = 10.0
    call: float = 20.0


@dataclass(frozen=True)
class Bucket:
    """Bucket and the parameters for connecting to its store. `endpoint` None means AWS.

    `field` is the spec field that configures the key, `key_secret` the Secret with it if the operator generated it.
    `prefix` is the server's part of the bucket, without leading or trailing slash; empty means the whole bucket.
    `upload_arguments` are those of boto3 for uploads, as JSON.
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
    upload_arguments: str = ""
    key_secret: str = ""

    def __repr__(self) -> str:
        """Return a representation without the keys, because it may be logged."""
        return f"Bucket({self.name} at {self.location})"

    @property
    def location(self) -> str:
        """Location of the store, for messages."""
        return self.endpoint or f"AWS S3 in {self.region}"

    @property
    def key_source(self) -> str:
        """Where the key is, for messages."""
        return f'Secret "{self.key_secret}"' if self.key_secret else f"the Secret referenced by {self.field}"

    @property
    def key_prefix(self) -> str:
        """Prefix of all object keys of the server, with a trailing slash; empty for the whole bucket."""
        return f"{self.prefix}/" if self.prefix else ""


class ObjectStores:
    """Client for all stores. It keeps boto3 clients between reconciles, because creating one takes about 10 ms."""

    def __init__(self, timeouts: Timeouts | None = None, page_size: int = bucket_contents.PAGE_SIZE) -> None:
        """`page_size`: number of object versions that one request deletes."""
        self._timeouts, self._page_size = timeouts or Timeouts(), page_size
        self._threads = ThreadPool(_MAX_THREADS, STORE_LIMITS, "s3")
        self._clients: TTLCache[Bucket, S3Client] = TTLCache(_MAX_CLIENTS, _CLIENT_TTL_SECONDS)
        self._checked: OrderedDict[Bucket, None] = OrderedDict()
        self._lock = threading.Lock()
        self._session: boto3.Session | None = None
        self._transport = HTTPTransport()
        # The call that the current thread runs. boto3 does not pass it on to its requests.
        self._current = threading.local()

    async def ensure_bucket(self, bucket: Bucket, create: bool) -> bool:
        """Check that the bucket exists and the prefix can be listed. Return whether the bucket was created just now.

        Raises ConfigurationError (access denied, or missing and `create` is False) or TransientError (no response).
        """
        return await self._run(self._ensure_bucket, bucket, create)

    async def check_access(self, bucket: Bucket) -> None:
        """Check that the key can write and read under the prefix, without leaving objects there.

        Each combination of key and bucket is checked once; later calls cost nothing. A permission that is revoked later
        shows up in the server's log. Errors as in `ensure_bucket`.
        """
        if bucket not in self._checked:
            await self._run(self._check_access, bucket)

    async def apply_settings(
        self, bucket: Bucket, settings: BucketSettings, rule_id: str, rule: Object | None
    ) -> None:
        """Apply versioning, encryption and lifecycle as far as `settings` configures them; write only differences.

        Errors as in `ensure_bucket`.
        """
        await self._run(self._apply_settings, bucket, settings, rule_id, rule)

    async def write_marker(self, bucket: Bucket, marker: str) -> None:
        """Write `marker` under the prefix if no object exists there. Errors as in `ensure_bucket`."""
        await self._run(self._write_marker, bucket, marker)

    async def read_marker(self, bucket: Bucket) -> str | None:
        """Return the marker, None if there is no marker or no bucket. Errors as in `ensure_bucket`."""
        return await self._run(self._read_marker, bucket)

    async def has_objects(self, bucket: Bucket) -> bool:
        """Return whether an object exists under the prefix. Errors as in `ensure_bucket`."""
        return await self._run(self._has_objects, bucket)

    async def delete_objects(self, bucket: Bucket) -> None:
        """Delete all objects under the prefix, including all versions and delete markers, page by page.

        The duration depends on the number of objects. After an interruption the next call continues. Errors as in
        `ensure_bucket`.
        """
        previous_first: str | None = ""
        while previous_first is not None:
            previous_first = await self._run(self._delete_page, bucket, previous_first)

    def close(self) -> None:
        """Shut the threads down without waiting for running calls."""
        self._threads.close()

    async def _run(self, task: Callable[..., T], bucket: Bucket, *args: Any) -> T:
        call = _Call(asyncio.get_running_loop(), time.monotonic() + self._timeouts.call)

        def run_task() -> T:
            self._current.call = call
            return task(bucket, *args)

        try:
            async with asyncio.timeout(self._timeouts.call):
                return await self._threads.run(bucket.location, run_task)
        except TimeoutError:
            raise s3_errors.timed_out(bucket.location) from None

    def _client(self, bucket: Bucket) -> "S3Client":
        # One client for all buckets of a key: servers that use the same administrator share its client.
        key = replace(bucket, name="", prefix="", field="", upload_arguments="", key_secret="")
        return self._clients.get_or_create(key, partial(self._create_client, bucket))

    def _create_client(self, bucket: Bucket) -> "S3Client":
        self._session = self._session or boto_session.session()
        # As in the pods, which get them as environment variables.
        checksums: Any = {}
        if bucket.endpoint:
            checksums = dict.fromkeys(
                ("request_checksum_calculation", "response_checksum_validation"), "when_required"
            )
        client = self._session.client(
            "s3",
            endpoint_url=bucket.endpoint,
            region_name=bucket.region,
            aws_access_key_id=bucket.access_key,
            aws_secret_access_key=bucket.secret_key,
            verify=bucket.ca_path,
            config=Config(
                retries={"total_max_attempts": 1},
                s3={"addressing_style": _boto_addressing_style(bucket.addressing_style)},
                **checksums,
            ),
        )
        if bucket.endpoint:
            content_md5.register(client)
        bucket_settings.record_unknown_elements(client)
        send: Any = partial(self._send, bucket.ca_path)
        client.meta.events.register("before-send.s3", send)
        return client

    def _send(self, ca_path: str | None, request: AWSPreparedRequest, **_: Any) -> AWSResponse:
        """Send a request of boto3, which calls this in the thread of the call instead of sending it itself."""
        call: _Call = self._current.call
        remaining = call.deadline - time.monotonic()
        if remaining <= 0:
            raise TimeoutError
        body = _body(request)
        response = asyncio.run_coroutine_threadsafe(
            self._transport.send(
                HTTPRequest(
                    request.method,
                    request.url,
                    _sent_headers(request),
                    body,
                    ca_path,
                    # Of an object, the operator uses the beginning only.
                    truncate=request.stream_output,
                ),
                aiohttp.ClientTimeout(
                    total=remaining, sock_connect=self._timeouts.connect, sock_read=self._timeouts.read
                ),
            ),
            call.loop,
        ).result(remaining + _LOOP_DELAY_SECONDS)
        headers: Any = response.headers
        return AWSResponse(request.url, response.status, headers, _RawBody(response.body))

    def _ensure_bucket(self, bucket: Bucket, create: bool) -> bool:
        with _TranslatedErrors(bucket, "s3:ListBucket") as errors:
            client = self._client(bucket)
            try:
                client.list_objects_v2(Bucket=bucket.name, Prefix=bucket.key_prefix, MaxKeys=1)
            except ClientError as error:
                if s3_errors.http_status(error) != 404:
                    raise
            else:
                return False
            if not create:
                raise ConfigurationError(
                    Reason.BUCKET_NOT_FOUND,
                    f'The bucket "{bucket.name}" does not exist at {bucket.location}, and '
                    "spec.artifacts.s3.bucketCreation is Never. Create it, or set bucketCreation to IfMissing.",
                )
            errors.set_action("s3:CreateBucket")
            client.create_bucket(**_create_bucket_arguments(bucket))
        return True

    def _check_access(self, bucket: Bucket) -> None:
        with _TranslatedErrors(bucket, "") as errors:
            bucket_contents.check_access(
                self._client(bucket),
                bucket.name,
                bucket.key_prefix,
                bucket.upload_arguments,
                errors.set_action,
            )
        with self._lock:
            self._checked[bucket] = None
            if len(self._checked) > _MAX_CHECKED_BUCKETS:
                self._checked.popitem(last=False)

    def _apply_settings(
        self, bucket: Bucket, settings: BucketSettings, rule_id: str, rule: Object | None
    ) -> None:
        with _TranslatedErrors(bucket, "") as errors:
            client = self._client(bucket)
            if settings.versioned:
                errors.set_action("s3:GetBucketVersioning and s3:PutBucketVersioning", "versioning")
                bucket_settings.ensure_versioning(client, bucket.name)
            if settings.encryption:
                errors.set_action(
                    "s3:GetEncryptionConfiguration and s3:PutEncryptionConfiguration", "encryption"
                )
                bucket_settings.ensure_encryption(client, bucket.name, settings)
            if settings.lifecycle:
                errors.set_action(
                    "s3:GetLifecycleConfiguration and s3:PutLifecycleConfiguration", "lifecycle"
                )
                bucket_settings.ensure_lifecycle_rule(client, bucket.name, rule_id, rule)

    def _write_marker(self, bucket: Bucket, marker: str) -> None:
        with _TranslatedErrors(bucket, "s3:ListBucket and s3:PutObject"):
            bucket_contents.write_marker(
                self._client(bucket), bucket.name, bucket.key_prefix, bucket.upload_arguments, marker
            )

    def _read_marker(self, bucket: Bucket) -> str | None:
        with _TranslatedErrors(bucket, "s3:GetObject"):
            return bucket_contents.read_marker(self._client(bucket), bucket.name, bucket.key_prefix)

    def _has_objects(self, bucket: Bucket) -> bool:
        with _TranslatedErrors(bucket, "s3:ListBucket"):
            return bucket_contents.has_objects(self._client(bucket), bucket.name, bucket.key_prefix)

    def _delete_page(self, bucket: Bucket, previous_first: str) -> str | None:
        with _TranslatedErrors(bucket, "s3:ListBucketVersions, s3:DeleteObject and s3:DeleteObjectVersion"):
            return bucket_contents.delete_page(
                self._client(bucket), bucket.name, bucket.key_prefix, previous_first, self._page_size
            )


@dataclass(frozen=True)
class _Call:
    """Running call: the event loop that sends its requests, and its end in seconds of the monotonic clock."""

    loop: asyncio.AbstractEventLoop
    deadline: float


class _RawBody(io.BytesIO):
    """Body of a response as boto3 reads it."""

    def stream(self) -> Iterator[bytes]:
        """Yield the rest of the body."""
        yield self.read()


def _body(request: AWSPreparedRequest) -> bytes:
    body: Any = request.body or b""
    if isinstance(body, str):
        return body.encode()
    return bytes(body if isinstance(body, bytes | bytearray) else body.read())


def _sent_headers(request: AWSPreparedRequest) -> dict[str, str]:
    """The headers of `request` for a body that is sent at once. The removed ones are not part of the signature."""
    headers = {
        name: value.decode() if isinstance(value, bytes) else str(value)
        for name, value in request.headers.items()
        if name.lower() not in {"expect", "transfer-encoding", "content-length"}
    }
    return {**headers, "Accept-Encoding": "identity"}


class _TranslatedErrors:
    """Context manager that translates boto3's exceptions into ReconcileErrors.

    `action` is the permission that the current request needs, `setting` the member of spec.artifacts.s3 that requires
    the request.
    """

    def __init__(self, bucket: Bucket, action: str) -> None:
        self._bucket = bucket
        self.action = action
        self.setting = ""

    def set_action(self, action: str, setting: str = "") -> None:
        """Set the permission and the setting of the next request."""
        self.action, self.setting = action, setting

    def __enter__(self) -> "_TranslatedErrors":
        return self

    def __exit__(self, kind: object, error: BaseException | None, trace: object) -> None:
        if isinstance(error, ClientError):
            raise s3_errors.from_client_error(error, self._bucket, self.action, self.setting) from None
        if isinstance(error, ResponseTooLarge):
            raise s3_errors.response_too_large(self._bucket.location) from None
        if isinstance(error, aiohttp.ClientError | BotoCoreError | ValueError | OSError):
            embedded = self._bucket.field.startswith("spec.artifacts.embedded")
            raise s3_errors.unreachable(error, self._bucket.location, embedded=embedded) from None


def _boto_addressing_style(name: str) -> Any:
    return name.lower()


def _create_bucket_arguments(bucket: Bucket) -> Any:
    # AWS rejects a LocationConstraint of us-east-1, and requires one in all other regions.
    if bucket.endpoint or bucket.region == "us-east-1":
        return {"Bucket": bucket.name}
    return {
        "Bucket": bucket.name,
        "CreateBucketConfiguration": {"LocationConstraint": bucket.region},
    }
