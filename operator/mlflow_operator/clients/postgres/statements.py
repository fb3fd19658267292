"""The statements by which databases and roles are made, changed and dropped. Every name is quoted by psycopg."""

from dataclasses import dataclass

from psycopg.sql import SQL, Composed, Identifier, Literal

_BUILTIN = 170000
"""The version from which on Postgres brings a UTF-8 locale of its own."""

FIND_RIGHTS = SQL("SELECT rolsuper, rolcreaterole, rolcreatedb FROM pg_roles WHERE rolname = session_user")

FIND_ROLE = SQL("SELECT shobj_description(oid, 'pg_authid') FROM pg_roles WHERE rolname = %s")

FIND_DATABASE = SQL(
    "SELECT oid, shobj_description(oid, 'pg_database'), pg_get_userbyid(datdba) "
    "FROM pg_database WHERE datname = %s"
)

FIND_LOCALE = SQL(
    "SELECT collcollate FROM pg_collation WHERE collprovider = 'c' AND lower(collcollate) IN ('c.utf-8', 'c.utf8') "
    "ORDER BY 1 LIMIT 1"
)

END_SESSIONS = SQL(
    # waits for each, in milliseconds: one that is still ending is in the way of whoever drops its database
    "SELECT pg_terminate_backend(pid, 5000) FROM pg_stat_activity WHERE usename = %s AND pid <> pg_backend_pid()"
)

CLOSE_SCHEMA = SQL("REVOKE ALL ON SCHEMA public FROM PUBLIC")

OWN_ROLE = SQL("SET ROLE NONE")

BEGIN = (SQL("SET search_path TO ''"), OWN_ROLE)
"""Before anything else: who owns a database may set a search_path for it, with tables and functions of his own in the
place of Postgres', and whoever administers would run them; or a role to act as."""


@dataclass(frozen=True)
class Locale:
    """How a database sorts and tells letters: by Postgres itself (`builtin`), by the operating system (`libc`)."""

    builtin: str | None
    libc: str


def locale(version: int, libc: str | None) -> Locale:
    """The right one on a server of this version, whose operating system knows the UTF-8 locale `libc`.

    Order by code point, as MLflow's own tests have it and every machine, and letters beyond ASCII, without which ILIKE
    would take É and é for two. From 17 on Postgres brings that itself, so that no update of the operating system makes
    its indexes wrong; before, the operating system has it, or letters beyond ASCII stay what they are.
    """
    return Locale("C.UTF-8", "C") if version >= _BUILTIN else Locale(None, libc or "C")


def make_owner(role: str) -> Composed:
    """A role that owns and never logs in."""
    return SQL("CREATE ROLE {} NOLOGIN").format(Identifier(role))


def make_login(name: str, verifier: str, owner: str) -> Composed:
    """A role that logs in, a member of the owner."""
    return SQL("CREATE ROLE {} LOGIN PASSWORD {} IN ROLE {}").format(
        Identifier(name), Literal(verifier), Identifier(owner)
    )


def change_login(name: str, verifier: str) -> Composed:
    """Another password, and the leave to log in."""
    return SQL("ALTER ROLE {} LOGIN PASSWORD {}").format(Identifier(name), Literal(verifier))


def forbid_login(name: str) -> Composed:
    """No new session."""
    return SQL("ALTER ROLE {} NOLOGIN").format(Identifier(name))


def act_always_as(name: str, owner: str) -> Composed:
    """Sessions of `name` act as `owner` from their first statement on."""
    return SQL("ALTER ROLE {} SET role TO {}").format(Identifier(name), Literal(owner))


def grant(role: str, to: str) -> Composed:
    """Membership in `role`."""
    return SQL("GRANT {} TO {}").format(Identifier(role), Identifier(to))


def grant_to_oneself(role: str, *, explicit: bool) -> Composed:
    """The right to act as `role`; `explicit` where it must be named."""
    options = SQL(" WITH SET TRUE, INHERIT TRUE" if explicit else "")
    return SQL("GRANT {} TO CURRENT_USER{}").format(Identifier(role), options)


def set_role(role: str) -> Composed:
    """Acts as `role` until OWN_ROLE."""
    return SQL("SET ROLE {}").format(Identifier(role))


def make_database(database: str, owner: str, locale: Locale) -> Composed:
    """From template0, the only one that takes another encoding and locale than its own."""
    made = SQL(
        "CREATE DATABASE {} OWNER {} TEMPLATE template0 ENCODING 'UTF8' LC_COLLATE {} LC_CTYPE {}"
    ).format(Identifier(database), Identifier(owner), Literal(locale.libc), Literal(locale.libc))
    if locale.builtin:
        return made + SQL(" LOCALE_PROVIDER builtin BUILTIN_LOCALE {}").format(Literal(locale.builtin))
    return made + SQL(" LOCALE_PROVIDER libc")


def close_database(database: str) -> Composed:
    """Nobody but the owner and its members gets in, or makes temporary tables."""
    return SQL("REVOKE ALL ON DATABASE {} FROM PUBLIC").format(Identifier(database))


def limit_database(database: str, connections: int) -> Composed:
    """At most so many at a time; superusers are not counted."""
    return SQL("ALTER DATABASE {} CONNECTION LIMIT {}").format(Identifier(database), Literal(connections))


def mark_role(role: str, marker: str) -> Composed:
    """The comment that says for whom it was made."""
    return SQL("COMMENT ON ROLE {} IS {}").format(Identifier(role), Literal(marker))


def mark_database(database: str, marker: str) -> Composed:
    """The comment that says for whom it was made."""
    return SQL("COMMENT ON DATABASE {} IS {}").format(Identifier(database), Literal(marker))


def hand_over(name: str, owner: str) -> Composed:
    """What `name` owns in this database is the owner's."""
    return SQL("REASSIGN OWNED BY {} TO {}").format(Identifier(name), Identifier(owner))


def take_rights(name: str) -> Composed:
    """Rights of `name` in this database go."""
    return SQL("DROP OWNED BY {}").format(Identifier(name))


def drop_database(database: str, *, force: bool) -> Composed:
    """With all that is in it. `force` ends the sessions of its own users, and is refused if there are others, Postgres'
    own autovacuum among them; without it Postgres sends that one away by itself, and nobody else."""
    forced = SQL(" WITH (FORCE)") if force else SQL("")
    return SQL("DROP DATABASE IF EXISTS {}{}").format(Identifier(database), forced)


def drop_role(role: str) -> Composed:
    """Fine if it is gone."""
    return SQL("DROP ROLE IF EXISTS {}").format(Identifier(role))


def comment(kind: str, name: str, marker: str) -> str:
    """For people: the statement that makes something this server's."""
    made = mark_role(name, marker) if kind == "role" else mark_database(name, marker)
    return made.as_string(None)
