"""Asks an S3 store whether the bucket is there, and makes it where that is asked for.

boto3 blocks, so it runs in a few threads of its own. Cancelling never stops a thread: only the sockets' own
time-outs end a call, which is why they are short and nothing is retried.
"""

import asyncio
import threading
from collections import OrderedDict
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Any

import boto3
from botocore.config import Config
from botocore.exceptions import BotoCoreError, ClientError

from mlflow_operator.core.conditions import Reason
from mlflow_operator.core.faults import Fault, NotReady, UserMistake
from mlflow_operator.providers import aws_data, s3_faults
from mlflow_operator.providers.turns import Threads

if TYPE_CHECKING:
    from mypy_boto3_s3 import S3Client

_CONNECT_SECONDS, _READ_SECONDS, _CLIENTS = 5, 10, 64
_THREADS, _A_STORE = 32, 4
"""In all, and at most at one store, so that one that is silent leaves threads to the others."""

_CALL_SECONDS = 20
"""For the whole of a look: a name that takes long to resolve, or threads that all wait for stores that are away,
must not hold up a reconcile."""


@dataclass(frozen=True)
class Bucket:
    """A bucket and how to speak to its store. `endpoint` None is AWS. `field` is where the spec names it."""

    endpoint: str | None
    region: str
    name: str
    addressing_style: str
    access_key: str
    secret_key: str
    ca_path: str | None
    field: str

    def __repr__(self) -> str:
        """Without the keys: this may land in a log."""
        return f"Bucket({self.name} at {self.place})"

    @property
    def place(self) -> str:
        """For people: where the store is."""
        return self.endpoint or f"AWS S3 in {self.region}"


class ObjectStores:
    """The clients of every store in use, kept between reconciles because each costs some 10 ms to make."""

    def __init__(self) -> None:
        self._threads = Threads(_THREADS, _A_STORE, "s3")
        self._clients: OrderedDict[Bucket, S3Client] = OrderedDict()
        self._lock = threading.Lock()
        self._session: boto3.Session | None = None

    async def ensure(self, bucket: Bucket, create: bool) -> bool:
        """Sees to it that the bucket is there; returns whether it was made just now.

        Raises UserMistake (denied, missing and not to be made) or NotReady (no answer).
        """
        try:
            async with asyncio.timeout(_CALL_SECONDS):
                return await self._threads.run(bucket.place, partial(self._ensure, bucket, create))
        except TimeoutError:
            raise s3_faults.silent(bucket.place) from None

    def close(self) -> None:
        """Lets go of the threads without waiting for calls under way."""
        self._threads.close()

    def _client(self, bucket: Bucket) -> "S3Client":
        with self._lock:
            if bucket in self._clients:
                self._clients.move_to_end(bucket)
                return self._clients[bucket]
            self._session = self._session or aws_data.session()
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
            self._clients[bucket] = client
            if len(self._clients) > _CLIENTS:
                self._clients.popitem(last=False)
            return client

    def _ensure(self, bucket: Bucket, create: bool) -> bool:
        try:
            client = self._client(bucket)
            try:
                client.head_bucket(Bucket=bucket.name)
            except ClientError as error:
                if _status(error) != 404:
                    raise
            else:
                return False
            if not create:
                raise UserMistake(
                    Reason.BUCKET_NOT_FOUND,
                    f'The bucket "{bucket.name}" does not exist at {bucket.place}, and '
                    "spec.artifacts.s3.bucketCreation is Never. Create it, or set bucketCreation to IfMissing.",
                )
            client.create_bucket(**_creation(bucket))
        except ClientError as error:
            raise _refusal(error, bucket) from None
        except (BotoCoreError, ValueError, OSError) as error:
            raise s3_faults.unreachable(error, bucket.place) from None
        return True


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


def _status(error: ClientError) -> int:
    return int(error.response.get("ResponseMetadata", {}).get("HTTPStatusCode", 0))


def _refusal(error: ClientError, bucket: Bucket) -> Fault:
    code, status = str(error.response.get("Error", {}).get("Code", "")), _status(error)
    if code == "BucketAlreadyOwnedByYou":
        return NotReady(Reason.PROGRESSING, f'The bucket "{bucket.name}" is being made.')
    if code == "BucketAlreadyExists":
        return UserMistake(
            Reason.BUCKET_ACCESS_DENIED,
            f'The bucket "{bucket.name}" at {bucket.place} belongs to another account. '
            "Choose another name in spec.artifacts.s3.bucket.",
        )
    if status in {401, 403}:
        return UserMistake(
            Reason.BUCKET_ACCESS_DENIED,
            f'The store at {bucket.place} denies access to the bucket "{bucket.name}". Check the keys in the '
            f"Secret that {bucket.field} names, and that they may list, read, write and create it.",
        )
    if status in {301, 307, 400}:
        return UserMistake(
            Reason.BUCKET_ACCESS_DENIED,
            f'The store at {bucket.place} refuses the request for the bucket "{bucket.name}" (HTTP {status}). '
            "Check spec.artifacts.s3.region, addressingStyle, and that endpoint has the right scheme.",
        )
    return NotReady(
        Reason.ARTIFACT_STORE_UNREACHABLE,
        f"The artifact store at {bucket.place} answers HTTP {status}. It is asked again shortly.",
    )
