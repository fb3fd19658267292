"""Signed HTTP requests to the APIs that stores offer besides S3.

They run on the event loop, each with a total timeout, and a limited number per store and namespace at a time.
"""

import asyncio
import hashlib
from dataclasses import dataclass, field

import aiohttp
from botocore.auth import SigV4Auth
from botocore.awsrequest import AWSRequest
from botocore.credentials import Credentials

from mlflow_operator.clients.limits import STORE_LIMITS, Limiter
from mlflow_operator.clients.s3 import errors as s3_errors
from mlflow_operator.clients.s3.http_transport import HTTPRequest, HTTPTransport, ResponseTooLarge

MAX_RESPONSE_BYTES = 64 * 1024
"""Maximum size of a response about one user or policy, which a reconcile keeps until the store answers the next one."""

_TIMEOUT = aiohttp.ClientTimeout(total=15, sock_connect=5, sock_read=10)


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
    max_response_bytes: int = MAX_RESPONSE_BYTES


class SignedRequests:
    """Sends signed requests. The operator has one instance."""

    def __init__(self, timeout: aiohttp.ClientTimeout = _TIMEOUT) -> None:
        """`timeout.total` includes the wait for other requests to the store."""
        self._timeout = timeout
        self._limiter = Limiter(STORE_LIMITS)
        self._transport = HTTPTransport()

    async def send(
        self, admin: Admin, request: Request, signed_by: AccessKey | None = None
    ) -> tuple[int, bytes]:
        """Send a request, signed by the administrator unless `signed_by` is another user. Return status and body.

        Raises ConfigurationError or TransientError if the store cannot be reached or its response is too large.
        """
        url = f"{admin.endpoint}{request.path}"
        headers = _signed_headers(request, url, signed_by or admin.key)
        try:
            async with asyncio.timeout(self._timeout.total):
                end_request = await self._limiter.acquire(admin.endpoint)
                try:
                    response = await self._transport.send(
                        HTTPRequest(
                            request.method,
                            url,
                            headers,
                            request.body,
                            admin.ca_path,
                            max_response_bytes=request.max_response_bytes,
                        ),
                        self._timeout,
                    )
                finally:
                    end_request()
        except ResponseTooLarge:
            raise s3_errors.response_too_large(admin.endpoint) from None
        except (aiohttp.ClientError, OSError, ValueError) as error:
            raise s3_errors.unreachable(error, admin.endpoint) from None
        return response.status, response.body


def _signed_headers(request: Request, url: str, key: AccessKey) -> dict[str, str]:
    headers = {"X-Amz-Content-SHA256": hashlib.sha256(request.body).hexdigest()}
    if request.content_type:
        headers["Content-Type"] = request.content_type
    aws_request = AWSRequest(request.method, url, headers, data=request.body)
    SigV4Auth(Credentials(key.id, key.secret), request.service, "us-east-1").add_auth(aws_request)
    return dict(aws_request.headers.items())
