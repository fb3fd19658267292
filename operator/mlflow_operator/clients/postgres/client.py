"""Inspection of a Postgres database: whether MLflow can use it, and its schema revision."""

from dataclasses import dataclass, field, replace

import psycopg
from psycopg import sql

from mlflow_operator.clients.postgres.errors import read_only
from mlflow_operator.clients.postgres.session import Session, Sessions, fetch_value
from mlflow_operator.model.authentication import Accounts
from mlflow_operator.model.encryption import EncryptedSecrets
from mlflow_operator.model.postgres_uri import Connection
from mlflow_operator.status.conditions import Reason
from mlflow_operator.status.errors import ConfigurationError

_INSPECT_DATABASE = sql.SQL(
    "SELECT pg_encoding_to_char(encoding), oid::text, pg_get_userbyid(datdba), datconnlimit, "
    "shobj_description(oid, 'pg_database'), current_setting('transaction_read_only'), "
    "to_regclass('alembic_version')::text, obj_description(to_regclass('alembic_version'), 'pg_class'), "
    "current_setting('server_version_num')::int / 10000, "
    "(SELECT rolconnlimit FROM pg_catalog.pg_roles WHERE rolname = session_user) "
    "FROM pg_catalog.pg_database WHERE datname = current_database()"
)

_NO_ROW: tuple[object, ...] = ("", "", "", -1, None, "off", None, None, 0, -1)


_HAS_COLUMN = sql.SQL(
    "SELECT (SELECT count(*) FROM pg_catalog.pg_attribute WHERE attrelid = to_regclass('secrets') "
    "AND attname = 'kek_version'), (SELECT count(*) FROM pg_catalog.pg_attribute "
    "WHERE attrelid = to_regclass('webhooks') AND attname IN ('webhook_id', 'secret', 'deleted_timestamp'))"
)
"""Other applications of a shared database may have tables of the same names."""

_READ_ACCOUNTS = sql.SQL(
    "SELECT (SELECT left(max(version_num)::text, 64) FROM alembic_version_auth), (SELECT count(*) FROM users), "
    "(SELECT left(password_hash::text, 1024) FROM users WHERE username = %(name)s), "
    "(SELECT is_admin::text FROM users WHERE username = %(name)s)"
)

_LOCK_TIMEOUT = "1s"
"""A migration locks the tables until it ends, possibly for hours. A session that waits for a lock does not notice that
the operator has given up: all connections would soon be used up."""

MAX_ENCRYPTED_ROWS = 200
"""Maximum number of webhooks, and of passphrase versions, that are inspected."""


@dataclass(frozen=True)
class DatabaseState:
    """Observed state of a database.

    `revision` is the alembic revision, None if MLflow has not created its tables yet. `identity` distinguishes this
    database from another one that has replaced it. `obstacle` is an error that a migration would fail with, if it can
    be detected in advance; a server whose schema is up to date is not affected by it. `owner` and `comment` belong to
    the database, `table_comment` to the table `alembic_version`. `major` is the major version of Postgres, 0 if
    unknown. `connection_limit` is the limit of the database, `login_connection_limit` that of the user; -1 means
    unlimited. `encrypted` are the encrypted secrets in its tables; None if a migration locks these. `accounts` are
    MLflow's accounts; None if they were not requested, or if a migration locks their tables.
    """

    encoding: str
    revision: str | None
    identity: str
    obstacle: ConfigurationError | None = None
    owner: str = ""
    connection_limit: int = -1
    comment: str | None = None
    table_comment: str | None = None
    major: int = 0
    encrypted: EncryptedSecrets | None = field(default=EncryptedSecrets(), repr=False)
    login_connection_limit: int = -1
    accounts: Accounts | None = None


class Postgres:
    """Inspects databases with the credentials that MLflow uses."""

    def __init__(self, sessions: Sessions) -> None:
        self._sessions = sessions

    async def inspect(
        self,
        connection: Connection,
        ca_path: str | None,
        field: str,
        expected_revision: str | None = None,
        *,
        administrator: str | None = None,
    ) -> DatabaseState:
        """Connect as MLflow would, and return the state of the database.

        `ca_path` is a local file, `field` the spec field that messages refer to. If the schema is at
        `expected_revision`, no migration is needed and the migration's privileges are not checked. The accounts are
        read if the name of an `administrator` is given.
        Raises ConfigurationError or TransientError.
        """
        async with self._sessions.open(connection, ca_path, field) as conn:
            row = await (await conn.execute(_INSPECT_DATABASE)).fetchone()
            encoding, oid, owner, limit, comment, is_read_only, table, table_comment, major, login_limit = (
                row or _NO_ROW
            )
            revision = (
                await fetch_value(conn, "SELECT max(version_num) FROM alembic_version") if table else None
            )
            needs_migration = expected_revision is None or revision != expected_revision
            obstacle = await _migration_obstacle(conn, table is not None) if needs_migration else None
            encrypted = await _encrypted_secrets(conn) if table else EncryptedSecrets()
            accounts = None if administrator is None else await _accounts(conn, administrator)
        if is_read_only == "on":
            raise read_only(connection.address, field)
        if str(encoding).upper() != "UTF8":
            raise ConfigurationError(
                Reason.DATABASE_ENCODING_UNSUPPORTED,
                f'The database "{connection.database}" at {connection.address} has the encoding '
                f"{encoding}, which MLflow does not support. Create a database with ENCODING 'UTF8' TEMPLATE "
                f"template0, and configure it in {field}.",
            )
        location = f"{connection.host}:{connection.port}/{connection.database}"
        return DatabaseState(
            str(encoding),
            revision,
            f"{location}#{oid}",
            obstacle,
            str(owner),
            int(str(limit)),
            None if comment is None else str(comment),
            None if table_comment is None else str(table_comment),
            int(str(major)),
            encrypted,
            int(str(login_limit)),
            accounts,
        )

    async def create_database(self, connection: Connection, field: str) -> None:
        """Create the database in `connection` as its user, who must have CREATEDB. Do nothing if it exists.

        Only for the embedded Postgres: its first start can be interrupted after it created the user and before it
        created the database.
        """
        admin = replace(connection, database="postgres")
        async with self._sessions.open(admin, None, field) as conn:
            statement = sql.SQL("CREATE DATABASE {} ENCODING 'UTF8' TEMPLATE template0").format(
                sql.Identifier(connection.database)
            )
            try:
                await conn.execute(statement)
            except psycopg.errors.DuplicateDatabase:
                return


async def _encrypted_secrets(conn: Session) -> EncryptedSecrets | None:
    """Read which keys encrypt the secrets in MLflow's tables, as far as the user may read them.

    None if the tables are locked.
    """
    row = await (await conn.execute(_HAS_COLUMN)).fetchone()
    has_secrets, has_webhooks = (int(str(count)) for count in row or (0, 0))
    versions: frozenset[int] = frozenset()
    webhooks: tuple[tuple[str, str], ...] = ()
    try:
        async with conn.transaction():
            await conn.execute("SELECT set_config('lock_timeout', %s, true)", [_LOCK_TIMEOUT])
            if has_secrets:
                query = sql.SQL("SELECT DISTINCT kek_version FROM secrets LIMIT {}").format(
                    MAX_ENCRYPTED_ROWS
                )
                rows = await (await conn.execute(query)).fetchall()
                versions = frozenset(int(str(row[0])) for row in rows)
            if has_webhooks == 3:
                query = sql.SQL(
                    "SELECT webhook_id, secret FROM webhooks WHERE secret IS NOT NULL AND deleted_timestamp IS NULL "
                    "ORDER BY webhook_id LIMIT {}"
                ).format(MAX_ENCRYPTED_ROWS)
                rows = await (await conn.execute(query)).fetchall()
                webhooks = tuple((str(row[0]), str(row[1])) for row in rows)
    except psycopg.errors.LockNotAvailable:
        return None
    except psycopg.errors.InsufficientPrivilege:
        pass
    return EncryptedSecrets(versions, webhooks)


async def _accounts(conn: Session, administrator: str) -> Accounts | None:
    """Read the accounts. None if their tables are locked; without a revision if they are missing or unreadable."""
    try:
        async with conn.transaction():
            await conn.execute("SELECT set_config('lock_timeout', %s, true)", [_LOCK_TIMEOUT])
            row = await (await conn.execute(_READ_ACCOUNTS, {"name": administrator})).fetchone()
    except psycopg.errors.LockNotAvailable:
        return None
    except (
        psycopg.errors.UndefinedTable,
        psycopg.errors.UndefinedColumn,
        psycopg.errors.InsufficientPrivilege,
    ):
        return Accounts()
    revision, users, password_hash, is_admin = row or (None, 0, None, None)
    return Accounts(
        None if revision is None else str(revision),
        int(str(users)),
        None if password_hash is None else str(password_hash),
        is_admin in {"true", "1"},
    )


async def _migration_obstacle(conn: Session, has_tables: bool) -> ConfigurationError | None:
    """Return the error if the user lacks the privileges to create MLflow's tables, or to change the existing ones."""
    schema = await fetch_value(conn, "SELECT current_schema()")
    if schema is None:
        return ConfigurationError(
            Reason.DATABASE_PRIVILEGE_MISSING,
            "MLflow's tables cannot be created because no schema in the user's search_path exists and is accessible. "
            "Create one and GRANT USAGE, CREATE on it to the user, or correct search_path.",
        )
    if await fetch_value(conn, "SELECT has_schema_privilege(current_schema(), 'CREATE')") != "True":
        return ConfigurationError(
            Reason.DATABASE_PRIVILEGE_MISSING,
            "MLflow's tables cannot be created or changed because the user has no CREATE privilege on schema "
            f'"{schema}". GRANT CREATE ON SCHEMA "{schema}" to the user, or make it the owner of the database.',
        )
    owned = "SELECT pg_has_role(relowner, 'USAGE') FROM pg_class WHERE oid = to_regclass('alembic_version')"
    if has_tables and await fetch_value(conn, owned) != "True":
        return ConfigurationError(
            Reason.DATABASE_PRIVILEGE_MISSING,
            "MLflow's tables cannot be migrated because they belong to another user. REASSIGN OWNED to the user, or "
            "GRANT it the role that owns them.",
        )
    return None
