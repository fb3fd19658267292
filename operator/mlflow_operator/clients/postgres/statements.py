"""SQL statements that create, change and drop databases and roles. psycopg quotes every name."""

from dataclasses import dataclass

from psycopg.sql import SQL, Composed, Identifier, Literal

_BUILTIN_LOCALE_VERSION = 170000
"""First `server_version_num` of Postgres with a built-in UTF-8 locale."""

FIND_ROLE_ATTRIBUTES = SQL(
    "SELECT rolsuper, rolcreaterole, rolcreatedb FROM pg_roles WHERE rolname = session_user"
)

FIND_ROLE_COMMENT = SQL("SELECT shobj_description(oid, 'pg_authid') FROM pg_roles WHERE rolname = %s")

FIND_DATABASE = SQL(
    "SELECT oid, shobj_description(oid, 'pg_database'), pg_get_userbyid(datdba) "
    "FROM pg_database WHERE datname = %s"
)

FIND_LOCALE = SQL(
    "SELECT collcollate FROM pg_collation WHERE collprovider = 'c' AND lower(collcollate) IN ('c.utf-8', 'c.utf8') "
    "ORDER BY 1 LIMIT 1"
)

TERMINATE_SESSIONS = SQL(
    # Waits up to 5000 milliseconds for each session: a session that is still ending prevents DROP DATABASE.
    "SELECT pg_terminate_backend(pid, 5000) FROM pg_stat_activity WHERE usename = %s AND pid <> pg_backend_pid()"
)

REVOKE_SCHEMA_FROM_PUBLIC = SQL("REVOKE ALL ON SCHEMA public FROM PUBLIC")

SET_ROLE_NONE = SQL("SET ROLE NONE")

SESSION_SETUP = (SQL("SET search_path TO ''"), SET_ROLE_NONE)
"""First statements of every session. The owner of a database can set a search_path for it, with tables and functions
that shadow those of Postgres and that the administrator would then execute; or a role that the session acts as."""


@dataclass(frozen=True)
class Locale:
    """Locale of a database, for sorting and character classes: Postgres' own (`builtin`) and the system's (`libc`)."""

    builtin: str | None
    libc: str


def choose_locale(version: int, libc: str | None) -> Locale:
    """Return the locale for this version of Postgres. `libc` is the operating system's UTF-8 locale, if any.

    Sorting is by code point, as in MLflow's own tests, and the same on every machine. Letters beyond ASCII must be
    known, otherwise ILIKE does not match É and é. Postgres 17 and later have such a locale built in, so that an update
    of the operating system cannot corrupt indexes. Earlier versions use the operating system's; without one, ILIKE
    ignores case only for ASCII.
    """
    return Locale("C.UTF-8", "C") if version >= _BUILTIN_LOCALE_VERSION else Locale(None, libc or "C")


def create_owner(role: str) -> Composed:
    """Create a role that owns objects and cannot log in."""
    return SQL("CREATE ROLE {} NOLOGIN").format(Identifier(role))


def create_login(name: str, verifier: str, owner: str) -> Composed:
    """Create a role that can log in and is a member of the owner."""
    return SQL("CREATE ROLE {} LOGIN PASSWORD {} IN ROLE {}").format(
        Identifier(name), Literal(verifier), Identifier(owner)
    )


def alter_login(name: str, verifier: str) -> Composed:
    """Set the password, and allow the role to log in."""
    return SQL("ALTER ROLE {} LOGIN PASSWORD {}").format(Identifier(name), Literal(verifier))


def set_login_limit(name: str, max_connections: int) -> Composed:
    """Limit the concurrent connections of a login. Unlike the limit of a database, its owner cannot change it."""
    return SQL("ALTER ROLE {} CONNECTION LIMIT {}").format(Identifier(name), Literal(max_connections))


def disable_login(name: str) -> Composed:
    """Prevent new sessions of the role."""
    return SQL("ALTER ROLE {} NOLOGIN").format(Identifier(name))


def set_default_role(name: str, owner: str) -> Composed:
    """Make all future sessions of `name` act as `owner` from their first statement on."""
    return SQL("ALTER ROLE {} SET role TO {}").format(Identifier(name), Literal(owner))


def grant_membership(role: str, member: str) -> Composed:
    """Make `member` a member of `role`."""
    return SQL("GRANT {} TO {}").format(Identifier(role), Identifier(member))


def grant_to_current_user(role: str, *, explicit_options: bool) -> Composed:
    """Allow the current user to act as `role`. `explicit_options`: Postgres 16 and later, which has the option SET."""
    options = SQL(" WITH SET TRUE, INHERIT TRUE" if explicit_options else "")
    return SQL("GRANT {} TO CURRENT_USER{}").format(Identifier(role), options)


def set_role(role: str) -> Composed:
    """Act as `role` until SET_ROLE_NONE."""
    return SQL("SET ROLE {}").format(Identifier(role))


def create_database(database: str, owner: str, locale: Locale) -> Composed:
    """Create a database from template0, the only template that allows another encoding and locale than its own."""
    statement = SQL(
        "CREATE DATABASE {} OWNER {} TEMPLATE template0 ENCODING 'UTF8' LC_COLLATE {} LC_CTYPE {}"
    ).format(Identifier(database), Identifier(owner), Literal(locale.libc), Literal(locale.libc))
    if locale.builtin:
        return statement + SQL(" LOCALE_PROVIDER builtin BUILTIN_LOCALE {}").format(Literal(locale.builtin))
    return statement + SQL(" LOCALE_PROVIDER libc")


def revoke_database_from_public(database: str) -> Composed:
    """Allow only the owner and its members to connect and to create temporary tables."""
    return SQL("REVOKE ALL ON DATABASE {} FROM PUBLIC").format(Identifier(database))


def set_connection_limit(database: str, max_connections: int) -> Composed:
    """Limit the number of concurrent connections. Postgres does not apply the limit to superusers."""
    return SQL("ALTER DATABASE {} CONNECTION LIMIT {}").format(Identifier(database), Literal(max_connections))


def comment_on_role(role: str, marker: str) -> Composed:
    """Set the comment that identifies the server for which the role was created."""
    return SQL("COMMENT ON ROLE {} IS {}").format(Identifier(role), Literal(marker))


def comment_on_database(database: str, marker: str) -> Composed:
    """Set the comment that identifies the server for which the database was created."""
    return SQL("COMMENT ON DATABASE {} IS {}").format(Identifier(database), Literal(marker))


def reassign_owned(name: str, owner: str) -> Composed:
    """Transfer all objects that `name` owns in the current database to `owner`."""
    return SQL("REASSIGN OWNED BY {} TO {}").format(Identifier(name), Identifier(owner))


def drop_owned(name: str) -> Composed:
    """Revoke the privileges of `name` in the current database, and drop what it still owns there."""
    return SQL("DROP OWNED BY {}").format(Identifier(name))


def drop_database(database: str, *, force: bool) -> Composed:
    """Drop the database with all its contents.

    `force` terminates the sessions of the current role's members. Postgres refuses it if other roles have sessions,
    including its own autovacuum. Without `force` Postgres terminates only autovacuum.
    """
    options = SQL(" WITH (FORCE)") if force else SQL("")
    return SQL("DROP DATABASE IF EXISTS {}{}").format(Identifier(database), options)


def drop_role(role: str) -> Composed:
    """Drop the role if it exists."""
    return SQL("DROP ROLE IF EXISTS {}").format(Identifier(role))


def comment_statement(object_type: str, name: str, marker: str) -> str:
    """Return the statement, as text for messages, that assigns an existing role or database to this server."""
    statement = comment_on_role(name, marker) if object_type == "role" else comment_on_database(name, marker)
    return statement.as_string(None)
