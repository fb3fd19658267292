"""Requests to MinIO's admin API, and the errors for its responses."""

import hashlib
import json
from collections.abc import Awaitable, Callable

import pytest
from aiohttp import web
from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

from mlflow_operator.clients.s3.minio_admin import MinioAdmin
from mlflow_operator.clients.s3.minio_api import encrypt_body
from mlflow_operator.clients.s3.signed_request import AccessKey, Admin, SignedRequests
from mlflow_operator.status.conditions import Reason
from mlflow_operator.status.errors import ConfigurationError, ReconcileError, TransientError
from tests.unit.clients.s3.conftest import StartServer

USER = AccessKey("USERKEY", "secret-of-the-user")
Store = Callable[[int, bytes], Awaitable[Admin]]


@pytest.fixture
def store(start_server: StartServer) -> Store:
    """A fake store that sends the same response to all requests."""

    async def start(status: int, body: bytes) -> Admin:
        async def respond(_: web.Request) -> web.Response:
            return web.Response(status=status, body=body)

        return admin(await start_server(respond))

    return start


def admin(endpoint: str) -> Admin:
    """The administrator of the store at `endpoint`."""
    return Admin(endpoint, AccessKey("root", "hunter2-hunter2"), None, "spec.artifacts.s3.adminSecretRef")


async def ensure_user(admin: Admin) -> None:
    """Create or update `USER` with an empty policy."""
    await MinioAdmin(SignedRequests()).ensure_user(admin, USER, "name", {})


def decrypt(data: bytes, secret: str) -> bytes:
    """Decrypt as MinIO does: salt, algorithm, nonce, then one chunk that is marked as the last."""
    salt, algorithm, nonce, chunk = data[:32], data[32], data[33:41], data[41:]
    assert algorithm == 2
    cipher = AESGCM(hashlib.pbkdf2_hmac("sha256", secret.encode(), salt, 8192, 32))
    header = cipher.encrypt(nonce + b"\0\0\0\0", b"", None)
    return cipher.decrypt(nonce + b"\1\0\0\0", chunk, b"\x80" + header)


def test_user_secret_is_encrypted_with_administrator_secret() -> None:
    data = encrypt_body({"secretKey": "s3cret"}, "hunter2")
    assert b"s3cret" not in data
    assert json.loads(decrypt(data, "hunter2")) == {"secretKey": "s3cret"}
    with pytest.raises(InvalidTag):
        decrypt(data, "hunter3")


def test_each_body_has_its_own_salt_and_nonce() -> None:
    assert encrypt_body({"a": 1}, "hunter2")[:41] != encrypt_body({"a": 1}, "hunter2")[:41]


def test_secrets_are_not_in_repr() -> None:
    text = f"{admin('http://store')!r} {USER!r}"
    assert "hunter2" not in text
    assert USER.secret not in text


async def test_clock_skew_is_reported(store: Store) -> None:
    """With a fake store, because a real one would share this machine's clock."""
    fake_store = await store(403, b'{"Code": "RequestTimeTooSkewed", "Message": "too large"}')
    with pytest.raises(ConfigurationError) as error:
        await ensure_user(fake_store)
    assert "clocks" in error.value.message


async def test_server_error_is_transient(store: Store) -> None:
    with pytest.raises(TransientError) as error:
        await ensure_user(await store(503, b'{"Code": "XMinioServerNotInitialized"}'))
    assert error.value.reason is Reason.ARTIFACT_STORE_UNREACHABLE


@pytest.mark.parametrize("body", [b"", b"<Error><Code>NoSuchKey</Code></Error>", b"[]", b"\xff"])
async def test_store_without_admin_api_is_reported(store: Store, body: bytes) -> None:
    """SeaweedFS, Ceph and AWS take the requests for objects in a bucket named minio."""
    with pytest.raises(ConfigurationError) as error:
        await ensure_user(await store(404, body))
    assert "credentialsSecretRef" in error.value.message


@pytest.mark.parametrize(
    ("status", "body"),
    [(404, b'{"Code": "XMinioAdminNoSuchPolicy"}'), (200, b'{"Version": "2012-10-17", "Statement": []}')],
)
async def test_administrator_who_may_read_policies_passes_the_check(
    store: Store, status: int, body: bytes
) -> None:
    """MinIO answers that the policy does not exist."""
    await MinioAdmin(SignedRequests()).check(await store(status, body))


@pytest.mark.parametrize(
    ("status", "body", "reason", "message"),
    [
        (403, b'{"Code": "AccessDenied"}', Reason.PROVISIONING_DENIED, "Grant it admin:CreateUser"),
        (403, b'{"Code": "InvalidAccessKeyId"}', Reason.PROVISIONING_DENIED, "does not know"),
        (403, b'{"Code": "SignatureDoesNotMatch"}', Reason.PROVISIONING_DENIED, "rejects the administrator"),
        (404, b"<Error><Code>NoSuchKey</Code></Error>", Reason.PROVISIONING_DENIED, "is not MinIO"),
        (503, b"", Reason.ARTIFACT_STORE_UNREACHABLE, "HTTP 503"),
    ],
)
async def test_administrator_without_access_fails_the_check(
    store: Store, status: int, body: bytes, reason: Reason, message: str
) -> None:
    with pytest.raises(ReconcileError) as error:
        await MinioAdmin(SignedRequests()).check(await store(status, body))
    assert error.value.reason is reason
    assert message in error.value.message


async def test_unreachable_store_is_transient_error() -> None:
    with pytest.raises(TransientError) as error:
        await ensure_user(admin("http://127.0.0.1:1"))
    assert error.value.reason is Reason.ARTIFACT_STORE_UNREACHABLE
