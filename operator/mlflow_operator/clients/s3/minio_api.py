"""Client for MinIO's admin API. Requests are signed like S3's, contain JSON, and are encrypted if they contain secrets.

The maintained client (`minio` on PyPI) derives the encryption key with argon2id, which takes 64 MiB of memory per call:
half of what the whole operator uses. The server also accepts PBKDF2, which needs no memory. This module therefore
implements the few calls that the operator needs, on the event loop, each with a timeout.
"""

import hashlib
import json
import os
from dataclasses import dataclass
from typing import Any
from urllib.parse import quote, urlencode

from mlflow_operator.clients.s3.signed_request import (
    MAX_RESPONSE_BYTES,
    AccessKey,
    Admin,
    Request,
    SignedRequests,
)

_PBKDF2_ITERATIONS = 8192
_PBKDF2_AES_GCM = b"\x02"
_LAST_CHUNK = b"\x80"


@dataclass(frozen=True)
class AdminRequest:
    """Request to the admin API."""

    method: str
    command: str
    query: dict[str, str]
    body: bytes = b""
    max_response_bytes: int = MAX_RESPONSE_BYTES


@dataclass(frozen=True)
class AdminResponse:
    """Response of the admin API. `code` is the error code of a rejected request, otherwise empty."""

    status: int
    code: str
    content: Any = None

    @property
    def ok(self) -> bool:
        """Whether the request succeeded."""
        return self.status < 300


class MinioAPI:
    """Calls MinIO's admin API."""

    def __init__(self, requests: SignedRequests) -> None:
        self._requests = requests

    async def call(
        self, admin: Admin, request: AdminRequest, signed_by: AccessKey | None = None
    ) -> AdminResponse:
        """Send a request, signed by the administrator unless `signed_by` is another user.

        Raises ConfigurationError or TransientError if the store cannot be reached.
        """
        path = f"/minio/admin/v3/{request.command}?{urlencode(request.query, quote_via=quote)}"
        http_request = Request(
            request.method, path, "s3", request.body, max_response_bytes=request.max_response_bytes
        )
        return _parse_response(*await self._requests.send(admin, http_request, signed_by))


def encrypt_body(content: dict[str, Any], secret: str) -> bytes:
    """Return `content` as JSON, encrypted with the administrator's `secret`. Only the body of add-user needs this.

    The format is a single chunk of madmin-go's EncryptData. `content` must therefore be smaller than 16 KiB.
    """
    # Imported here because it takes 6 MiB, which the operator needs only if a server has an admin Secret.
    from cryptography.hazmat.primitives.ciphers.aead import AESGCM  # noqa: PLC0415

    salt, nonce = os.urandom(32), os.urandom(8)
    cipher = AESGCM(hashlib.pbkdf2_hmac("sha256", secret.encode(), salt, _PBKDF2_ITERATIONS, 32))
    header_tag = cipher.encrypt(nonce + (0).to_bytes(4, "little"), b"", None)
    chunk = cipher.encrypt(
        nonce + (1).to_bytes(4, "little"), json.dumps(content).encode(), _LAST_CHUNK + header_tag
    )
    return salt + _PBKDF2_AES_GCM + nonce + chunk


def _parse_response(status: int, text: bytes) -> AdminResponse:
    try:
        content = json.loads(text) if text else None
    except ValueError:
        content = None
    code = content.get("Code", "") if status >= 300 and isinstance(content, dict) else ""
    return AdminResponse(status, str(code), content)
