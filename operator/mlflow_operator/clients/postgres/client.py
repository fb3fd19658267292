"""Asks a Postgres database whether MLflow can live in it."""

from dataclasses import dataclass, replace

import psycopg
from psycopg import sql

from mlflow_operator.clients.postgres.session import Session, one, session
from mlflow_operator.model.postgres_uri import Connection
from mlflow_operator.status.conditions import Reason
from mlflow_operator.status.errors import ConfigurationError, TransientError

_DATABASE = sql.SQL(
    "SELECT pg_encoding_to_char(encoding), oid::text, pg_get_userbyid(datdba), datconnlimit, "
    "shobj_description(oid, 'pg_database'), current_setting('transaction_read_only'), "
    "to_regclass('alembic_version')::text, obj_description(to_regclass('alembic_version'), 'pg_class'), "
    "current_setting('server_version_num')::int / 10000 FROM pg_catalog.pg_database WHERE datname = current_database()"
)

_NOTHING: tuple[object, ...] = ("", "", "", -1, None, "off", None, None, 0)


@dataclass(frozen=True)
class DatabaseState:
    """What a look at the database found.

    `revision` is the alembic revision, None where MLflow has no tables yet. `identity` tells this database
    from another one that has taken its place. `obstacle` is what a migration would fail at, if that can be seen
    beforehand; a server whose tables are there already can do without. `owner` and `comment` are the database's.
    `comment_of_tables` is that of `alembic_version`, `major` the release of Postgres; 0: not known.
    """

    encoding: str
    revision: str | None
    identity: str
    obstacle: ConfigurationError | None = None
    owner: str = ""
    connection_limit: int = -1
    comment: str | None = None
    comment_of_tables: str | None = None
    major: int = 0


async def inspect(
    connection: Connection, ca_path: str | None, field: str, settled: str | None = None
) -> DatabaseState:
    """Connects as MLflow would and looks.

    `ca_path` is a file of this process, `field` the part of the spec that messages point to. At the revision `settled`
    no migration is due, so that no obstacle to one is looked for.
    Raises UserMistake or NotReady.
    """
    async with session(connection, ca_path, field) as found:
        row = await (await found.execute(_DATABASE)).fetchone()
        encoding, identity, owner, limit, comment, read_only, table, noted, major = row or _NOTHING
        revision = await one(found, "SELECT max(version_num) FROM alembic_version") if table else None
        due = settled is None or revision != settled
        obstacle = await _obstacle(found, table is not None) if due else None
    if read_only == "on":
        raise TransientError(
            Reason.DATABASE_READ_ONLY,
            f"The database at {connection.host}:{connection.port} lets nothing be written: it is a standby, or "
            f"default_transaction_read_only is on. Name the primary in {field}.",
        )
    if str(encoding).upper() != "UTF8":
        raise ConfigurationError(
            Reason.DATABASE_ENCODING_UNSUPPORTED,
            f'The database "{connection.database}" at {connection.host}:{connection.port} has the encoding '
            f"{encoding}, with which MLflow cannot work. Create one with ENCODING 'UTF8' TEMPLATE template0, and "
            f"name it in {field}.",
        )
    place = f"{connection.host}:{connection.port}/{connection.database}"
    return DatabaseState(
        str(encoding),
        revision,
        f"{place}#{identity}",
        obstacle,
        str(owner),
        int(str(limit)),
        None if comment is None else str(comment),
        None if noted is None else str(noted),
        int(str(major)),
    )


async def create_database(connection: Connection, field: str) -> None:
    """Makes the database that `connection` names, as its user (who must be allowed to); fine if it is there.

    For the embedded Postgres alone: its first start can be cut off after the user and before the database.
    """
    admin = replace(connection, database="postgres")
    async with session(admin, None, field) as found:
        statement = sql.SQL("CREATE DATABASE {} ENCODING 'UTF8' TEMPLATE template0").format(
            sql.Identifier(connection.database)
        )
        try:
            await found.execute(statement)
        except psycopg.errors.DuplicateDatabase:
            return


async def _obstacle(found: Session, has_tables: bool) -> ConfigurationError | None:
    """What would keep this user from making tables, or from changing those that are there."""
    schema = await one(found, "SELECT current_schema()")
    if schema is None:
        return ConfigurationError(
            Reason.DATABASE_PRIVILEGE_MISSING,
            "MLflow's tables can't be made, for none of the schemas in the user's search_path exists and may be used. "
            "Create one, GRANT USAGE, CREATE on it to the user, or correct search_path.",
        )
    if await one(found, "SELECT has_schema_privilege(current_schema(), 'CREATE')") != "True":
        return ConfigurationError(
            Reason.DATABASE_PRIVILEGE_MISSING,
            f"MLflow's tables can't be made or changed, for the user may not CREATE in schema \"{schema}\". GRANT "
            f'CREATE ON SCHEMA "{schema}" to it, or make it the owner of the database.',
        )
    owned = "SELECT pg_has_role(relowner, 'USAGE') FROM pg_class WHERE oid = to_regclass('alembic_version')"
    if has_tables and await one(found, owned) != "True":
        return ConfigurationError(
            Reason.DATABASE_PRIVILEGE_MISSING,
            "MLflow's tables are to be changed for this version, and belong to another user. REASSIGN OWNED to the "
            "user, or GRANT it the role that owns them.",
        )
    return None
