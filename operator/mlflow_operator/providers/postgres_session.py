"""A session with a Postgres: bounded in time, and its errors in words for people."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any, LiteralString

import psycopg

from mlflow_operator.core.conditions import Reason
from mlflow_operator.core.database_uri import Connection
from mlflow_operator.core.faults import NotReady
from mlflow_operator.providers.postgres_faults import fault

Session = psycopg.AsyncConnection[tuple[object, ...]]

CALL_SECONDS = 15
"""For a whole look at a database, connecting included."""

_CONNECT_SECONDS = 5


@asynccontextmanager
async def session(
    connection: Connection, ca_path: str | None, field: str, seconds: float = CALL_SECONDS
) -> AsyncIterator[Session]:
    """A session in which each statement is a transaction of its own, closed after `seconds` at the latest.

    `ca_path` is a file of this process, `field` the part of the spec that messages point to. What psycopg raises
    comes out as UserMistake or NotReady.
    """
    place = f"{connection.host}:{connection.port}"
    options: dict[str, Any] = {"application_name": "mlflow-operator", **dict(connection.options)}
    options.pop("connect_timeout", None)
    if ca_path:
        options["sslrootcert"] = ca_path
    try:
        async with asyncio.timeout(seconds):
            found = await psycopg.AsyncConnection.connect(
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
            async with found:
                yield found
    except psycopg.Error as error:
        raise fault(error, place, field) from None
    except TimeoutError:
        raise NotReady(
            Reason.DATABASE_UNREACHABLE,
            f"The database at {place} does not answer within {seconds:g} s. Check that it runs and that the "
            "network lets the operator's and the server's pods through.",
        ) from None


async def one(session: Session, query: LiteralString) -> str | None:
    """The first value of the first row as text; None where there is no row, or NULL."""
    row = await (await session.execute(query)).fetchone()
    return None if row is None or row[0] is None else str(row[0])
