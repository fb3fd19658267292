"""MinIO's admin API: signed as S3 is, with JSON instead of XML, and bodies that hold secrets encrypted.

The maintained client (`minio` on PyPI) derives the body's key by argon2id, for which it takes 64 MiB a call: half of
what the whole operator uses. The server takes PBKDF2 as well, which costs nothing; so here are the few calls that are
needed, on the event loop, with time-outs for all of them.
"""

import functools
import hashlib
import json
import os
import ssl
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import quote, urlencode

import aiohttp
from botocore.auth import SigV4Auth
from botocore.awsrequest import AWSRequest
from botocore.credentials import Credentials
from botocore.httpsession import get_cert_path
from yarl import URL

from mlflow_operator.providers import s3_faults

_LIMIT = aiohttp.ClientTimeout(total=15, sock_connect=5, sock_read=10)
_ROUNDS = 8192
_PBKDF2_AES_GCM = b"\x02"
_LAST = b"\x80"
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

    `field` is where the spec names the key's Secret.
    """

    endpoint: str
    key: AccessKey = field(repr=False)
    ca_path: str | None
    field: str


@dataclass(frozen=True)
class Call:
    """One thing that is asked of a store."""

    method: str
    command: str
    query: dict[str, str]
    body: bytes = b""


@dataclass(frozen=True)
class Answer:
    """`code` is the store's own word for why it refuses, empty where it does not."""

    status: int
    code: str
    content: Any = None

    @property
    def good(self) -> bool:
        """Whether it was done."""
        return self.status < 300


async def call(admin: Admin, asked: Call, signed_by: AccessKey | None = None) -> Answer:
    """One call, as the administrator unless `signed_by` somebody else.

    Raises UserMistake or NotReady where nothing answers.
    """
    query = urlencode(asked.query, quote_via=quote)
    url = f"{admin.endpoint}/minio/admin/v3/{asked.command}?{query}"
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
            return _answer(response.status, bytes(text))
    except (aiohttp.ClientError, OSError, TimeoutError, ValueError) as error:
        raise s3_faults.unreachable(error, admin.endpoint) from None


def sealed(content: dict[str, Any], secret: str) -> bytes:
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


def _signed(asked: Call, url: str, key: AccessKey) -> dict[str, str]:
    digest = {"X-Amz-Content-SHA256": hashlib.sha256(asked.body).hexdigest()}
    request = AWSRequest(asked.method, url, digest, data=asked.body)
    SigV4Auth(Credentials(key.id, key.secret), "s3", "us-east-1").add_auth(request)
    return dict(request.headers.items())


def _answer(status: int, text: bytes) -> Answer:
    try:
        content = json.loads(text) if text else None
    except ValueError:
        content = None
    code = content.get("Code", "") if status >= 300 and isinstance(content, dict) else ""
    return Answer(status, str(code), content)


@functools.lru_cache(8)
def _trust(ca_path: str | None) -> ssl.SSLContext:
    """Each takes some milliseconds to read, and most servers of a cluster trust the same."""
    return ssl.create_default_context(cafile=ca_path or get_cert_path(True))
