"""Logins of an embedded database. Two logins alternate, so that a password can be replaced while the other is in use.

The connecting user owns the database and is a superuser, either itself or as a member that acts as the owner.
"""

from psycopg.sql import SQL, Identifier

from mlflow_operator.clients.postgres import statements
from mlflow_operator.clients.postgres.session import Session, Sessions
from mlflow_operator.model.postgres_uri import Connection
from mlflow_operator.model.provisioning import Login


class PostgresRoles:
    """The alternating logins of embedded databases."""

    def __init__(self, sessions: Sessions) -> None:
        self._sessions = sessions

    async def ensure_login(self, connection: Connection, owner: str, login: Login, field: str) -> None:
        """Create `login`, or set its password if it exists, and let it act as `owner`.

        `field` is the spec field that messages refer to. Raise ConfigurationError or TransientError.
        """
        async with self._sessions.open(connection, None, field) as conn:
            verifier = conn.pgconn.encrypt_password(
                login.password.encode(), login.name.encode(), b"scram-sha-256"
            )
            async with conn.transaction():
                if await _role_exists(conn, login.name):
                    await conn.execute(statements.alter_login(login.name, verifier.decode()))
                    await conn.execute(statements.grant_membership(owner, login.name))
                else:
                    await conn.execute(statements.create_login(login.name, verifier.decode(), owner))
                await conn.execute(statements.set_default_role(login.name, owner))

    async def delete_login(self, connection: Connection, owner: str, name: str, field: str) -> None:
        """Terminate the sessions of login `name` and drop it. Do nothing if it does not exist.

        Arguments as in `ensure_login`. The owner, whose password every server starts with, loses only that password: it
        owns the database.
        """
        async with self._sessions.open(connection, None, field) as conn:
            if not await _role_exists(conn, name):
                return
            if name == owner:
                await conn.execute(SQL("ALTER ROLE {} PASSWORD NULL").format(Identifier(name)))
                await conn.execute(statements.TERMINATE_SESSIONS, (name,))
                return
            await conn.execute(statements.disable_login(name))
            await conn.execute(statements.TERMINATE_SESSIONS, (name,))
            await conn.execute(statements.reassign_owned(name, owner))
            await conn.execute(statements.drop_owned(name))
            await conn.execute(statements.drop_role(name))


async def _role_exists(conn: Session, name: str) -> bool:
    cursor = await conn.execute("SELECT 1 FROM pg_roles WHERE rolname = %s", (name,))
    return await cursor.fetchone() is not None
