"""What is sent to MinIO's admin API, and what its answers and its silence become."""

import hashlib
import json
from collections.abc import AsyncIterator, Awaitable, Callable

import pytest
from aiohttp import web
from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

from mlflow_operator.clients.s3.minio_admin import ensure_user
from mlflow_operator.clients.s3.minio_api import encrypt_body
from mlflow_operator.clients.s3.signed_request import AccessKey, Admin
from mlflow_operator.status.conditions import Reason
from mlflow_operator.status.errors import ConfigurationError, TransientError

USER = AccessKey("USERKEY", "a-secret-of-its-own")
Store = Callable[[int, bytes], Awaitable[Admin]]


@pytest.fixture
async def store() -> AsyncIterator[Store]:
    """A store that gives everybody the same answer."""
    runners = []

    async def start(status: int, body: bytes) -> Admin:
        async def answer(_: web.Request) -> web.Response:
            return web.Response(status=status, body=body)

        app = web.Application()
        app.router.add_route("*", "/{tail:.*}", answer)
        runner = web.AppRunner(app)
        await runner.setup()
        runners.append(runner)
        site = web.TCPSite(runner, "127.0.0.1", 0)
        await site.start()
        return admin(f"http://127.0.0.1:{runner.addresses[0][1]}")

    yield start
    for runner in runners:
        await runner.cleanup()


def admin(endpoint: str) -> Admin:
    """An administrator of the store at `endpoint`."""
    return Admin(endpoint, AccessKey("root", "hunter2-hunter2"), None, "spec.artifacts.s3.adminSecretRef")


def opened(data: bytes, secret: str) -> bytes:
    """As a MinIO opens it: salt, algorithm, nonce, then one chunk that is marked as the last."""
    salt, algorithm, nonce, chunk = data[:32], data[32], data[33:41], data[41:]
    assert algorithm == 2
    cipher = AESGCM(hashlib.pbkdf2_hmac("sha256", secret.encode(), salt, 8192, 32))
    header = cipher.encrypt(nonce + b"\0\0\0\0", b"", None)
    return cipher.decrypt(nonce + b"\1\0\0\0", chunk, b"\x80" + header)


def test_a_new_users_secret_is_read_by_the_administrators_alone() -> None:
    data = encrypt_body({"secretKey": "s3cret"}, "hunter2")
    assert b"s3cret" not in data
    assert json.loads(opened(data, "hunter2")) == {"secretKey": "s3cret"}
    with pytest.raises(InvalidTag):
        opened(data, "hunter3")


def test_no_two_bodies_are_sealed_alike() -> None:
    assert encrypt_body({"a": 1}, "hunter2")[:41] != encrypt_body({"a": 1}, "hunter2")[:41]


def test_neither_key_shows_in_what_may_be_logged() -> None:
    shown = f"{admin('http://store')!r} {USER!r}"
    assert "hunter2" not in shown
    assert USER.secret not in shown


async def test_clocks_that_differ_are_named_as_the_cause(store: Store) -> None:
    """A fake, for the real one's clock is this machine's."""
    answer = await store(403, b'{"Code": "RequestTimeTooSkewed", "Message": "too large"}')
    with pytest.raises(ConfigurationError) as told:
        await ensure_user(answer, USER, "name", {})
    assert "clocks" in told.value.message


async def test_a_store_that_fails_is_asked_again(store: Store) -> None:
    with pytest.raises(TransientError) as told:
        await ensure_user(await store(503, b'{"Code": "XMinioServerNotInitialized"}'), USER, "name", {})
    assert told.value.reason is Reason.ARTIFACT_STORE_UNREACHABLE


@pytest.mark.parametrize("body", [b"", b"<Error><Code>NoSuchKey</Code></Error>", b"[]", b"\xff"])
async def test_what_is_no_minio_gets_the_way_out(store: Store, body: bytes) -> None:
    """SeaweedFS, Ceph and AWS take the calls for objects of a bucket called minio."""
    with pytest.raises(ConfigurationError) as told:
        await ensure_user(await store(404, body), USER, "name", {})
    assert "credentialsSecretRef" in told.value.message


async def test_a_store_that_is_away_is_not_ready() -> None:
    with pytest.raises(TransientError) as told:
        await ensure_user(admin("http://127.0.0.1:1"), USER, "name", {})
    assert told.value.reason is Reason.ARTIFACT_STORE_UNREACHABLE
