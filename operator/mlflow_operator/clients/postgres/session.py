"""A session with a Postgres: bounded in time, and its errors in words for people."""

import asyncio
import contextlib
import os
import socket
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any, LiteralString

import psycopg

from mlflow_operator.clients.limits import PerHostLimiter
from mlflow_operator.clients.postgres.errors import from_psycopg
from mlflow_operator.model.postgres_uri import Connection
from mlflow_operator.status.conditions import Reason
from mlflow_operator.status.errors import TransientError

Session = psycopg.AsyncConnection[tuple[object, ...]]

CALL_SECONDS = 15
"""For a whole look at a database, connecting included."""

_CONNECT_SECONDS = 5

_TURNS = PerHostLimiter(8)
"""Of sessions with one Postgres: a slow one has few to spare, and all its servers ask."""


@asynccontextmanager
async def session(
    connection: Connection, ca_path: str | None, field: str, seconds: float = CALL_SECONDS
) -> AsyncIterator[Session]:
    """A session in which each statement is a transaction of its own, closed after `seconds` at the latest.

    `ca_path` is a file of this process, `field` the part of the spec that messages point to. What psycopg raises
    comes out as UserMistake or NotReady.
    """
    place = f"{connection.host}:{connection.port}"
    loop = asyncio.get_running_loop()
    ends = loop.time() + seconds
    turn = _TURNS.at(place)
    try:
        async with asyncio.timeout_at(ends):
            await turn.acquire()
        try:
            async with asyncio.timeout_at(ends):
                found = await _connect(connection, ca_path)
            end = loop.call_at(ends, _hang_up, found)
            try:
                async with found:
                    yield found
            finally:
                end.cancel()
        finally:
            turn.release()
    except psycopg.Error as error:
        if loop.time() >= ends or isinstance(error, psycopg.errors.ConnectionTimeout):
            raise _silent(place) from None
        raise from_psycopg(error, place, field) from None
    except TimeoutError:
        raise _silent(place) from None


async def _connect(connection: Connection, ca_path: str | None) -> Session:
    options: dict[str, Any] = {"application_name": "mlflow-operator", **dict(connection.options)}
    # of a database without an encoding psycopg would give bytes for text
    options.setdefault("client_encoding", "UTF8")
    options.pop("connect_timeout", None)
    if ca_path:
        options["sslrootcert"] = ca_path
    return await psycopg.AsyncConnection.connect(
        psycopg.conninfo.make_conninfo(
            host=connection.host,
            port=connection.port,
            dbname=connection.database,
            user=connection.username,
            password=connection.password,
            connect_timeout=_CONNECT_SECONDS,
            **options,
        ),
        autocommit=True,
        prepare_threshold=None,  # so that it works through PgBouncer, too
    )


def _hang_up(found: Session) -> None:
    """Makes whoever waits for an answer hear that there will be none.

    Cancelled instead, psycopg would ask the same silent server for ten seconds to cancel the statement.
    """
    # either: it has ended by itself
    with (
        contextlib.suppress(OSError, psycopg.Error),
        socket.socket(fileno=os.dup(found.pgconn.socket)) as line,
    ):
        line.shutdown(socket.SHUT_RDWR)


def _silent(place: str) -> TransientError:
    return TransientError(
        Reason.DATABASE_UNREACHABLE,
        f"The database at {place} does not answer in time. Check that it runs, that it is not overloaded, and that "
        "the network lets the operator's and the server's pods through.",
    )


async def one(session: Session, query: LiteralString) -> str | None:
    """The first value of the first row as text; None where there is no row, or NULL."""
    row = await (await session.execute(query)).fetchone()
    return None if row is None or row[0] is None else str(row[0])
