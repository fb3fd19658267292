"""Whoever takes a connection and does not answer is told from whoever answers; and nobody waits for ever, or in vain.

The sockets are real ones on loopback. Of the time-outs only the length is another.
"""

import asyncio
import re
import threading
from collections.abc import Awaitable, Callable
from pathlib import Path

import pytest

from mlflow_operator import clients
from mlflow_operator.clients.limits import ThreadPool
from mlflow_operator.clients.postgres import session as postgres_session
from mlflow_operator.clients.s3 import client as s3
from mlflow_operator.clients.s3 import minio_api, signed_request
from mlflow_operator.clients.s3.client import Bucket, ObjectStores
from mlflow_operator.clients.s3.minio_api import AdminRequest
from mlflow_operator.clients.s3.signed_request import AccessKey, Admin
from mlflow_operator.model.postgres_uri import Connection
from mlflow_operator.status.conditions import Reason
from mlflow_operator.status.errors import TransientError
from tests.unit.clients.silent_servers import (
    Line,
    deaf,
    dripping,
    listening,
    postgres_that_falls_silent,
    torn,
)

pytestmark = pytest.mark.timeout(60)

SHORT = 0.3
WAYS_OUT = re.compile(
    r"Connection\.connect\(|psycopg\.connect\(|ClientSession\(|\.client\(|_connection\(|urlopen\("
)
"""How a program begins to speak to another one, by any of the libraries that are here."""


def database(port: int) -> Connection:
    """A database on this machine."""
    return Connection("127.0.0.1", port, "mlflow", "user", "hunter2", (("gssencmode", "disable"),))


def bucket(port: int, name: str = "models") -> Bucket:
    """A bucket on this machine."""
    return Bucket(
        f"http://127.0.0.1:{port}", "us-east-1", name, "path", "key", "hunter2", None, "spec.artifacts.s3"
    )


@pytest.fixture
def impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    """Time-outs of tenths of a second."""
    monkeypatch.setattr(postgres_session, "_CONNECT_SECONDS", 1)
    monkeypatch.setattr(s3, "_CONNECT_SECONDS", SHORT)
    monkeypatch.setattr(s3, "_READ_SECONDS", SHORT)
    monkeypatch.setattr(s3, "_CALL_SECONDS", 2 * SHORT)
    monkeypatch.setattr(
        signed_request, "_LIMIT", signed_request._LIMIT.__class__(total=2 * SHORT, sock_read=SHORT)
    )


async def ask_database(port: int) -> TransientError:
    """What a look at it says."""
    with pytest.raises(TransientError) as told:
        async with postgres_session.session(
            database(port), None, "spec.database.external", 2 * SHORT
        ) as session:
            await postgres_session.one(session, "SELECT 1")
    return told.value


async def ask_store(port: int) -> TransientError:
    """What a look at it says."""
    stores = ObjectStores()
    try:
        with pytest.raises(TransientError) as told:
            await stores.ensure_bucket(bucket(port), create=True)
    finally:
        stores.close()
    return told.value


async def ask_admin(port: int) -> TransientError:
    """What the admin API's silence becomes."""
    admin = Admin(f"http://127.0.0.1:{port}", AccessKey("root", "hunter2"), None, "spec.artifacts.s3")
    with pytest.raises(TransientError) as told:
        await minio_api.call(admin, AdminRequest("GET", "info-canned-policy", {}))
    return told.value


def test_no_other_way_leads_out() -> None:
    """What is held to its time-outs here is all that speaks to stores; another way out belongs here, too."""
    package = Path(clients.__file__).parent
    modules = package.rglob("*.py")
    found = {str(path.relative_to(package)) for path in modules if WAYS_OUT.search(path.read_text())}
    assert found == {"postgres/session.py", "s3/client.py", "s3/signed_request.py"}


@pytest.mark.usefixtures("impatient")
@pytest.mark.parametrize("line", [deaf, postgres_that_falls_silent], ids=lambda line: line.__name__)
async def test_a_database_that_falls_silent_is_given_up(line: Line) -> None:
    """Before it lets anybody in, or after: the sentence is the same, or it would be news at each look."""
    async with listening(line) as port:
        told = await ask_database(port)
    assert told.reason is Reason.DATABASE_UNREACHABLE
    assert told.message == (
        f"The database at 127.0.0.1:{port} does not answer in time. Check that it runs, that it is not overloaded, and "
        "that the network lets the operator's and the server's pods through."
    )


@pytest.mark.usefixtures("impatient")
@pytest.mark.parametrize("ask", [ask_store, ask_admin], ids=lambda ask: ask.__name__)
@pytest.mark.parametrize("line", [deaf, dripping], ids=lambda line: line.__name__)
async def test_a_store_that_falls_silent_is_given_up(
    line: Line, ask: Callable[[int], Awaitable[TransientError]]
) -> None:
    """The same sentence for each of the time-outs that it may meet."""
    async with listening(line) as port:
        told = await ask(port)
    assert told.reason is Reason.ARTIFACT_STORE_UNREACHABLE
    assert told.message == (
        f"The artifact store at http://127.0.0.1:{port} does not answer in time. Check that it runs, that it is not "
        "overloaded, and that the network lets the operator's and the server's pods through."
    )


@pytest.mark.usefixtures("impatient")
async def test_a_look_at_a_silent_database_leaves_no_connection() -> None:
    """It hears the line end at once: nobody goes on asking it to cancel what it does not do."""
    ended = asyncio.Event()
    lines = 0

    async def line(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        nonlocal lines
        lines += 1
        await postgres_that_falls_silent(reader, writer)
        ended.set()

    async with listening(line) as port:
        await ask_database(port)
        await asyncio.wait_for(ended.wait(), 5)
    assert lines == 1


@pytest.mark.usefixtures("impatient")
@pytest.mark.parametrize("ask", [ask_database, ask_store, ask_admin], ids=lambda ask: ask.__name__)
@pytest.mark.parametrize("line", [deaf, torn, dripping], ids=lambda line: line.__name__)
async def test_whatever_the_line_does_the_loop_lives_and_a_fault_comes_out(
    line: Line, ask: Callable[[int], Awaitable[TransientError]]
) -> None:
    """Meanwhile others of the same loop go on, and no thread or task outlives the look for long."""
    beats = 0

    async def heart() -> None:
        nonlocal beats
        while True:
            beats += 1
            await asyncio.sleep(0)

    beating = asyncio.create_task(heart())
    async with listening(line) as port:
        told = await ask(port)
    beating.cancel()
    assert told.reason in {Reason.DATABASE_UNREACHABLE, Reason.ARTIFACT_STORE_UNREACHABLE}
    assert f"127.0.0.1:{port}" in told.message
    assert "Check that it runs" in told.message
    assert "hunter2" not in told.message
    # Postgres' protocol has no such answer, so nobody waits for the rest of it
    at_once = line is torn or (line is dripping and ask is ask_database)
    # a loop that is blocked meanwhile turns a few times; one that is free turns all the time
    assert at_once or beats > 100


@pytest.mark.usefixtures("impatient")
async def test_many_servers_of_a_silent_store_leave_threads_to_another_store() -> None:
    """All of one store's servers ask at once; one of another is answered meanwhile."""

    async def there(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\nConnection: close\r\n\r\n")
        await writer.drain()

    stores = ObjectStores()
    try:
        async with listening(deaf) as silent, listening(there) as healthy:
            # boto3 reads its data with the first client, which is no store's silence
            stores._client(bucket(healthy))
            asked = [
                asyncio.create_task(stores.ensure_bucket(bucket(silent, f"b{number}"), create=True))
                for number in range(100)
            ]
            await asyncio.sleep(0)
            assert await stores.ensure_bucket(bucket(healthy), create=True) is False
            assert not any(task.done() for task in asked)
            for found in await asyncio.gather(*asked, return_exceptions=True):
                assert isinstance(found, TransientError)
    finally:
        stores.close()


async def test_a_turn_comes_back_when_its_thread_ends_not_when_its_caller_gives_up() -> None:
    """A store that drips an answer for minutes would take one thread after the other, else."""
    threads, free, begun = ThreadPool(8, 2, "test"), threading.Event(), threading.Semaphore(0)

    def hang() -> str:
        begun.release()
        free.wait(30)
        return "done"

    try:
        for _ in range(2):
            with pytest.raises(TimeoutError):
                await asyncio.wait_for(threads.run("place", hang), 0.05)
        third = asyncio.create_task(threads.run("place", hang))
        assert await threads.run("elsewhere", lambda: "at once") == "at once"
        assert begun.acquire(timeout=5)
        assert begun.acquire(timeout=5)
        assert not begun.acquire(timeout=0), "a third thread for one place"
        free.set()
        assert await asyncio.wait_for(third, 5) == "done"
    finally:
        free.set()
        threads.close()


async def test_sessions_with_one_database_are_few_and_end() -> None:
    """A slow Postgres has few connections to spare; who gets no turn in time says that it does not answer."""
    most = now = 0

    async def line(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        nonlocal most, now
        now += 1
        most = max(most, now)
        try:
            await postgres_that_falls_silent(reader, writer)
        finally:
            now -= 1

    async with listening(line) as port:
        told = await asyncio.gather(*(ask_database(port) for _ in range(30)))
    assert len({each.message for each in told}) == 1
    # eight at a time; on a busy machine those before are still being closed, and without turns it is all thirty
    assert 1 <= most <= 2 * 8
