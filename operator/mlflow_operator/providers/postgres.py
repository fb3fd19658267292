"""Asks a Postgres database whether MLflow can live in it."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, replace
from typing import Any, LiteralString

import psycopg
from psycopg import sql

from mlflow_operator.core.conditions import Reason
from mlflow_operator.core.database_uri import Connection
from mlflow_operator.core.faults import Fault, NotReady, UserMistake

_CONNECT_SECONDS = 5
_CALL_SECONDS = 15


@dataclass(frozen=True)
class DatabaseState:
    """What a look at the database found.

    `revision` is the alembic revision, None where MLflow has no tables yet. `identity` tells this database
    from another one that has taken its place.
    """

    encoding: str
    revision: str | None
    identity: str


_FAULTS: tuple[tuple[str, type[Fault], Reason, str], ...] = (
    (
        "invalid connection option",
        UserMistake,
        Reason.DATABASE_UNREACHABLE,
        (
            "can't be asked, for its URI holds an option that Postgres does not know. "
            "Correct it in the Secret that {field} names"
        ),
    ),
    (
        "invalid sslmode value",
        UserMistake,
        Reason.DATABASE_UNREACHABLE,
        (
            "can't be asked, for its URI holds an sslmode that there is not. "
            "Correct it in the Secret that {field} names"
        ),
    ),
    # before "does not exist" and "certificate", which are in these sentences, too
    (
        "root certificate file",
        UserMistake,
        Reason.DATABASE_UNREACHABLE,
        (
            "is to be verified by a file that the operator does not have. Take sslrootcert out of the URI, put the "
            "authority into a Secret, and name it in spec.database.external.tls.caSecretRef"
        ),
    ),
    (
        "does not match host name",
        UserMistake,
        Reason.DATABASE_UNREACHABLE,
        (
            "shows a certificate that is made out for another host. Name the database by the host in its "
            "certificate, or use mode VerifyCA in spec.database.external.tls"
        ),
    ),
    (
        "client certificate",
        UserMistake,
        Reason.DATABASE_AUTHENTICATION_FAILED,
        "asks for a client certificate, and the operator has none. Let this user in by a password",
    ),
    (
        "password authentication failed",
        UserMistake,
        Reason.DATABASE_AUTHENTICATION_FAILED,
        "refuses the user name or the password. Put the right ones into the Secret that {field} names",
    ),
    (
        "no password supplied",
        UserMistake,
        Reason.DATABASE_AUTHENTICATION_FAILED,
        "asks for a password and none is given. Put one into the Secret that {field} names",
    ),
    (
        "no pg_hba.conf entry",
        UserMistake,
        Reason.DATABASE_AUTHENTICATION_FAILED,
        (
            "has no pg_hba.conf entry for this client, user, database and encryption. "
            "Add one there, or change spec.database.external.tls.mode"
        ),
    ),
    (
        "does not exist",
        UserMistake,
        Reason.DATABASE_AUTHENTICATION_FAILED,
        "has no such database or role. Create it (UTF8) with the user as its owner, or correct {field}",
    ),
    (
        "permission denied for database",
        UserMistake,
        Reason.DATABASE_AUTHENTICATION_FAILED,
        "forbids this user the database. Grant it CONNECT and make it the owner",
    ),
    (
        "certificate",
        UserMistake,
        Reason.DATABASE_UNREACHABLE,
        (
            "shows a certificate that is not trusted. Put its authority into the Secret that "
            "spec.database.external.tls.caSecretRef names"
        ),
    ),
    (
        "does not support SSL",
        UserMistake,
        Reason.DATABASE_UNREACHABLE,
        "speaks no TLS, which spec.database.external.tls.mode asks for. Turn TLS on there, or use mode Prefer",
    ),
    (
        "resolve host",
        NotReady,
        Reason.DATABASE_UNREACHABLE,
        "has a name that does not resolve in this cluster. Check {field}",
    ),
    (
        "too many",
        NotReady,
        Reason.DATABASE_UNREACHABLE,
        "has no connection left. Raise its max_connections, or the role's limit",
    ),
    ("starting up", NotReady, Reason.DATABASE_UNREACHABLE, "is starting up. It is asked again shortly"),
    ("Connection refused", NotReady, Reason.DATABASE_UNREACHABLE, "refuses connections. Check that it runs"),
)


def fault(error: Exception, place: str, field: str) -> Fault:
    """The sentence for what libpq says. `place` is where the database is, `field` where the spec says so.

    Only words known beforehand are passed on: libpq's own text could quote what it was given.
    """
    text = str(error)
    for words, kind, reason, sentence in _FAULTS:
        if words.lower() in text.lower():
            return kind(reason, f"The database at {place} {sentence.format(field=field)}.")
    return NotReady(
        Reason.DATABASE_UNREACHABLE,
        f"The database at {place} can't be reached. Check that it runs, that the network lets the operator's "
        f"and the server's pods through, and that {field} is right.",
    )


@asynccontextmanager
async def _session(
    connection: Connection, ca_path: str | None, field: str
) -> AsyncIterator[psycopg.AsyncConnection[tuple[object, ...]]]:
    place = f"{connection.host}:{connection.port}"
    options: dict[str, Any] = {"application_name": "mlflow-operator", **dict(connection.options)}
    options.pop("connect_timeout", None)
    if ca_path:
        options["sslrootcert"] = ca_path
    try:
        async with asyncio.timeout(_CALL_SECONDS):
            session = await psycopg.AsyncConnection.connect(
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
            async with session:
                yield session
    except psycopg.Error as error:
        raise fault(error, place, field) from None
    except TimeoutError:
        raise NotReady(
            Reason.DATABASE_UNREACHABLE,
            f"The database at {place} does not answer within {_CALL_SECONDS} s. Check that it runs and that the "
            "network lets the operator's and the server's pods through.",
        ) from None


async def inspect(connection: Connection, ca_path: str | None, field: str) -> DatabaseState:
    """Connects as MLflow would and looks.

    `ca_path` is a file of this process, `field` the part of the spec that messages point to.
    Raises UserMistake or NotReady.
    """
    async with _session(connection, ca_path, field) as session:
        encoding = await _one(session, "SHOW server_encoding")
        identity = await _one(
            session, "SELECT oid::text FROM pg_catalog.pg_database WHERE datname = current_database()"
        )
        table = await _one(session, "SELECT to_regclass('alembic_version')::text")
        revision = await _one(session, "SELECT max(version_num) FROM alembic_version") if table else None
    if encoding is not None and encoding.upper() != "UTF8":
        raise UserMistake(
            Reason.DATABASE_ENCODING_UNSUPPORTED,
            f'The database "{connection.database}" at {connection.host}:{connection.port} has the encoding '
            f"{encoding}, with which MLflow cannot work. Create one with ENCODING 'UTF8' TEMPLATE template0, and "
            f"name it in {field}.",
        )
    return DatabaseState(
        encoding or "", revision, f"{connection.host}:{connection.port}/{connection.database}#{identity}"
    )


async def create_database(connection: Connection, field: str) -> None:
    """Makes the database that `connection` names, as its user (who must be allowed to); fine if it is there.

    For the embedded Postgres alone: its first start can be cut off after the user and before the database.
    """
    admin = replace(connection, database="postgres")
    async with _session(admin, None, field) as session:
        statement = sql.SQL("CREATE DATABASE {} ENCODING 'UTF8' TEMPLATE template0").format(
            sql.Identifier(connection.database)
        )
        try:
            await session.execute(statement)
        except psycopg.errors.DuplicateDatabase:
            return


async def _one(session: psycopg.AsyncConnection[tuple[object, ...]], query: LiteralString) -> str | None:
    row = await (await session.execute(query)).fetchone()
    return None if row is None or row[0] is None else str(row[0])
