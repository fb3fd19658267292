"""Postgres sessions with a timeout and a limit for the received data. psycopg errors become condition messages."""

import asyncio
import contextlib
import os
import socket
import struct
from collections.abc import AsyncIterator, Callable, Generator
from contextlib import asynccontextmanager
from contextvars import ContextVar
from dataclasses import dataclass
from typing import Any, LiteralString, Self, TypeVar

import psycopg
from psycopg.abc import PQGen, PQGenConn

from mlflow_operator.clients import metadata_addresses
from mlflow_operator.clients.limits import Limiter, Limits, current_namespace
from mlflow_operator.clients.postgres.errors import (
    from_psycopg,
    in_use,
    login_blocked,
    no_answer,
    too_many_iterations,
    too_much_data,
)
from mlflow_operator.clients.postgres.login import Login, Logins
from mlflow_operator.clients.ttl_cache import TTLCache
from mlflow_operator.model.postgres_uri import Connection

Session = psycopg.AsyncConnection[tuple[object, ...]]
R = TypeVar("R")
S = TypeVar("S")
T = TypeVar("T")

SESSION_TIMEOUT_SECONDS = 15
"""Timeout of a whole session, including the connection attempt."""

_SESSION_LIMITS = Limits(host=8, namespace=16, host_from_namespace=4)
"""All servers of a Postgres connect to it, and a slow one has few connections to spare. The owner of a database can
make each statement slow, which must not block the servers of other namespaces on the same Postgres."""

_MAX_RECEIVED_BYTES = 4 * 1024 * 1024
"""Maximum size of what a Postgres sends in one session. The host belongs to the user of the server, and libpq keeps all
settings, rows and errors that it receives. The largest result is the list of a Postgres' roles."""
_TCP_INFO_BYTES = 136
_BYTES_RECEIVED_OFFSET = 128
"""Offset of tcpi_bytes_received in Linux' struct tcp_info."""


_LOGIN: ContextVar[Login] = ContextVar("postgres_login")
"""The login of the current task. psycopg offers no other way to hand it over."""


class _TooMuchData(psycopg.OperationalError):
    """The server has sent more than _MAX_RECEIVED_BYTES."""


class _LimitedConnection(psycopg.AsyncConnection[tuple[object, ...]]):
    """Connection that ends when it has received too much data. psycopg's steps each read what has arrived."""

    @classmethod
    def _connect_gen(cls, conninfo: str = "") -> PQGenConn[Self]:
        # psycopg resolves the host, and calls this with each of its addresses.
        address = psycopg.conninfo.conninfo_to_dict(conninfo).get("hostaddr")
        if metadata_addresses.is_refused(str(address)):
            raise psycopg.OperationalError(metadata_addresses.REFUSED)
        steps = _limited(super()._connect_gen(conninfo), lambda wanted: wanted[0])
        return _LOGIN.get().in_threads(steps)

    async def wait(self, gen: PQGen[T], *args: Any, **options: Any) -> T:
        """Run a step of a statement."""
        descriptor = self.pgconn.socket
        try:
            return await super().wait(_limited(gen, lambda _: descriptor), *args, **options)
        except _TooMuchData:
            # The end of the session must not read the rest of the result.
            self.pgconn.finish()
            raise


def _limited(steps: Generator[S, R, T], descriptor_of: Callable[[S], int]) -> Generator[S, R, T]:
    """Run `steps` until the connection has received too much. `descriptor_of` returns its file descriptor."""
    try:
        wanted = next(steps)
        while True:
            if _received_bytes(descriptor_of(wanted)) > _MAX_RECEIVED_BYTES:
                raise _TooMuchData
            wanted = steps.send((yield wanted))
    except StopIteration as end:
        result: T = end.value
        return result


def _received_bytes(descriptor: int) -> int:
    """Number of bytes that a TCP connection has received; 0 if it is unknown."""
    with contextlib.suppress(OSError), socket.socket(fileno=os.dup(descriptor)) as duplicate:
        info = duplicate.getsockopt(socket.IPPROTO_TCP, socket.TCP_INFO, _TCP_INFO_BYTES)
        if len(info) == _TCP_INFO_BYTES:
            return int(struct.unpack_from("=Q", info, _BYTES_RECEIVED_OFFSET)[0])
    return 0


@dataclass
class _LastSession:
    """`ended_at`: when a Postgres last completed a session without an error, in the time of the event loop."""

    ended_at: float = float("-inf")


_MAX_REMEMBERED_HOSTS = 1024
"""The hosts belong to users of the operator, who could otherwise fill its memory with them."""


class Sessions:
    """Opens sessions, a limited number per Postgres at a time. The operator has one instance."""

    def __init__(self, connect_timeout_seconds: int = 5) -> None:
        self._connect_timeout_seconds = connect_timeout_seconds
        self._limiter = Limiter(_SESSION_LIMITS)
        self._logins = Logins()
        self._last_sessions: TTLCache[str, _LastSession] = TTLCache(
            _MAX_REMEMBERED_HOSTS, SESSION_TIMEOUT_SECONDS
        )

    @asynccontextmanager
    async def open(
        self,
        connection: Connection,
        ca_path: str | None,
        field: str,
        timeout_seconds: float = SESSION_TIMEOUT_SECONDS,
    ) -> AsyncIterator[Session]:
        """Open a session in autocommit mode and close it after `timeout_seconds` at the latest.

        `ca_path` is a local file, `field` the spec field that messages refer to.
        Raises ConfigurationError or TransientError for psycopg's errors, and TransientError with the reason Progressing
        if other sessions use the Postgres all the time and it answers them.
        """
        address, host = connection.address, _limited_host(connection)
        login = self._logins.begin(current_namespace(), address, self._connect_timeout_seconds)
        loop = asyncio.get_running_loop()
        started_at, last_session = loop.time(), self._last_sessions.get_or_create(host, _LastSession)
        deadline, is_waiting = started_at + timeout_seconds, True
        try:
            async with asyncio.timeout_at(deadline):
                end_session = await self._limiter.acquire(host)
            is_waiting = False
            try:
                async with asyncio.timeout_at(deadline):
                    conn = await self._connect(connection, ca_path, login)
                timer = loop.call_at(deadline, _shut_down_socket, conn)
                try:
                    async with conn:
                        yield conn
                    last_session.ended_at = loop.time()
                finally:
                    timer.cancel()
            finally:
                end_session()
        except _TooMuchData:
            raise too_much_data(address, field) from None
        except (psycopg.Error, TimeoutError) as error:
            if is_waiting and last_session.ended_at >= started_at:
                raise in_use(address) from None
            if login.is_computing:
                raise too_many_iterations(address) from None
            # psycopg's timeout can expire shortly before that of the login.
            if login.is_blocked:
                raise login_blocked(address) from None
            if loop.time() >= deadline or isinstance(error, TimeoutError | psycopg.errors.ConnectionTimeout):
                raise no_answer(address) from None
            raise from_psycopg(error, address, field) from None

    async def _connect(self, connection: Connection, ca_path: str | None, login: Login) -> Session:
        _LOGIN.set(login)
        options: dict[str, Any] = {"application_name": "mlflow-operator", **dict(connection.options)}
        # psycopg returns bytes instead of text if the database has no encoding (SQL_ASCII).
        options.setdefault("client_encoding", "UTF8")
        options.pop("connect_timeout", None)
        if ca_path:
            options["sslrootcert"] = ca_path
        return await _LimitedConnection.connect(
            psycopg.conninfo.make_conninfo(
                host=connection.host,
                port=connection.port,
                dbname=connection.database,
                user=connection.username,
                password=connection.password,
                connect_timeout=self._connect_timeout_seconds,
                **options,
            ),
            autocommit=True,
            prepare_threshold=None,  # PgBouncer does not support prepared statements in all pool modes.
        )


def _limited_host(connection: Connection) -> str:
    """The Postgres whose sessions are limited. The same short name is another Service in each namespace."""
    return f"{dict(connection.options).get('hostaddr', connection.host)}:{connection.port}"


def _shut_down_socket(conn: Session) -> None:
    """Shut down the session's socket, so that a statement that waits for an answer fails immediately.

    If the task were cancelled instead, psycopg would wait up to ten seconds for the unresponsive server to cancel the
    statement.
    """
    # Either error means that the session has already ended.
    with (
        contextlib.suppress(OSError, psycopg.Error),
        socket.socket(fileno=os.dup(conn.pgconn.socket)) as duplicate,
    ):
        duplicate.shutdown(socket.SHUT_RDWR)


async def fetch_value(session: Session, query: LiteralString) -> str | None:
    """Return the first column of the first row as text. None if there is no row, or for NULL."""
    row = await (await session.execute(query)).fetchone()
    return None if row is None or row[0] is None else str(row[0])
