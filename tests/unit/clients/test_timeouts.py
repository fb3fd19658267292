"""The clients detect servers that accept a connection and do not answer, and every wait ends.

The sockets are real ones on loopback. Only the lengths of the timeouts differ from production.
"""

import asyncio
import re
import resource
import threading
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import closing
from dataclasses import replace
from operator import attrgetter
from pathlib import Path

import aiohttp
import pytest

from mlflow_operator import clients
from mlflow_operator.clients.limits import Limits, ThreadPool, on_behalf_of
from mlflow_operator.clients.postgres.session import Sessions, fetch_value
from mlflow_operator.clients.s3.client import Bucket, ObjectStores, Timeouts
from mlflow_operator.clients.s3.minio_api import AdminRequest, MinioAPI
from mlflow_operator.clients.s3.signed_request import AccessKey, Admin, SignedRequests
from mlflow_operator.model.postgres_uri import Connection
from mlflow_operator.status.conditions import Reason
from mlflow_operator.status.errors import TransientError
from tests.unit.clients.silent_servers import (
    Handler,
    connection_reset,
    elements_near_the_limit,
    endless_body,
    endless_body_in_small_pieces,
    endless_header,
    error_with_short_elements,
    expanding_entities,
    postgres_endless_result,
    postgres_endless_settings,
    postgres_silent_after_login,
    serve,
    short_elements,
    silent,
)

pytestmark = pytest.mark.timeout(60)

TIMEOUT_SECONDS = 0.3
SESSIONS = Sessions(connect_timeout_seconds=1)
MINIO_API = MinioAPI(
    SignedRequests(aiohttp.ClientTimeout(total=2 * TIMEOUT_SECONDS, sock_read=TIMEOUT_SECONDS))
)
S3_TIMEOUTS = Timeouts(TIMEOUT_SECONDS, TIMEOUT_SECONDS, 2 * TIMEOUT_SECONDS)
CONNECTION_CALLS = re.compile(
    r"Connection\.connect\(|psycopg\.connect\(|ClientSession\(|\.client\(|_connection\(|urlopen\("
)
"""Calls that open a connection, of all installed libraries."""


def database(port: int) -> Connection:
    """A database on loopback."""
    return Connection("127.0.0.1", port, "mlflow", "user", "hunter2", (("gssencmode", "disable"),))


def bucket(port: int, name: str = "models") -> Bucket:
    """A bucket on loopback."""
    return Bucket(
        f"http://127.0.0.1:{port}", "us-east-1", name, "path", "key", "hunter2", None, "spec.artifacts.s3"
    )


function_name = attrgetter("__name__")


@pytest.fixture
async def port(handler: Handler) -> AsyncIterator[int]:
    """The port of a server that handles each connection with the test's parameter `handler`."""
    async with serve(handler) as port:
        yield port


async def database_error(port: int) -> TransientError:
    """The error of a database session."""
    return await database_error_of(SESSIONS, port)


async def database_error_of(sessions: Sessions, port: int) -> TransientError:
    """The error of one of these sessions."""
    with pytest.raises(TransientError) as error:
        async with sessions.open(
            database(port), None, "spec.database.external", 2 * TIMEOUT_SECONDS
        ) as session:
            await fetch_value(session, "SELECT 1")
    return error.value


async def store_error(port: int) -> TransientError:
    """The error of an S3 request."""
    with closing(ObjectStores(S3_TIMEOUTS)) as stores:
        # boto3 loads its data with the first client, which must not count as the store's response time.
        stores._client(bucket(port))
        with pytest.raises(TransientError) as error:
            await stores.ensure_bucket(bucket(port), create=True)
    return error.value


async def admin_api_error(port: int) -> TransientError:
    """The error of a request to MinIO's admin API."""
    admin = Admin(f"http://127.0.0.1:{port}", AccessKey("root", "hunter2"), None, "spec.artifacts.s3")
    with pytest.raises(TransientError) as error:
        await MINIO_API.call(admin, AdminRequest("GET", "info-canned-policy", {}))
    return error.value


def test_all_modules_that_connect_are_covered() -> None:
    """These modules open all connections to stores. A module that adds another one needs its own tests here."""
    package = Path(clients.__file__).parent
    modules = package.rglob("*.py")
    connecting = {
        str(path.relative_to(package)) for path in modules if CONNECTION_CALLS.search(path.read_text())
    }
    assert connecting == {"postgres/session.py", "s3/client.py", "s3/http_transport.py"}


@pytest.mark.parametrize("handler", [silent, postgres_silent_after_login], ids=function_name)
async def test_silent_database_times_out(port: int) -> None:
    """The message is the same before and after the login, otherwise the condition would change with each reconcile."""
    error = await database_error(port)
    assert error.reason is Reason.DATABASE_UNREACHABLE
    assert error.message == (
        f"The database at 127.0.0.1:{port} does not answer in time. Check that it runs, that it is not overloaded, and "
        "that the network allows connections from the operator's and the server's pods."
    )


@pytest.mark.parametrize("call", [store_error, admin_api_error], ids=function_name)
@pytest.mark.parametrize("handler", [silent, endless_header, endless_body_in_small_pieces], ids=function_name)
async def test_silent_store_times_out(port: int, call: Callable[[int], Awaitable[TransientError]]) -> None:
    """The message is the same for all timeouts."""
    error = await call(port)
    assert error.reason is Reason.ARTIFACT_STORE_UNREACHABLE
    assert error.message == (
        f"The artifact store at http://127.0.0.1:{port} does not answer in time. Check that it runs, that it is not "
        "overloaded, and that the network allows connections from the operator's and the server's pods."
    )


@pytest.mark.parametrize("call", [store_error, admin_api_error], ids=function_name)
@pytest.mark.parametrize(
    "handler",
    [endless_body, short_elements, elements_near_the_limit, expanding_entities],
    ids=function_name,
)
async def test_large_response_of_store_is_rejected(
    port: int, call: Callable[[int], Awaitable[TransientError]]
) -> None:
    """The user of the server chooses the endpoint, and the operator has 256 MiB for all servers."""
    error = await call(port)
    assert error.reason is Reason.ARTIFACT_STORE_UNREACHABLE
    assert error.message == (
        f"The service at http://127.0.0.1:{port} sends a larger response than an artifact store does. Check that "
        "spec.artifacts.s3.endpoint is the address of the store."
    )


async def test_large_marker_object_is_read_in_part() -> None:
    """The owner of the key can replace the marker, which must not prevent the deletion of the server."""
    with closing(ObjectStores()) as stores:
        async with serve(endless_body) as port:
            assert await stores.read_marker(bucket(port)) == "x" * 1024


async def test_large_information_on_a_user_is_rejected() -> None:
    """Many reconciles keep it while they wait for the next response, which the same store can delay."""

    async def respond(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        body = b'{"memberOf":["' + b"x" * 100_000 + b'"]}'
        writer.write(f"HTTP/1.1 200 OK\r\nContent-Length: {len(body)}\r\n\r\n".encode() + body)
        await writer.drain()

    async with serve(respond) as port:
        assert "sends a larger response than an artifact store does" in (await admin_api_error(port)).message


async def test_large_error_instead_of_an_object_is_rejected() -> None:
    """boto3 parses an error even where it streams the object."""
    with closing(ObjectStores()) as stores:
        async with serve(error_with_short_elements) as port:
            with pytest.raises(TransientError, match="sends a larger response than an artifact store does"):
                await stores.read_marker(bucket(port))


@pytest.mark.parametrize("handler", [silent, endless_header, endless_body_in_small_pieces], ids=function_name)
async def test_thread_of_a_call_ends_with_its_timeout(handler: Handler) -> None:
    """With a timeout per read only, a store that answers byte by byte would keep its threads forever."""
    open_connections = 0

    async def counting(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        nonlocal open_connections
        open_connections += 1
        try:
            await handler(reader, writer)
        finally:
            open_connections -= 1

    with closing(ObjectStores(S3_TIMEOUTS)) as stores:
        async with serve(counting) as port:
            calls = [stores.ensure_bucket(bucket(port, f"b{number}"), create=True) for number in range(4)]
            assert all(
                isinstance(r, TransientError) for r in await asyncio.gather(*calls, return_exceptions=True)
            )
            async with asyncio.timeout(5):
                while open_connections:
                    await asyncio.sleep(0.01)
                # All threads for this store are free again.
                await asyncio.gather(*(stores._threads.run(bucket(port).location, int) for _ in range(4)))


@pytest.mark.parametrize("handler", [postgres_endless_settings, postgres_endless_result], ids=function_name)
async def test_endless_data_of_database_ends_the_session(port: int) -> None:
    """The user of the server chooses the host. libpq keeps everything that the host sends."""
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    with pytest.raises(TransientError) as error:
        async with SESSIONS.open(database(port), None, "spec.database.external", 30) as session:
            await fetch_value(session, "SELECT 1")
    assert error.value.reason is Reason.DATABASE_UNREACHABLE
    assert error.value.message == (
        f"The service at 127.0.0.1:{port} sends more data than the operator requests. Check that "
        "spec.database.external is the address of a PostgreSQL."
    )
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 64 * 1024


async def test_session_with_silent_database_closes_its_connection() -> None:
    """The server sees the connection end immediately, and no second connection asks it to cancel the statement."""
    ended = asyncio.Event()
    connections = 0

    async def handler(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        nonlocal connections
        connections += 1
        await postgres_silent_after_login(reader, writer)
        ended.set()

    async with serve(handler) as port:
        await database_error(port)
        await asyncio.wait_for(ended.wait(), 5)
    assert connections == 1


@pytest.mark.parametrize("call", [database_error, store_error, admin_api_error], ids=function_name)
@pytest.mark.parametrize("handler", [silent, connection_reset, endless_header], ids=function_name)
async def test_network_fault_raises_transient_error_without_blocking_event_loop(
    port: int, handler: Handler, call: Callable[[int], Awaitable[TransientError]]
) -> None:
    """Other tasks of the event loop continue meanwhile, and no thread or task outlives the call for long."""
    iterations = 0

    async def count_iterations() -> None:
        nonlocal iterations
        while True:
            iterations += 1
            await asyncio.sleep(0)

    counter = asyncio.create_task(count_iterations())
    error = await call(port)
    counter.cancel()
    assert error.reason in {Reason.DATABASE_UNREACHABLE, Reason.ARTIFACT_STORE_UNREACHABLE}
    assert f"127.0.0.1:{port}" in error.message
    assert "Check that it runs" in error.message
    assert "hunter2" not in error.message
    # An HTTP header is not valid in Postgres' protocol, so psycopg does not wait for the rest of it.
    fails_immediately = handler is connection_reset or (handler is endless_header and call is database_error)
    # A blocked event loop does a few iterations meanwhile, a free one a great many.
    assert fails_immediately or iterations > 100


async def test_silent_store_leaves_threads_for_other_stores() -> None:
    """All servers of one store wait at the same time; a request to another store is answered meanwhile."""

    async def ok(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\nConnection: close\r\n\r\n")
        await writer.drain()

    with closing(ObjectStores(S3_TIMEOUTS)) as stores:
        async with serve(silent) as silent_port, serve(ok) as healthy_port:
            # boto3 loads its data with the first client, which must not count as the store's response time.
            stores._client(bucket(healthy_port))
            calls = [
                asyncio.create_task(stores.ensure_bucket(bucket(silent_port, f"b{number}"), create=True))
                for number in range(100)
            ]
            await asyncio.sleep(0)
            assert await stores.ensure_bucket(bucket(healthy_port), create=True) is False
            assert not any(task.done() for task in calls)
            for result in await asyncio.gather(*calls, return_exceptions=True):
                assert isinstance(result, TransientError)


async def test_silent_stores_of_a_namespace_leave_threads_for_other_namespaces() -> None:
    """Each of its servers may use another endpoint, so that a limit per store does not apply."""

    async def ok(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\nConnection: close\r\n\r\n")
        await writer.drain()

    with closing(ObjectStores(Timeouts(call=45))) as stores:
        async with serve(silent) as silent_port, serve(ok) as healthy_port:
            stores._client(bucket(healthy_port))
            with on_behalf_of("team-a"):
                calls = [
                    asyncio.create_task(
                        stores.read_marker(
                            replace(bucket(silent_port), endpoint=f"http://127.0.0.1:{silent_port}/{n}")
                        )
                    )
                    for n in range(1, 101)
                ]
            await asyncio.sleep(0.1)
            with on_behalf_of("team-b"):
                async with asyncio.timeout(20):
                    assert await stores.ensure_bucket(bucket(healthy_port), create=True) is False
                    assert not any(call.done() for call in calls)
            await asyncio.gather(*calls, return_exceptions=True)


async def test_slow_statements_of_a_namespace_leave_sessions_for_other_namespaces() -> None:
    """The owner of a database on a shared Postgres can make each statement as slow as it likes."""

    async def answers_after_login(connection: Connection) -> bool:
        try:
            async with SESSIONS.open(connection, None, "spec.database.external", 5):
                return True
        except TransientError:
            return False

    async def hold(connection: Connection) -> None:
        async with SESSIONS.open(connection, None, "spec.database.external", 5) as session:
            await fetch_value(session, "SELECT 1")

    async with serve(postgres_silent_after_login) as port:
        with on_behalf_of("team-a"):
            holders = [asyncio.create_task(hold(database(port))) for _ in range(20)]
        await asyncio.sleep(0.3)
        with on_behalf_of("team-b"):
            async with asyncio.timeout(2):
                assert await answers_after_login(database(port))
        for holder in holders:
            holder.cancel()
        await asyncio.gather(*holders, return_exceptions=True)


@pytest.mark.parametrize(("endpoints", "limit"), [(1, 4), (100, 16)], ids=["one store", "many stores"])
async def test_admin_requests_are_limited_per_store_and_namespace(endpoints: int, limit: int) -> None:
    """Each holds a connection and a response in memory. Requests that wait for the limit time out like all others."""
    connections, healthy_connections = 0, 0

    async def count(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        nonlocal connections
        connections += 1
        await silent(reader, writer)

    async def healthy(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        nonlocal healthy_connections
        healthy_connections += 1
        await reader.readuntil(b"\r\n\r\n")
        writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\nConnection: close\r\n\r\n")
        await writer.drain()

    minio = MinioAPI(SignedRequests(aiohttp.ClientTimeout(total=1)))
    request = AdminRequest("GET", "info-canned-policy", {})

    def admin(port: int, path: str = "") -> Admin:
        return Admin(
            f"http://127.0.0.1:{port}{path}", AccessKey("root", "hunter2"), None, "spec.artifacts.s3"
        )

    async with serve(count) as port, serve(healthy) as healthy_port:
        with on_behalf_of("team-a"):
            calls = [
                asyncio.create_task(minio.call(admin(port, f"/{number % endpoints}"), request))
                for number in range(100)
            ]
        await asyncio.sleep(0.3)
        with on_behalf_of("team-b"):
            assert (await minio.call(admin(healthy_port), request)).ok
        assert healthy_connections == 1
        assert not any(call.done() for call in calls)
        assert connections == limit
        for result in await asyncio.gather(*calls, return_exceptions=True):
            assert isinstance(result, TransientError)
            assert "does not answer in time" in result.message


async def test_deadline_of_an_admin_request_includes_the_ca_certificates(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Loading a large bundle takes a second, and the threads for it are shared with DNS lookups."""
    requests, release = SignedRequests(aiohttp.ClientTimeout(total=TIMEOUT_SECONDS)), threading.Event()
    monkeypatch.setattr(requests._transport, "_ssl_context", lambda _: release.wait(5))
    admin = Admin("https://127.0.0.1:1", AccessKey("root", "hunter2"), None, "spec.artifacts.s3")
    try:
        with pytest.raises(TransientError, match="does not answer in time"):
            async with asyncio.timeout(3):
                await MinioAPI(requests).call(admin, AdminRequest("GET", "info-canned-policy", {}))
    finally:
        release.set()


async def test_thread_counts_against_limit_until_it_ends() -> None:
    """The caller's timeout does not free the slot. Otherwise a slow store would occupy one thread after the other."""
    threads, release, started = (
        ThreadPool(8, Limits(host=2, namespace=8, host_from_namespace=2), "test"),
        threading.Event(),
        threading.Semaphore(0),
    )

    def hang() -> str:
        started.release()
        release.wait(30)
        return "done"

    try:
        for _ in range(2):
            with pytest.raises(TimeoutError):
                await asyncio.wait_for(threads.run("host", hang), 0.05)
        third = asyncio.create_task(threads.run("host", hang))
        assert await threads.run("other-host", lambda: "immediately") == "immediately"
        assert started.acquire(timeout=5)
        assert started.acquire(timeout=5)
        assert not started.acquire(timeout=0), "a third thread for one host"
        release.set()
        assert await asyncio.wait_for(third, 5) == "done"
    finally:
        release.set()
        threads.close()


async def test_the_same_short_name_is_another_postgres_in_each_namespace() -> None:
    """Slow Services `postgres` of two namespaces do not use up the sessions of those in other namespaces."""
    async with serve(silent) as port:
        sessions = Sessions()
        postgres = replace(database(port), host="postgres")
        tasks = []
        for namespace in ("team-a", "team-b"):
            with on_behalf_of(namespace):
                tasks += [
                    asyncio.create_task(_connect(sessions, postgres.with_hostaddr("127.0.0.1")))
                    for _ in range(4)
                ]
        await asyncio.sleep(0.1)
        started = asyncio.get_running_loop().time()
        with on_behalf_of("team-c"), pytest.raises(TransientError, match="refuses connections"):
            await _connect(sessions, postgres.with_hostaddr("127.0.0.2"))
        assert asyncio.get_running_loop().time() - started < 2
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)


@pytest.mark.parametrize("answers", [True, False], ids=["busy", "silent"])
async def test_wait_for_other_sessions_reports_an_unreachable_database_only_if_none_ends(
    answers: bool,
) -> None:
    """With many servers on one Postgres, some wait longer than a session may take, which is no fault of Postgres."""
    sessions, first_may_end = Sessions(), asyncio.Event()

    async def hold(port: int, end: asyncio.Event) -> None:
        async with sessions.open(database(port), None, "spec.database.external", 30):
            await end.wait()

    async with serve(postgres_silent_after_login) as port:
        holders = [
            asyncio.create_task(hold(port, first_may_end if number == 0 else asyncio.Event()))
            for number in range(5)
        ]
        await asyncio.sleep(0.1)
        waiting = asyncio.create_task(database_error_of(sessions, port))
        await asyncio.sleep(0.1)
        if answers:
            first_may_end.set()
        error = await waiting
        for holder in holders:
            holder.cancel()
        await asyncio.gather(*holders, return_exceptions=True)
    assert error.reason is (Reason.PROGRESSING if answers else Reason.DATABASE_UNREACHABLE)


async def _connect(sessions: Sessions, postgres: Connection) -> None:
    async with sessions.open(postgres, None, "spec.database.external"):
        pass


async def test_concurrent_database_sessions_are_limited() -> None:
    """A slow Postgres has few connections to spare. A session that gets no slot in time reports a timeout."""
    most = current = 0

    async def handler(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        nonlocal most, current
        current += 1
        most = max(most, current)
        try:
            await postgres_silent_after_login(reader, writer)
        finally:
            current -= 1

    async with serve(handler) as port:
        errors = await asyncio.gather(*(database_error(port) for _ in range(30)))
    assert len({error.message for error in errors}) == 1
    # The limit is eight. On a busy machine the previous eight may still be closing; without the limit it is all thirty.
    assert 1 <= most <= 2 * 8
