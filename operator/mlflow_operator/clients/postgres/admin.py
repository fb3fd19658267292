"""Databases and roles on a shared Postgres, managed by an administrator who does not have to be a superuser.

CREATEROLE and CREATEDB are sufficient. In Postgres 16 and later, a role that creates another role may grant it but
cannot act as it (SET ROLE) until it grants itself that right. The administrator acts as the owner with SET ROLE, which
also works if it does not inherit the owner's privileges.

The operator only touches objects that carry the plan's marker as their comment. CREATE DATABASE cannot run in a
transaction, so a database without a comment counts as the server's if its owner does: a role is created together with
its comment in one transaction.
"""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, replace
from typing import Any

import psycopg
from psycopg.sql import SQL, Composed

from mlflow_operator.clients.postgres import statements
from mlflow_operator.clients.postgres.errors import read_only
from mlflow_operator.clients.postgres.session import Session, Sessions
from mlflow_operator.model import provisioning
from mlflow_operator.model.postgres_uri import Connection
from mlflow_operator.model.provisioning import DatabasePlan, Login
from mlflow_operator.status.conditions import Reason
from mlflow_operator.status.errors import ConfigurationError, TransientError

_SESSION_TIMEOUT_SECONDS = 30
"""Timeout of a whole session: creating fifty databases at once keeps a small Postgres busy for a while."""

_EXPLICIT_GRANT_VERSION = 160000
"""First `server_version_num` that separates the right to create a role from the right to act as it."""


class PostgresAdmin:
    """Provisions databases on a shared Postgres with the administrator's credentials."""

    def __init__(self, sessions: Sessions) -> None:
        self._sessions = sessions

    async def check(self, admin: Connection, ca_path: str | None, field: str) -> None:
        """Check that the administrator can log in and may create roles and databases. Writes nothing.

        Arguments as in `provision`. Raises ConfigurationError or TransientError.
        """
        async with self._open(admin, ca_path, field) as server:
            await server.check_attributes()

    async def provision(  # noqa: PLR0913
        self,
        admin: Connection,
        ca_path: str | None,
        plan: DatabasePlan,
        login: Login,
        field: str,
        *,
        create: bool = True,
    ) -> None:
        """Create or update the database, its owner and `login` according to the plan.

        `admin.database` is the database that the administrator connects to first, such as `postgres`. `ca_path` is a
        local file, `field` the spec field that messages refer to. With `create` False a missing database counts as
        lost and is not created: an empty database in its place would hide the loss.
        Raises ConfigurationError (ProvisioningDenied, NameConflict, DatabaseLost and the errors of any session) or
        TransientError.
        """
        async with self._open(admin, ca_path, field) as server:
            await server.check_privileges(plan, create=create)
            await server.ensure_owner(plan)
            await server.adopt_roles(plan, login, is_in_use=not create)
            await server.ensure_database(plan)
            await server.ensure_login(plan, login)
        async with self._open(replace(admin, database=plan.database), ca_path, field) as database:
            await database.revoke_schema_from_public(plan)

    async def ensure_login(
        self, admin: Connection, ca_path: str | None, plan: DatabasePlan, login: Login, field: str
    ) -> None:
        """Create `login` or set its password. The owner and the database must exist. Arguments as in `provision`."""
        async with self._open(admin, ca_path, field) as server:
            await server.require_database(plan)
            await server.ensure_login(plan, login)

    async def delete_login(
        self, admin: Connection, ca_path: str | None, plan: DatabasePlan, login_name: str, field: str
    ) -> None:
        """Terminate the sessions of a login, transfer what it owns to the owner, and drop it.

        Does nothing if the login is missing. Arguments as in `provision`. The pods that use the login must be gone,
        because their sessions end.
        """
        async with self._open(admin, ca_path, field) as server:
            if not await server.disable_login(plan, login_name):
                return
            database_exists = await server.find_database(plan) is not None
        if database_exists:
            async with self._open(replace(admin, database=plan.database), ca_path, field) as database:
                await database.reassign_owned(plan, login_name)
        async with self._open(admin, ca_path, field) as server:
            await server.drop_role(login_name)

    async def deprovision(
        self, admin: Connection, ca_path: str | None, plan: DatabasePlan, field: str
    ) -> None:
        """Drop the database with all its contents, the logins and the owner. Any of them may be missing.

        Arguments as in `provision`.
        """
        async with self._open(admin, ca_path, field) as server:
            for name in plan.logins:
                await server.disable_login(plan, name)
            await server.drop_database(plan)
            for name in (*plan.logins, plan.role):
                if await server.role_exists(plan, name):
                    await server.drop_role(name)

    @asynccontextmanager
    async def _open(
        self, admin: Connection, ca_path: str | None, field: str
    ) -> AsyncIterator["_AdminSession"]:
        address = admin.address
        credentials_field = f"{field}.adminSecretRef"
        async with self._sessions.open(admin, ca_path, credentials_field, _SESSION_TIMEOUT_SECONDS) as conn:
            for statement in statements.SESSION_SETUP:
                await conn.execute(statement)
            row = await (await conn.execute(statements.FIND_ROLE_ATTRIBUTES)).fetchone()
            superuser, roles, databases = (bool(attribute) for attribute in row or (False, False, False))
            try:
                yield _AdminSession(
                    conn, address, field, superuser, superuser or roles, superuser or databases
                )
            except psycopg.errors.InsufficientPrivilege:
                raise ConfigurationError(
                    Reason.PROVISIONING_DENIED,
                    f"The administrator in {field}.adminSecretRef lacks a privilege at {address}. It needs the "
                    "attributes CREATEROLE and CREATEDB, and the roles that were created for this server WITH ADMIN "
                    "OPTION.",
                ) from None


@dataclass(frozen=True)
class _AdminSession:
    """Session of the administrator, and the administrator's attributes."""

    session: Session
    address: str
    field: str
    superuser: bool
    can_create_roles: bool
    can_create_databases: bool

    @property
    def server_version(self) -> int:
        return self.session.info.server_version

    async def check_attributes(self) -> None:
        self._require_attribute(self.can_create_roles, "create roles", "CREATEROLE")
        self._require_attribute(self.can_create_databases, "create databases", "CREATEDB")
        row = await (await self.session.execute("SHOW transaction_read_only")).fetchone()
        if row and row[0] == "on":
            raise read_only(self.address, self.field)

    async def check_privileges(self, plan: DatabasePlan, *, create: bool) -> None:
        """Check all privileges before anything is created.

        Otherwise an administrator who lacks one would leave roles that another administrator cannot manage.
        """
        roles_exist = [await self.role_exists(plan, name) for name in (plan.role, *plan.logins)]
        database_exists = await self.find_database(plan) is not None
        if not database_exists and not create:
            raise ConfigurationError(
                Reason.DATABASE_LOST,
                f'The database "{plan.database}" at {self.address} no longer exists. The operator does not create an '
                "empty database in its place. Restore it under this name from a backup, with the role "
                f'"{plan.role}" as its owner.',
            )
        self._require_attribute(self.can_create_roles or all(roles_exist), "create roles", "CREATEROLE")
        self._require_attribute(self.can_create_databases or database_exists, "create databases", "CREATEDB")

    async def ensure_owner(self, plan: DatabasePlan) -> None:
        if not await self.role_exists(plan, plan.role):
            async with self.session.transaction():
                await self.execute(statements.create_owner(plan.role))
                await self.execute(statements.comment_on_role(plan.role, plan.marker))
        await self.grant_set_role(plan.role)

    async def adopt_roles(self, plan: DatabasePlan, login: Login, *, is_in_use: bool) -> None:
        """Mark adopted roles as this server's, so that they remain its own without an entry in spec.adoptions.

        A login is marked once the earlier namespace has no access with it: `login` has its new password, the other one
        stays disabled until a rotation, and the sessions of both are terminated. `login` itself is never disabled: with
        a restored Secret, the operator would not notice after a crash that it has to continue here.
        `is_in_use`: the server has run with this database. If it used no platform then, its logins and sessions stay.
        """
        if not plan.adopts:
            return
        for name in (*plan.logins, plan.role):
            row = await self._fetch_row(statements.FIND_ROLE_COMMENT, name)
            if row is None or provisioning.is_marker_of(row[0], plan.marker):
                continue
            if is_in_use and not provisioning.has_namespace(row[0]):
                pass
            elif name == login.name:
                self._require_attribute(self.can_create_roles, "change passwords", "CREATEROLE")
                await self.execute(statements.alter_login(name, await self._password_verifier(login)))
                await self._terminate_sessions(name)
            elif name != plan.role:
                await self.disable_login(plan, name)
            await self.execute(statements.comment_on_role(name, plan.marker))

    async def ensure_database(self, plan: DatabasePlan) -> None:
        if await self.find_database(plan) is None:
            locale = await self._locale()
            await self.execute(statements.create_database(plan.database, plan.role, locale))
        async with self.as_role(plan.role):
            await self.execute(statements.revoke_database_from_public(plan.database))
            await self.execute(statements.set_connection_limit(plan.database, plan.connection_limit))
            await self.execute(statements.comment_on_database(plan.database, plan.marker))

    async def ensure_login(self, plan: DatabasePlan, login: Login) -> None:
        login_exists = await self.role_exists(plan, login.name)
        self._require_attribute(self.can_create_roles, "create roles or change their passwords", "CREATEROLE")
        verifier = await self._password_verifier(login)
        async with self.session.transaction():
            if login_exists:
                await self.execute(statements.alter_login(login.name, verifier))
                await self.execute(statements.grant_membership(plan.role, login.name))
            else:
                await self.execute(statements.create_login(login.name, verifier, plan.role))
                await self.execute(statements.comment_on_role(login.name, plan.marker))
            await self.execute(statements.set_default_role(login.name, plan.role))
            await self.execute(statements.set_login_limit(login.name, plan.connection_limit))

    async def require_database(self, plan: DatabasePlan) -> None:
        """Raise DatabaseLost unless the owner and the database exist, NameConflict if they are not the server's."""
        if not await self.role_exists(plan, plan.role) or await self.find_database(plan) is None:
            raise ConfigurationError(
                Reason.DATABASE_LOST,
                f'The database "{plan.database}" at {self.address}, or the role "{plan.role}" that owns it, no longer '
                "exists. Restore both from a backup.",
            )

    async def revoke_schema_from_public(self, plan: DatabasePlan) -> None:
        async with self.as_role(plan.role):
            await self.execute(statements.REVOKE_SCHEMA_FROM_PUBLIC)

    async def disable_login(self, plan: DatabasePlan, name: str) -> bool:
        """Terminate the sessions of a login and prevent new ones. Return whether the login exists."""
        if not await self.role_exists(plan, name):
            return False
        self._require_attribute(self.can_create_roles, "change roles", "CREATEROLE")
        await self.execute(statements.disable_login(name))
        await self._terminate_sessions(name)
        return True

    async def _terminate_sessions(self, name: str) -> None:
        await self.grant_set_role(name)
        async with self.as_role(name):
            await self.session.execute(statements.TERMINATE_SESSIONS, (name,))

    async def reassign_owned(self, plan: DatabasePlan, name: str) -> None:
        async with self.as_role(name):
            await self.execute(statements.reassign_owned(name, plan.role))
            await self.execute(statements.drop_owned(name))

    async def drop_database(self, plan: DatabasePlan) -> None:
        if await self.find_database(plan) is None:
            return
        if not await self.role_exists(plan, plan.role):
            raise self._name_conflict("database", plan.database, "or drop it manually", plan)
        await self.grant_set_role(plan.role)
        async with self.as_role(plan.role):
            try:
                await self.execute(statements.drop_database(plan.database, force=True))
            except (psycopg.errors.ObjectInUse, psycopg.errors.InsufficientPrivilege):
                await self._drop_without_force(plan)

    async def _drop_without_force(self, plan: DatabasePlan) -> None:
        try:
            await self.execute(statements.drop_database(plan.database, force=False))
        except psycopg.errors.ObjectInUse:
            raise TransientError(
                Reason.PROVISIONING_DENIED,
                f'The database "{plan.database}" at {self.address} cannot be dropped while other users are connected '
                "to it. End their sessions.",
            ) from None

    async def drop_role(self, name: str) -> None:
        try:
            await self.execute(statements.drop_role(name))
        except psycopg.errors.DependentObjectsStillExist:
            raise ConfigurationError(
                Reason.PROVISIONING_DENIED,
                f'The role "{name}" at {self.address} cannot be dropped because it owns objects or has privileges in '
                "another database. Run REASSIGN OWNED BY and DROP OWNED BY for it there.",
            ) from None

    async def role_exists(self, plan: DatabasePlan, name: str) -> bool:
        """Return whether the role exists. Raise NameConflict if it was not created for this server."""
        row = await self._fetch_row(statements.FIND_ROLE_COMMENT, name)
        if row is not None and not plan.owns(row[0]):
            raise self._not_owned("role", name, row[0], plan)
        return row is not None

    async def find_database(self, plan: DatabasePlan) -> int | None:
        """Return the OID of the database, None if it does not exist. Raise NameConflict if it is not this server's."""
        row = await self._fetch_row(statements.FIND_DATABASE, plan.database)
        if row is None:
            return None
        oid, comment, owner = row
        if owner != plan.role:
            alternative = "or, to use it for this server, configure it in spec.database.external"
            raise self._name_conflict("database", plan.database, alternative, plan)
        if comment is not None and not plan.owns(comment):
            raise self._not_owned("database", plan.database, comment, plan)
        return int(oid)

    async def grant_set_role(self, role: str) -> None:
        """Grant the administrator the right to act as `role`. A superuser does not need it."""
        if self.superuser:
            return
        explicit_options = self.server_version >= _EXPLICIT_GRANT_VERSION
        try:
            await self.execute(statements.grant_to_current_user(role, explicit_options=explicit_options))
        except psycopg.errors.InsufficientPrivilege:
            raise ConfigurationError(
                Reason.PROVISIONING_DENIED,
                f'The administrator in {self.field}.adminSecretRef cannot act as the role "{role}" at {self.address} '
                "because another role created it. As that role or as a superuser, "
                f'GRANT "{role}" to the administrator WITH ADMIN OPTION.',
            ) from None

    @asynccontextmanager
    async def as_role(self, role: str) -> AsyncIterator[None]:
        """Act as `role`. After an error the role is not reset, because the error ends the session."""
        await self.execute(statements.set_role(role))
        yield
        await self.execute(statements.SET_ROLE_NONE)

    async def execute(self, statement: SQL | Composed) -> None:
        await self.session.execute(statement)

    async def _fetch_row(self, query: SQL, name: str) -> Any:
        return await (await self.session.execute(query, (name,))).fetchone()

    async def _locale(self) -> statements.Locale:
        row = await (await self.session.execute(statements.FIND_LOCALE)).fetchone()
        return statements.choose_locale(self.server_version, str(row[0]) if row else None)

    async def _password_verifier(self, login: Login) -> str:
        """Return the hash that Postgres stores. It is computed here because Postgres may log statements."""
        row = await (await self.session.execute("SHOW password_encryption")).fetchone()
        algorithm = b"md5" if row and row[0] == "md5" else b"scram-sha-256"
        verifier = self.session.pgconn.encrypt_password(
            login.password.encode(), login.name.encode(), algorithm
        )
        return verifier.decode()

    def _require_attribute(self, allowed: bool, action: str, attribute: str) -> None:
        if not allowed:
            raise ConfigurationError(
                Reason.PROVISIONING_DENIED,
                f"The administrator in {self.field}.adminSecretRef is not allowed to {action} at {self.address}. Give "
                f"it the attribute {attribute} there (ALTER ROLE … {attribute}), or configure another administrator.",
            )

    def _not_owned(
        self, object_type: str, name: str, comment: str | None, plan: DatabasePlan
    ) -> ConfigurationError:
        """Return the error for an object with this comment, which does not allow this server to use it."""
        if plan.platform and provisioning.is_of_same_name(comment, plan.marker):
            description = f'The {object_type} "{name}" at {self.address}'
            return provisioning.adoption_required(description, plan.marker, plan.platform, comment)
        return self._name_conflict(object_type, name, _adoption_hint(object_type, name, plan), plan)

    def _name_conflict(
        self, object_type: str, name: str, alternative: str, plan: DatabasePlan
    ) -> ConfigurationError:
        fix = f"Choose another name in {self.field}.{object_type}Name, {alternative}"
        if plan.platform:
            # The name cannot be chosen, and whose the object is can only be decided there.
            fix = f'Ask the administrator of MLflowPlatform "{plan.platform}" to rename or drop it'
        return ConfigurationError(
            Reason.NAME_CONFLICT,
            f'There is a {object_type} "{name}" at {self.address} that was not created for this server. The operator '
            f"does not modify it. {fix}.",
        )


def _adoption_hint(object_type: str, name: str, plan: DatabasePlan) -> str:
    """Return how to assign an object to this server that was created for another server, or manually for this one."""
    statement = statements.comment_statement(object_type, name, plan.marker)
    return f"or, to assign it to this server, execute there: {statement}"
