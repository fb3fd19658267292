"""Signed HTTP requests to the APIs that stores offer besides S3. They run on the event loop, each with a timeout."""

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

from mlflow_operator.clients.s3 import errors as s3_errors

_TIMEOUT = aiohttp.ClientTimeout(total=15, sock_connect=5, sock_read=10)
_MAX_SSL_CONTEXTS = 8
_MAX_RESPONSE_BYTES = 2**23
"""A response with a thousand policies is smaller than 1 MiB."""


@dataclass(frozen=True)
class AccessKey:
    """Access key of a user of a store."""

    id: str
    secret: str = field(repr=False)


@dataclass(frozen=True)
class Admin:
    """Store and an access key that can manage its users and policies. `ca_path` None means the public CAs.

    `key_source` is the Secret of the key, as text for messages.
    """

    endpoint: str
    key: AccessKey = field(repr=False)
    ca_path: str | None
    key_source: str


@dataclass(frozen=True)
class Request:
    """HTTP request. `path` begins with a slash and includes the query; both are URL-encoded. `service`: as in SigV4."""

    method: str
    path: str
    service: str
    body: bytes = b""
    content_type: str | None = None


class SignedRequests:
    """Sends signed requests. The operator has one instance, which caches the TLS settings of the last stores."""

    def __init__(self, timeout: aiohttp.ClientTimeout = _TIMEOUT) -> None:
        self._timeout = timeout
        # Loading CA certificates takes some milliseconds, and most servers use the same ones.
        self._ssl_context = functools.lru_cache(_MAX_SSL_CONTEXTS)(_create_ssl_context)

    async def send(
        self, admin: Admin, request: Request, signed_by: AccessKey | None = None
    ) -> tuple[int, bytes]:
        """Send a request, signed by the administrator unless `signed_by` is another user. Return status and body.

        Raises ConfigurationError or TransientError if the store cannot be reached.
        """
        url = f"{admin.endpoint}{request.path}"
        headers = _signed_headers(request, url, signed_by or admin.key)
        try:
            async with (
                aiohttp.ClientSession(timeout=self._timeout, trust_env=True) as session,
                session.request(
                    request.method,
                    URL(url, encoded=True),
                    data=request.body or None,
                    headers=headers,
                    ssl=self._ssl_context(admin.ca_path) if admin.endpoint.startswith("https") else True,
                    allow_redirects=False,
                ) as response,
            ):
                text = bytearray()
                async for part in response.content.iter_any():
                    text += part
                    if len(text) > _MAX_RESPONSE_BYTES:
                        break
                return response.status, bytes(text)
        except (aiohttp.ClientError, OSError, TimeoutError, ValueError) as error:
            raise s3_errors.unreachable(error, admin.endpoint) from None


def _signed_headers(request: Request, url: str, key: AccessKey) -> dict[str, str]:
    headers = {"X-Amz-Content-SHA256": hashlib.sha256(request.body).hexdigest()}
    if request.content_type:
        headers["Content-Type"] = request.content_type
    aws_request = AWSRequest(request.method, url, headers, data=request.body)
    SigV4Auth(Credentials(key.id, key.secret), request.service, "us-east-1").add_auth(aws_request)
    return dict(aws_request.headers.items())


def _create_ssl_context(ca_path: str | None) -> ssl.SSLContext:
    return ssl.create_default_context(cafile=ca_path or get_cert_path(True))
