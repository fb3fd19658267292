"""Alternating logins of an embedded Postgres."""

from collections.abc import Iterator
from contextlib import closing

import psycopg
import pytest

from mlflow_operator.clients.postgres.roles import PostgresRoles
from mlflow_operator.clients.postgres.session import Sessions
from mlflow_operator.model.postgres_uri import Connection
from mlflow_operator.model.provisioning import Login
from mlflow_operator.status.conditions import Reason
from mlflow_operator.status.errors import ConfigurationError
from tests.contracts.postgres import Instance

ROLES = PostgresRoles(Sessions())
OWNER, FIELD = "own_er's", "spec.database.embedded"
FIRST, SECOND = Login("own_er's_a", "first 'password"), Login("own_er's_b", "second")


@pytest.fixture
def owner_connection(instance: Instance) -> Iterator[Connection]:
    """The state after the image's first start: a superuser with a password, and its database."""
    escaped_name = OWNER.replace("'", "''")
    instance.query(f"CREATE ROLE \"{OWNER}\" LOGIN SUPERUSER PASSWORD 'initial'")
    instance.query(f'CREATE DATABASE "{escaped_name}" OWNER "{OWNER}"')
    yield instance.connection(OWNER, "initial", escaped_name)
    instance.query(f'DROP DATABASE "{escaped_name}" WITH (FORCE)')
    for role in (FIRST.name, SECOND.name, OWNER):
        instance.query(f'DROP ROLE IF EXISTS "{role}"')


def can_log_in(instance: Instance, owner_connection: Connection, name: str, password: str) -> bool:
    """Whether a login can connect to the database."""
    try:
        instance.query("SELECT 1", database=owner_connection.database, user=name, password=password)
    except psycopg.OperationalError:
        return False
    return True


def connection_as(owner_connection: Connection, login: Login) -> Connection:
    """The same database with another login."""
    return owner_connection.with_credentials(login.name, login.password)


async def test_both_logins_work_until_one_is_deleted(
    instance: Instance, owner_connection: Connection
) -> None:
    """The new login acts as the owner from its first statement on."""
    await ROLES.ensure_login(owner_connection, OWNER, FIRST, FIELD)
    login_parameters = {"user": FIRST.name, "password": FIRST.password}
    assert instance.query("SELECT current_user", database=owner_connection.database, **login_parameters) == [
        (OWNER,)
    ]
    instance.query("CREATE TABLE made (a int)", database=owner_connection.database, **login_parameters)
    assert can_log_in(instance, owner_connection, OWNER, "initial")

    await ROLES.delete_login(connection_as(owner_connection, FIRST), OWNER, OWNER, FIELD)
    assert not can_log_in(instance, owner_connection, OWNER, "initial")
    table_owner = "SELECT pg_get_userbyid(relowner) FROM pg_class WHERE relname = 'made'"
    assert instance.query(table_owner, database=owner_connection.database, **login_parameters) == [(OWNER,)]


async def test_logins_can_alternate_repeatedly(instance: Instance, owner_connection: Connection) -> None:
    """Each login creates and deletes the other one. Objects that a login owns itself are transferred to the owner."""
    await ROLES.ensure_login(owner_connection, OWNER, FIRST, FIELD)
    create_own_table = f'SET ROLE "{FIRST.name}"; CREATE TABLE its_own (a int); SET ROLE NONE'
    instance.query(f'GRANT CREATE ON SCHEMA public TO "{FIRST.name}"', database=owner_connection.database)
    instance.query(create_own_table, database=owner_connection.database)
    current, other = FIRST, SECOND
    for _ in range(3):
        await ROLES.ensure_login(connection_as(owner_connection, current), OWNER, other, FIELD)
        await ROLES.delete_login(connection_as(owner_connection, other), OWNER, current.name, FIELD)
        assert not can_log_in(instance, owner_connection, current.name, current.password)
        assert can_log_in(instance, owner_connection, other.name, other.password)
        current, other = other, current
    table_owner = "SELECT pg_get_userbyid(relowner) FROM pg_class WHERE relname = 'its_own'"
    assert instance.query(table_owner, database=owner_connection.database) == [(OWNER,)]


async def test_operations_are_idempotent(instance: Instance, owner_connection: Connection) -> None:
    """After an interruption they are repeated: a new password is applied, and a deleted login stays deleted."""
    await ROLES.ensure_login(owner_connection, OWNER, FIRST, FIELD)
    await ROLES.ensure_login(owner_connection, OWNER, Login(FIRST.name, "another"), FIELD)
    assert can_log_in(instance, owner_connection, FIRST.name, "another")
    assert not can_log_in(instance, owner_connection, FIRST.name, FIRST.password)
    for _ in range(2):
        await ROLES.delete_login(owner_connection, OWNER, FIRST.name, FIELD)
    assert not can_log_in(instance, owner_connection, FIRST.name, "another")


async def test_sessions_of_deleted_login_end(instance: Instance, owner_connection: Connection) -> None:
    """Otherwise an open connection would stay usable after its password was replaced."""
    await ROLES.ensure_login(owner_connection, OWNER, FIRST, FIELD)
    login_parameters = {"user": FIRST.name, "password": FIRST.password}
    with closing(instance.session(owner_connection.database, **login_parameters)) as session:
        session.execute("SELECT 1")
        await ROLES.delete_login(owner_connection, OWNER, FIRST.name, FIELD)
        with pytest.raises(psycopg.OperationalError):
            session.execute("SELECT 1")


async def test_wrong_password_is_reported(owner_connection: Connection) -> None:
    """With the same reason as for any database."""
    with pytest.raises(ConfigurationError) as error:
        await ROLES.ensure_login(owner_connection.with_credentials(OWNER, "wrong"), OWNER, FIRST, FIELD)
    assert error.value.reason is Reason.DATABASE_AUTHENTICATION_FAILED


async def test_passwords_are_not_in_postgres_log(instance: Instance, owner_connection: Connection) -> None:
    """Postgres may log statements; this one logs all of them."""
    await ROLES.ensure_login(owner_connection, OWNER, FIRST, FIELD)
    assert FIRST.name.replace("'", "''") in instance.log() or FIRST.name in instance.log()
    assert FIRST.password not in instance.log()
