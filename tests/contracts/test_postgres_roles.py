"""Two logins take turns on a Postgres of the server's own."""

from collections.abc import Iterator
from contextlib import closing

import psycopg
import pytest

from mlflow_operator.clients.postgres.roles import delete_login, ensure_login
from mlflow_operator.model.postgres_uri import Connection
from mlflow_operator.model.provisioning import Login
from mlflow_operator.status.conditions import Reason
from mlflow_operator.status.errors import ConfigurationError
from tests.contracts.postgres import Instance

OWNER, FIELD = "own_er's", "spec.database.embedded"
FIRST, SECOND = Login("own_er's_a", "first 'password"), Login("own_er's_b", "second")


@pytest.fixture
def owned(instance: Instance) -> Iterator[Connection]:
    """As the image leaves it: a superuser with a password, and its database."""
    quoted = OWNER.replace("'", "''")
    instance.query(f"CREATE ROLE \"{OWNER}\" LOGIN SUPERUSER PASSWORD 'initial'")
    instance.query(f'CREATE DATABASE "{quoted}" OWNER "{OWNER}"')
    yield instance.connection(OWNER, "initial", quoted)
    instance.query(f'DROP DATABASE "{quoted}" WITH (FORCE)')
    for role in (FIRST.name, SECOND.name, OWNER):
        instance.query(f'DROP ROLE IF EXISTS "{role}"')


def gets_in(instance: Instance, owned: Connection, name: str, password: str) -> bool:
    """Whether a password opens the database."""
    try:
        instance.query("SELECT 1", database=owned.database, user=name, password=password)
    except psycopg.OperationalError:
        return False
    return True


def opened_by(owned: Connection, login: Login) -> Connection:
    """The same database, by another login."""
    return owned.with_credentials(login.name, login.password)


async def test_both_get_in_until_one_is_shut_out(instance: Instance, owned: Connection) -> None:
    """And the one that is let in acts as the owner from its first statement on."""
    await ensure_login(owned, OWNER, FIRST, FIELD)
    who = {"user": FIRST.name, "password": FIRST.password}
    assert instance.query("SELECT current_user", database=owned.database, **who) == [(OWNER,)]
    instance.query("CREATE TABLE made (a int)", database=owned.database, **who)
    assert gets_in(instance, owned, OWNER, "initial")

    await delete_login(opened_by(owned, FIRST), OWNER, OWNER, FIELD)
    assert not gets_in(instance, owned, OWNER, "initial")
    made = "SELECT pg_get_userbyid(relowner) FROM pg_class WHERE relname = 'made'"
    assert instance.query(made, database=owned.database, **who) == [(OWNER,)]


async def test_they_take_turns_for_ever(instance: Instance, owned: Connection) -> None:
    """Each lets the other in and shuts it out; what one owned in its own name is the owner's then."""
    await ensure_login(owned, OWNER, FIRST, FIELD)
    own = f'SET ROLE "{FIRST.name}"; CREATE TABLE its_own (a int); SET ROLE NONE'
    instance.query(f'GRANT CREATE ON SCHEMA public TO "{FIRST.name}"', database=owned.database)
    instance.query(own, database=owned.database)
    current, other = FIRST, SECOND
    for _ in range(3):
        await ensure_login(opened_by(owned, current), OWNER, other, FIELD)
        await delete_login(opened_by(owned, other), OWNER, current.name, FIELD)
        assert not gets_in(instance, owned, current.name, current.password)
        assert gets_in(instance, owned, other.name, other.password)
        current, other = other, current
    made = "SELECT pg_get_userbyid(relowner) FROM pg_class WHERE relname = 'its_own'"
    assert instance.query(made, database=owned.database) == [(OWNER,)]


async def test_everything_can_be_done_twice(instance: Instance, owned: Connection) -> None:
    """Whoever is cut off begins again: another password counts, and one that is gone is gone."""
    await ensure_login(owned, OWNER, FIRST, FIELD)
    await ensure_login(owned, OWNER, Login(FIRST.name, "another"), FIELD)
    assert gets_in(instance, owned, FIRST.name, "another")
    assert not gets_in(instance, owned, FIRST.name, FIRST.password)
    for _ in range(2):
        await delete_login(owned, OWNER, FIRST.name, FIELD)
    assert not gets_in(instance, owned, FIRST.name, "another")


async def test_sessions_of_who_is_shut_out_end(instance: Instance, owned: Connection) -> None:
    """Else a connection that somebody keeps would outlive the password it was opened with."""
    await ensure_login(owned, OWNER, FIRST, FIELD)
    who = {"user": FIRST.name, "password": FIRST.password}
    with closing(instance.session(owned.database, **who)) as session:
        session.execute("SELECT 1")
        await delete_login(owned, OWNER, FIRST.name, FIELD)
        with pytest.raises(psycopg.OperationalError):
            session.execute("SELECT 1")


async def test_a_wrong_password_is_told(owned: Connection) -> None:
    """In the words of any database's."""
    with pytest.raises(ConfigurationError) as told:
        await ensure_login(owned.with_credentials(OWNER, "wrong"), OWNER, FIRST, FIELD)
    assert told.value.reason is Reason.DATABASE_AUTHENTICATION_FAILED


async def test_no_password_is_in_a_statement(instance: Instance, owned: Connection) -> None:
    """Statements may be logged; this Postgres logs them all."""
    await ensure_login(owned, OWNER, FIRST, FIELD)
    assert FIRST.name.replace("'", "''") in instance.log() or FIRST.name in instance.log()
    assert FIRST.password not in instance.log()
