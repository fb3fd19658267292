"""Makes databases and roles on a Postgres that many share, as an administrator who need not be superuser.

CREATEROLE and CREATEDB are enough. From Postgres 16 on, whoever makes a role may give it away but not act as it: that
right is granted to oneself first. To act as the owner (SET ROLE) is also what works where the administrator inherits
nothing.

Nothing is touched that does not carry the plan's marker, a comment. A database is made outside of any transaction, so
one without a comment is ours if its owner is: a role and its comment are made in one.
"""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, replace
from typing import Any

import psycopg
from psycopg.sql import SQL, Composed

from mlflow_operator.clients.postgres import statements
from mlflow_operator.clients.postgres.session import Session, session
from mlflow_operator.model import provisioning
from mlflow_operator.model.postgres_uri import Connection
from mlflow_operator.model.provisioning import DatabasePlan, Login
from mlflow_operator.status.conditions import Reason
from mlflow_operator.status.errors import ConfigurationError, TransientError

_SECONDS = 30
"""For all that is done in one session: fifty databases made at a time keep a small Postgres busy for a while."""

_INHERENT_ADMIN = 160000
"""The version from which on making a role and acting as it are two rights."""


async def provision(  # noqa: PLR0913
    admin: Connection, ca_path: str | None, plan: DatabasePlan, login: Login, field: str, *, anew: bool = True
) -> None:
    """Sees to it that the database, its owner and `login` are there and as planned.

    `admin.database` is where the administrator begins, such as `postgres`; `ca_path` is a file of this process; `field`
    is the part of the spec that messages point to. `anew` False: a database that is missing was lost, and is not
    made again, for an empty one in its place would hide that.
    Raises UserMistake (ProvisioningDenied, NameConflict, DatabaseLost and what a look at any database may meet) or
    NotReady.
    """
    async with _administration(admin, ca_path, field) as work:
        await work.could(plan, anew=anew)
        await work.owner(plan)
        await work.database(plan)
        await work.login(plan, login)
    async with _administration(replace(admin, database=plan.database), ca_path, field) as inside:
        await inside.close_schema(plan)


async def ensure_login(
    admin: Connection, ca_path: str | None, plan: DatabasePlan, login: Login, field: str
) -> None:
    """Makes `login`, or gives it this password, if the owner of the database is there. Arguments as for `provision`."""
    async with _administration(admin, ca_path, field) as work:
        await work.require(plan)
        await work.login(plan, login)


async def delete_login(
    admin: Connection, ca_path: str | None, plan: DatabasePlan, login_name: str, field: str
) -> None:
    """Ends the sessions of a login and drops it; what it owns goes to the owner. Fine if it is gone.

    Arguments as for `provision`. Its sessions are ended, so its pods must be gone.
    """
    async with _administration(admin, ca_path, field) as work:
        if not await work.lock_out(plan, login_name):
            return
        there = await work.find_database(plan) is not None
    if there:
        async with _administration(replace(admin, database=plan.database), ca_path, field) as inside:
            await inside.hand_over(plan, login_name)
    async with _administration(admin, ca_path, field) as work:
        await work.drop_role(login_name)


async def drop(admin: Connection, ca_path: str | None, plan: DatabasePlan, field: str) -> None:
    """Drops the database with all that is in it, the logins and the owner. Fine if any of them is gone.

    Arguments as for `provision`.
    """
    async with _administration(admin, ca_path, field) as work:
        for name in plan.logins:
            await work.lock_out(plan, name)
        await work.drop_database(plan)
        for name in (*plan.logins, plan.role):
            if await work.find_role(plan, name):
                await work.drop_role(name)


@dataclass(frozen=True)
class _Administration:
    """A session of the administrator, and what it is."""

    session: Session
    place: str
    field: str
    superuser: bool
    may_make_roles: bool
    may_make_databases: bool

    @property
    def version(self) -> int:
        return self.session.info.server_version

    async def could(self, plan: DatabasePlan, *, anew: bool) -> None:
        """Whether all can be made, before anything is: half of it might belong to one who can't go on."""
        roles = [await self.find_role(plan, name) for name in (plan.role, *plan.logins)]
        there = await self.find_database(plan) is not None
        if not there and not anew:
            raise ConfigurationError(
                Reason.DATABASE_LOST,
                f'The database "{plan.database}" at {self.place} is gone, and nothing empty is put in its place. '
                f'Restore it under this name from a backup, with the role "{plan.role}" as its owner.',
            )
        self._needs(self.may_make_roles or all(roles), "make roles", "CREATEROLE")
        self._needs(self.may_make_databases or there, "make databases", "CREATEDB")

    async def owner(self, plan: DatabasePlan) -> None:
        if not await self.find_role(plan, plan.role):
            async with self.session.transaction():
                await self.do(statements.make_owner(plan.role))
                await self.do(statements.mark_role(plan.role, plan.marker))
        await self.act_as(plan.role)

    async def database(self, plan: DatabasePlan) -> None:
        if await self.find_database(plan) is None:
            locale = await self._locale()
            await self.do(statements.make_database(plan.database, plan.role, locale))
        async with self.acting_as(plan.role):
            await self.do(statements.close_database(plan.database))
            await self.do(statements.limit_database(plan.database, plan.connection_limit))
            await self.do(statements.mark_database(plan.database, plan.marker))

    async def login(self, plan: DatabasePlan, login: Login) -> None:
        there = await self.find_role(plan, login.name)
        self._needs(self.may_make_roles, "make roles or change their passwords", "CREATEROLE")
        verifier = await self._verifier(login)
        async with self.session.transaction():
            if there:
                await self.do(statements.change_login(login.name, verifier))
                await self.do(statements.grant(plan.role, login.name))
            else:
                await self.do(statements.make_login(login.name, verifier, plan.role))
                await self.do(statements.mark_role(login.name, plan.marker))
            await self.do(statements.act_always_as(login.name, plan.role))

    async def require(self, plan: DatabasePlan) -> None:
        """The owner and the database are there and ours."""
        if not await self.find_role(plan, plan.role) or await self.find_database(plan) is None:
            raise ConfigurationError(
                Reason.DATABASE_LOST,
                f'The database "{plan.database}" at {self.place}, or the role "{plan.role}" that owns it, is gone. '
                "Restore both from a backup.",
            )

    async def close_schema(self, plan: DatabasePlan) -> None:
        async with self.acting_as(plan.role):
            await self.do(statements.CLOSE_SCHEMA)

    async def lock_out(self, plan: DatabasePlan, name: str) -> bool:
        """Whether there is such a login; then it has no session and can't have one again."""
        if not await self.find_role(plan, name):
            return False
        self._needs(self.may_make_roles, "change roles", "CREATEROLE")
        await self.do(statements.forbid_login(name))
        await self.act_as(name)
        async with self.acting_as(name):
            await self.session.execute(statements.END_SESSIONS, (name,))
        return True

    async def hand_over(self, plan: DatabasePlan, name: str) -> None:
        async with self.acting_as(name):
            await self.do(statements.hand_over(name, plan.role))
            await self.do(statements.take_rights(name))

    async def drop_database(self, plan: DatabasePlan) -> None:
        if await self.find_database(plan) is None:
            return
        if not await self.find_role(plan, plan.role):
            raise self._not_ours("database", plan.database, "or drop it by hand")
        await self.act_as(plan.role)
        async with self.acting_as(plan.role):
            try:
                await self.do(statements.drop_database(plan.database, force=True))
            except (psycopg.errors.ObjectInUse, psycopg.errors.InsufficientPrivilege):
                await self._drop_idle(plan)

    async def _drop_idle(self, plan: DatabasePlan) -> None:
        try:
            await self.do(statements.drop_database(plan.database, force=False))
        except psycopg.errors.ObjectInUse:
            raise TransientError(
                Reason.PROVISIONING_DENIED,
                f'The database "{plan.database}" at {self.place} is not dropped while other users are connected '
                "to it. End their sessions.",
            ) from None

    async def drop_role(self, name: str) -> None:
        try:
            await self.do(statements.drop_role(name))
        except psycopg.errors.DependentObjectsStillExist:
            raise ConfigurationError(
                Reason.PROVISIONING_DENIED,
                f'The role "{name}" at {self.place} owns something in another database, or has rights there, and is '
                "not dropped. REASSIGN and DROP what is OWNED by it there.",
            ) from None

    async def find_role(self, plan: DatabasePlan, name: str) -> bool:
        """Whether there is such a role; NameConflict if it is not ours."""
        row = await self._row(statements.FIND_ROLE, name)
        if row is not None and not provisioning.is_ours(row[0], plan.marker):
            raise self._not_ours("role", name, _handing_over("role", name, plan))
        return row is not None

    async def find_database(self, plan: DatabasePlan) -> int | None:
        """Its oid; None if there is none. NameConflict if it is not ours."""
        row = await self._row(statements.FIND_DATABASE, plan.database)
        if row is None:
            return None
        oid, comment, owner = row
        if owner != plan.role:
            way = "or, if it shall be this server's, name it in spec.database.external"
            raise self._not_ours("database", plan.database, way)
        if comment is not None and not provisioning.is_ours(comment, plan.marker):
            raise self._not_ours("database", plan.database, _handing_over("database", plan.database, plan))
        return int(oid)

    async def act_as(self, role: str) -> None:
        """Gives the administrator the right to act as `role`; a superuser has it."""
        if self.superuser:
            return
        try:
            await self.do(statements.grant_to_oneself(role, explicit=self.version >= _INHERENT_ADMIN))
        except psycopg.errors.InsufficientPrivilege:
            raise ConfigurationError(
                Reason.PROVISIONING_DENIED,
                f'The administrator of {self.field}.adminSecretRef may not act as the role "{role}" at {self.place}, '
                f'which another one made. As that one, or as superuser, GRANT "{role}" to it WITH ADMIN OPTION.',
            ) from None

    @asynccontextmanager
    async def acting_as(self, role: str) -> AsyncIterator[None]:
        """What fails in it ends the session, too, so nothing is put back then."""
        await self.do(statements.set_role(role))
        yield
        await self.do(statements.OWN_ROLE)

    async def do(self, statement: SQL | Composed) -> None:
        await self.session.execute(statement)

    async def _row(self, query: SQL, name: str) -> Any:
        return await (await self.session.execute(query, (name,))).fetchone()

    async def _locale(self) -> statements.Locale:
        row = await (await self.session.execute(statements.FIND_LOCALE)).fetchone()
        return statements.locale(self.version, str(row[0]) if row else None)

    async def _verifier(self, login: Login) -> str:
        """What Postgres keeps in place of a password. Made here, for a statement may be logged."""
        row = await (await self.session.execute("SHOW password_encryption")).fetchone()
        kind = b"md5" if row and row[0] == "md5" else b"scram-sha-256"
        made = self.session.pgconn.encrypt_password(login.password.encode(), login.name.encode(), kind)
        return made.decode()

    def _needs(self, allowed: bool, what: str, attribute: str) -> None:
        if not allowed:
            raise ConfigurationError(
                Reason.PROVISIONING_DENIED,
                f"The administrator of {self.field}.adminSecretRef may not {what} at {self.place}. Give it the "
                f"attribute {attribute} there (ALTER ROLE … {attribute}), or name another one.",
            )

    def _not_ours(self, kind: str, name: str, way: str) -> ConfigurationError:
        return ConfigurationError(
            Reason.NAME_CONFLICT,
            f'There is a {kind} "{name}" at {self.place} that was not made for this server, and it is left alone. '
            f"Choose another name in {self.field}.{kind}Name; {way}.",
        )


def _handing_over(kind: str, name: str, plan: DatabasePlan) -> str:
    """How something that was made for another server, or by hand for this one, becomes this one's."""
    return f"or, if it shall be this server's, say so there: {statements.comment(kind, name, plan.marker)}"


@asynccontextmanager
async def _administration(
    admin: Connection, ca_path: str | None, field: str
) -> AsyncIterator[_Administration]:
    place = f"{admin.host}:{admin.port}"
    async with session(admin, ca_path, f"{field}.adminSecretRef", _SECONDS) as found:
        for statement in statements.BEGIN:
            await found.execute(statement)
        row = await (await found.execute(statements.FIND_RIGHTS)).fetchone()
        superuser, roles, databases = (bool(each) for each in row or (False, False, False))
        work = _Administration(found, place, field, superuser, superuser or roles, superuser or databases)
        try:
            yield work
        except psycopg.errors.InsufficientPrivilege:
            raise ConfigurationError(
                Reason.PROVISIONING_DENIED,
                f"The administrator of {field}.adminSecretRef lacks a right at {place}. It needs the attributes "
                "CREATEROLE and CREATEDB, and the roles that were made for this server WITH ADMIN OPTION.",
            ) from None
