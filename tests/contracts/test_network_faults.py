"""A real Postgres and a real MinIO behind slow, silent and broken connections: reported, and recovered automatically.

Only the lengths of the timeouts differ from production.
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace

import aiohttp
import pytest

from mlflow_operator.clients.postgres.client import Postgres
from mlflow_operator.clients.postgres.session import Sessions, fetch_value
from mlflow_operator.clients.s3.client import ObjectStores, Timeouts
from mlflow_operator.clients.s3.minio_api import AdminRequest, MinioAPI
from mlflow_operator.clients.s3.signed_request import Admin, SignedRequests
from mlflow_operator.model.postgres_uri import Connection
from mlflow_operator.status.conditions import Reason
from mlflow_operator.status.errors import TransientError
from tests.contracts.conftest import PINS
from tests.contracts.minio import ROOT_KEY, Store
from tests.contracts.postgres import Instance
from tests.contracts.proxies import toxiproxy
from tests.e2e.toxiproxy import Proxy

pytestmark = pytest.mark.long_running(
    reason="each test waits for timeouts; tests/unit/clients/test_timeouts.py checks the same messages with sockets"
)

FIELD = "spec.database.external.host"
TIMEOUT_MESSAGE, UNREACHABLE_MESSAGE = "does not answer in time", "cannot be reached"
TIMEOUT_SECONDS = 4
"""Long enough for the round trips of a connection through Toxiproxy with moderate latency on a busy machine."""

LATENCY_MILLISECONDS = 9000
S3_TIMEOUTS = Timeouts(TIMEOUT_SECONDS, TIMEOUT_SECONDS)
SESSIONS = Sessions(connect_timeout_seconds=TIMEOUT_SECONDS)
POSTGRES = Postgres(SESSIONS)
MINIO_API = MinioAPI(SignedRequests(aiohttp.ClientTimeout(total=TIMEOUT_SECONDS)))

InjectFault = Callable[[Proxy], None]
FAULTS: dict[str, tuple[InjectFault, str]] = {
    "silent": (Proxy.drop_data, TIMEOUT_MESSAGE),
    "slow": (lambda proxy: proxy.add_latency(LATENCY_MILLISECONDS), TIMEOUT_MESSAGE),
    "reset": (Proxy.reset_connections, UNREACHABLE_MESSAGE),
}


@dataclass(frozen=True)
class ProxiedStores:
    """A database and an object store, their proxies, and the connections through them."""

    database_proxy: Proxy
    store_proxy: Proxy
    database: Connection
    store: Store


@pytest.fixture(scope="module")
def toxiproxy_stores(instance: Instance, store: Store, test_images: None) -> Iterator[ProxiedStores]:
    """Both stores behind one Toxiproxy."""
    if not instance.container:
        pytest.skip("the tests did not start this Postgres, so no proxy can be put in front of it")
    with toxiproxy(PINS["IMAGE_TOXIPROXY"], instance.container, store.container) as proxied:
        database_proxy, store_proxy, database, endpoint = proxied
        connection = replace(
            database, database="postgres", username=instance.user, password=instance.password
        )
        yield ProxiedStores(database_proxy, store_proxy, connection, replace(store, endpoint=endpoint))


@pytest.fixture
def proxied_stores(toxiproxy_stores: ProxiedStores) -> Iterator[ProxiedStores]:
    """Both stores without faults. Removes all faults afterwards."""
    yield toxiproxy_stores
    toxiproxy_stores.database_proxy.remove_toxics()
    toxiproxy_stores.store_proxy.remove_toxics()


@pytest.mark.parametrize("fault", FAULTS)
async def test_database_fault_is_reported_and_recovered(proxied_stores: ProxiedStores, fault: str) -> None:
    """A failed session must not affect the next one."""
    inject_fault, fragment = FAULTS[fault]
    inject_fault(proxied_stores.database_proxy)
    with pytest.raises(TransientError) as error:
        await POSTGRES.inspect(proxied_stores.database, None, FIELD)
    assert error.value.reason is Reason.DATABASE_UNREACHABLE
    assert fragment in error.value.message
    proxied_stores.database_proxy.remove_toxics()
    assert (await POSTGRES.inspect(proxied_stores.database, None, FIELD)).encoding == "UTF8"


async def test_database_that_stops_answering_within_session_is_reported(
    proxied_stores: ProxiedStores,
) -> None:
    """The connection stays open, and the database sends no more data."""

    async def query_twice() -> None:
        async with SESSIONS.open(proxied_stores.database, None, FIELD, TIMEOUT_SECONDS) as session:
            assert await fetch_value(session, "SELECT 1") == "1"
            proxied_stores.database_proxy.drop_data()
            await fetch_value(session, "SELECT 2")

    with pytest.raises(TransientError) as error:
        await query_twice()
    assert TIMEOUT_MESSAGE in error.value.message


@pytest.mark.parametrize("fault", FAULTS)
async def test_store_fault_is_reported_and_recovered(proxied_stores: ProxiedStores, fault: str) -> None:
    """With the S3 API and with MinIO's admin API."""
    inject_fault, fragment = FAULTS[fault]
    bucket, admin = (
        proxied_stores.store.bucket(f"line-{fault}"),
        Admin(proxied_stores.store.endpoint, ROOT_KEY, None, FIELD),
    )
    s3_client, request = ObjectStores(S3_TIMEOUTS), AdminRequest("GET", "list-canned-policies", {})
    try:
        inject_fault(proxied_stores.store_proxy)
        with pytest.raises(TransientError) as error:
            await s3_client.ensure_bucket(bucket, create=True)
        assert error.value.reason is Reason.ARTIFACT_STORE_UNREACHABLE
        assert fragment in error.value.message
        with pytest.raises(TransientError) as error:
            await MINIO_API.call(admin, request)
        assert fragment in error.value.message
        proxied_stores.store_proxy.remove_toxics()
        await s3_client.ensure_bucket(bucket, create=True)
        assert (await MINIO_API.call(admin, request)).ok
    finally:
        s3_client.close()


async def test_moderate_latency_is_no_fault(proxied_stores: ProxiedStores) -> None:
    """A round trip to another continent takes some tenths of a second."""
    proxied_stores.database_proxy.add_latency(150)
    proxied_stores.store_proxy.add_latency(300)
    s3_client = ObjectStores(S3_TIMEOUTS)
    try:
        assert (await POSTGRES.inspect(proxied_stores.database, None, FIELD)).encoding == "UTF8"
        assert await s3_client.ensure_bucket(proxied_stores.store.bucket("line-far"), create=True)
    finally:
        s3_client.close()
