"""MinIO's admin API: signed as S3 is, with JSON instead of XML, and bodies that hold secrets encrypted.

The maintained client (`minio` on PyPI) derives the body's key by argon2id, for which it takes 64 MiB a call: half of
what the whole operator uses. The server takes PBKDF2 as well, which costs nothing; so here are the few calls that are
needed, on the event loop, with time-outs for all of them.
"""

import hashlib
import json
import os
from dataclasses import dataclass
from typing import Any
from urllib.parse import quote, urlencode

from mlflow_operator.clients.s3.signed_request import AccessKey, Admin, Request, send

_ROUNDS = 8192
_PBKDF2_AES_GCM = b"\x02"
_LAST = b"\x80"


@dataclass(frozen=True)
class AdminRequest:
    """One thing that is asked of a store."""

    method: str
    command: str
    query: dict[str, str]
    body: bytes = b""


@dataclass(frozen=True)
class AdminResponse:
    """`code` is the store's own word for why it refuses, empty where it does not."""

    status: int
    code: str
    content: Any = None

    @property
    def good(self) -> bool:
        """Whether it was done."""
        return self.status < 300


async def call(admin: Admin, asked: AdminRequest, signed_by: AccessKey | None = None) -> AdminResponse:
    """One call, as the administrator unless `signed_by` somebody else.

    Raises UserMistake or NotReady where nothing answers.
    """
    path = f"/minio/admin/v3/{asked.command}?{urlencode(asked.query, quote_via=quote)}"
    return _answer(*await send(admin, Request(asked.method, path, "s3", asked.body), signed_by))


def encrypt_body(content: dict[str, Any], secret: str) -> bytes:
    """`content` as JSON, encrypted by `secret`, the administrator's, as only AddUser's body has to be.

    One chunk of the format in madmin-go's EncryptData, so that `content` must stay below 16 KiB.
    """
    # 6 MiB that nobody needs who gives no admin Secret
    from cryptography.hazmat.primitives.ciphers.aead import AESGCM  # noqa: PLC0415

    salt, nonce = os.urandom(32), os.urandom(8)
    cipher = AESGCM(hashlib.pbkdf2_hmac("sha256", secret.encode(), salt, _ROUNDS, 32))
    about = cipher.encrypt(nonce + (0).to_bytes(4, "little"), b"", None)
    chunk = cipher.encrypt(nonce + (1).to_bytes(4, "little"), json.dumps(content).encode(), _LAST + about)
    return salt + _PBKDF2_AES_GCM + nonce + chunk


def _answer(status: int, text: bytes) -> AdminResponse:
    try:
        content = json.loads(text) if text else None
    except ValueError:
        content = None
    code = content.get("Code", "") if status >= 300 and isinstance(content, dict) else ""
    return AdminResponse(status, str(code), content)
