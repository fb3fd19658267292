"""A real Postgres and a real MinIO behind lines that are slow, fall silent or tear: told, and mended by themselves.

Of the time-outs only the length is another.
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace

import pytest

from mlflow_operator.clients.postgres import session as postgres_session
from mlflow_operator.clients.postgres.client import inspect
from mlflow_operator.clients.s3 import client as s3
from mlflow_operator.clients.s3 import minio_api, signed_request
from mlflow_operator.clients.s3.client import ObjectStores
from mlflow_operator.clients.s3.minio_api import AdminRequest
from mlflow_operator.clients.s3.signed_request import Admin
from mlflow_operator.model.postgres_uri import Connection
from mlflow_operator.status.conditions import Reason
from mlflow_operator.status.errors import TransientError
from tests.contracts.conftest import PINS
from tests.contracts.minio import ROOT, Store
from tests.contracts.postgres import Instance
from tests.contracts.proxies import toxiproxy
from tests.e2e.toxiproxy import Way

pytestmark = pytest.mark.long_running(
    reason="each waits for time-outs; tests/unit/clients/test_timeouts.py holds the same sentences to sockets"
)

FIELD = "spec.database.external.host"
SILENT, TORN = "does not answer in time", "can't be reached"
SLOW_MS, LIMIT = 4000, 2.0

Spoil = Callable[[Way], None]
SPOILT: dict[str, tuple[Spoil, str]] = {
    "silent": (Way.silent, SILENT),
    "slow": (lambda way: way.slow(SLOW_MS), SILENT),
    "torn": (Way.torn, TORN),
}


@dataclass(frozen=True)
class Line:
    """To both stores."""

    base: Way
    files: Way
    database: Connection
    store: Store


@pytest.fixture(scope="module")
def both(instance: Instance, store: Store, test_images: None) -> Iterator[Line]:
    """By one Toxiproxy."""
    if not instance.container:
        pytest.skip("the Postgres is none of ours, so nothing can be put before it")
    with toxiproxy(PINS["IMAGE_TOXIPROXY"], instance.container, store.container) as found:
        base, files, database, endpoint = found
        known = replace(database, database="postgres", username=instance.user, password=instance.password)
        yield Line(base, files, known, replace(store, endpoint=endpoint))


@pytest.fixture
def line(both: Line, monkeypatch: pytest.MonkeyPatch) -> Iterator[Line]:
    """As good as new, before and after."""
    monkeypatch.setattr(postgres_session, "_CONNECT_SECONDS", LIMIT)
    monkeypatch.setattr(s3, "_CONNECT_SECONDS", LIMIT)
    monkeypatch.setattr(s3, "_READ_SECONDS", LIMIT)
    monkeypatch.setattr(signed_request, "_LIMIT", signed_request._LIMIT.__class__(total=LIMIT))
    yield both
    both.base.mended()
    both.files.mended()


@pytest.mark.parametrize("how", SPOILT)
async def test_a_database_behind_a_bad_line_is_told_and_mends(line: Line, how: str) -> None:
    """Nothing is left over that would spoil the next look."""
    spoil, words = SPOILT[how]
    spoil(line.base)
    with pytest.raises(TransientError) as told:
        await inspect(line.database, None, FIELD)
    assert told.value.reason is Reason.DATABASE_UNREACHABLE
    assert words in told.value.message
    line.base.mended()
    assert (await inspect(line.database, None, FIELD)).encoding == "UTF8"


async def test_a_database_that_falls_silent_amid_a_session_is_told(line: Line) -> None:
    """Half-open: the connection stays, and nothing comes any more."""

    async def ask() -> None:
        async with postgres_session.session(line.database, None, FIELD, LIMIT) as session:
            assert await postgres_session.one(session, "SELECT 1") == "1"
            line.base.silent()
            await postgres_session.one(session, "SELECT 2")

    with pytest.raises(TransientError) as told:
        await ask()
    assert SILENT in told.value.message


@pytest.mark.parametrize("how", SPOILT)
async def test_a_store_behind_a_bad_line_is_told_and_mends(line: Line, how: str) -> None:
    """By the keys of a server, and by its administrator's."""
    spoil, words = SPOILT[how]
    bucket, admin = line.store.bucket(f"line-{how}"), Admin(line.store.endpoint, ROOT, None, FIELD)
    stores, asked = ObjectStores(), AdminRequest("GET", "list-canned-policies", {})
    try:
        spoil(line.files)
        with pytest.raises(TransientError) as told:
            await stores.ensure_bucket(bucket, create=True)
        assert told.value.reason is Reason.ARTIFACT_STORE_UNREACHABLE
        assert words in told.value.message
        with pytest.raises(TransientError) as told:
            await minio_api.call(admin, asked)
        assert words in told.value.message
        line.files.mended()
        await stores.ensure_bucket(bucket, create=True)
        assert (await minio_api.call(admin, asked)).good
    finally:
        stores.close()


async def test_a_line_that_is_merely_slow_is_no_fault(line: Line) -> None:
    """Another continent is some tenths of a second away."""
    line.base.slow(150)
    line.files.slow(300)
    stores = ObjectStores()
    try:
        assert (await inspect(line.database, None, FIELD)).encoding == "UTF8"
        assert await stores.ensure_bucket(line.store.bucket("line-far"), create=True)
    finally:
        stores.close()
