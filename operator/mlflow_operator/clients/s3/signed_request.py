"""Requests to what stores offer beside S3, signed as S3's are: on the event loop, with time-outs for all of them."""

import functools
import hashlib
import ssl
from dataclasses import dataclass, field

import aiohttp
from botocore.auth import SigV4Auth
from botocore.awsrequest import AWSRequest
from botocore.credentials import Credentials
from botocore.httpsession import get_cert_path
from yarl import URL

from mlflow_operator.clients.s3 import errors as s3_faults

_LIMIT = aiohttp.ClientTimeout(total=15, sock_connect=5, sock_read=10)
_LONGEST = 2**23
"""Bytes of an answer; a thousand policies take less than one MiB."""


@dataclass(frozen=True)
class AccessKey:
    """What a user of a store signs with."""

    id: str
    secret: str = field(repr=False)


@dataclass(frozen=True)
class Admin:
    """A key that may make users and policies, and the store it does. `ca_path` None means the public authorities.

    `kept` says in words which Secret holds the key.
    """

    endpoint: str
    key: AccessKey = field(repr=False)
    ca_path: str | None
    kept: str


@dataclass(frozen=True)
class Request:
    """What is sent. `path` begins with a slash and ends with the query, if there is one; both are encoded."""

    method: str
    path: str
    service: str
    body: bytes = b""
    content_type: str | None = None


async def send(admin: Admin, asked: Request, signed_by: AccessKey | None = None) -> tuple[int, bytes]:
    """Status and body of the answer. Signed by the administrator, unless `signed_by` somebody else.

    Raises UserMistake or NotReady where nothing answers.
    """
    url = f"{admin.endpoint}{asked.path}"
    headers = _signed(asked, url, signed_by or admin.key)
    try:
        async with (
            aiohttp.ClientSession(timeout=_LIMIT, trust_env=True) as session,
            session.request(
                asked.method,
                URL(url, encoded=True),
                data=asked.body or None,
                headers=headers,
                ssl=_trust(admin.ca_path) if admin.endpoint.startswith("https") else True,
                allow_redirects=False,
            ) as response,
        ):
            text = bytearray()
            async for part in response.content.iter_any():
                text += part
                if len(text) > _LONGEST:
                    break
            return response.status, bytes(text)
    except (aiohttp.ClientError, OSError, TimeoutError, ValueError) as error:
        raise s3_faults.unreachable(error, admin.endpoint) from None


def _signed(asked: Request, url: str, key: AccessKey) -> dict[str, str]:
    headers = {"X-Amz-Content-SHA256": hashlib.sha256(asked.body).hexdigest()}
    if asked.content_type:
        headers["Content-Type"] = asked.content_type
    request = AWSRequest(asked.method, url, headers, data=asked.body)
    SigV4Auth(Credentials(key.id, key.secret), asked.service, "us-east-1").add_auth(request)
    return dict(request.headers.items())


@functools.lru_cache(8)
def _trust(ca_path: str | None) -> ssl.SSLContext:
    """Each takes some milliseconds to read, and most servers of a cluster trust the same."""
    return ssl.create_default_context(cafile=ca_path or get_cert_path(True))
