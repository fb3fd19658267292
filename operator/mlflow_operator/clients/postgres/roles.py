"""Logins of a database that is all the server's own: two take turns, so that a password is replaced while it is in use.

Whoever connects here owns the database and is superuser, be it as itself or as a member that acts as it.
"""

from psycopg.sql import SQL, Identifier

from mlflow_operator.clients.postgres import statements
from mlflow_operator.clients.postgres.session import Session, session
from mlflow_operator.model.postgres_uri import Connection
from mlflow_operator.model.provisioning import Login


async def ensure_login(connection: Connection, owner: str, login: Login, field: str) -> None:
    """Lets `login` in by its password, to act as `owner`; whether there is such a login already or not.

    `field` is the part of the spec that messages point to. Raises UserMistake or NotReady.
    """
    async with session(connection, None, field) as work:
        made = work.pgconn.encrypt_password(login.password.encode(), login.name.encode(), b"scram-sha-256")
        async with work.transaction():
            if await _is_there(work, login.name):
                await work.execute(statements.change_login(login.name, made.decode()))
                await work.execute(statements.grant(owner, login.name))
            else:
                await work.execute(statements.make_login(login.name, made.decode(), owner))
            await work.execute(statements.act_always_as(login.name, owner))


async def delete_login(connection: Connection, owner: str, name: str, field: str) -> None:
    """Ends the sessions of `name`, and lets it in no more; fine if it is gone. Arguments as for `admit`.

    The owner itself, with whose password every server begins, loses that alone: what it owns is the database.
    """
    async with session(connection, None, field) as work:
        if not await _is_there(work, name):
            return
        if name == owner:
            await work.execute(SQL("ALTER ROLE {} PASSWORD NULL").format(Identifier(name)))
            await work.execute(statements.END_SESSIONS, (name,))
            return
        await work.execute(statements.forbid_login(name))
        await work.execute(statements.END_SESSIONS, (name,))
        await work.execute(statements.hand_over(name, owner))
        await work.execute(statements.take_rights(name))
        await work.execute(statements.drop_role(name))


async def _is_there(work: Session, name: str) -> bool:
    found = await work.execute("SELECT 1 FROM pg_roles WHERE rolname = %s", (name,))
    return await found.fetchone() is not None
