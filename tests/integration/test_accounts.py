"""What the operator reads of MLflow's accounts, with the tables of the pinned MLflow version in a real Postgres."""

import asyncio
import importlib
import sys
from types import ModuleType
from typing import Any

import psycopg
import pytest

from mlflow_operator.clients.password_checks import PasswordChecks
from mlflow_operator.clients.postgres.client import Postgres as PostgresClient
from mlflow_operator.clients.postgres.session import Sessions
from mlflow_operator.model.authentication import Accounts
from mlflow_operator.model.postgres_uri import Connection
from mlflow_operator.model.versions import AUTH_SCHEMA_HEADS, DEFAULT_VERSION
from tests.integration.postgres import PASSWORD, USER, Postgres

pytestmark = pytest.mark.timeout(300)

ADMIN = "admin@example.com"
ADMIN_PASSWORD = "correct horse battery"


class Database:
    """A database with MLflow's tables of accounts."""

    def __init__(self, postgres: Postgres) -> None:
        self.name, self.port = postgres.create_database(), postgres.port
        self.address = f"{USER}:{PASSWORD}@127.0.0.1:{self.port}/{self.name}"

    def store(self) -> Any:
        """MLflow's own store, which migrates the tables."""
        store = importlib.import_module("mlflow.server.auth.sqlalchemy_store").SqlAlchemyStore()
        store.init_db(f"postgresql+psycopg://{self.address}")
        return store

    async def accounts(self, administrator: str | None = ADMIN) -> Accounts | None:
        """Read the accounts as the operator does."""
        connection = Connection("127.0.0.1", self.port, self.name, USER, PASSWORD)
        postgres = PostgresClient(Sessions())
        return (
            await postgres.inspect(connection, None, "spec.database", administrator=administrator)
        ).accounts


@pytest.fixture
def database(postgres: Postgres, monkeypatch: pytest.MonkeyPatch) -> Database:
    """A database of its own for each test. The package that only MLflow's forms need may be missing."""
    forms: Any = ModuleType("flask_wtf.csrf")
    forms.CSRFProtect = object
    monkeypatch.setitem(sys.modules, "flask_wtf", sys.modules.get("flask_wtf") or ModuleType("flask_wtf"))
    monkeypatch.setitem(sys.modules, "flask_wtf.csrf", sys.modules.get("flask_wtf.csrf") or forms)
    return Database(postgres)


async def test_accounts_are_read_as_mlflow_stores_them(database: Database) -> None:
    """Before the tables exist, without an administrator, with one, and after changes in MLflow."""
    assert await database.accounts(None) is None
    assert await database.accounts() == Accounts()
    store = database.store()
    store.create_user("bob", "a password of bob")
    revision = AUTH_SCHEMA_HEADS[DEFAULT_VERSION]
    assert await database.accounts() == Accounts(revision, 1)
    store.create_user(ADMIN, ADMIN_PASSWORD, is_admin=True)
    accounts = await database.accounts()
    assert accounts
    assert (accounts.revision, accounts.users, accounts.is_admin) == (revision, 2, True)
    checks = PasswordChecks()
    assert accounts.password_hash
    assert await checks.matches(accounts.password_hash, ADMIN_PASSWORD) is True
    assert await checks.matches(accounts.password_hash, "a password of bob") is False
    store.update_user(ADMIN, password="another password", is_admin=False)
    accounts = await database.accounts()
    assert accounts
    assert accounts.password_hash
    assert not accounts.is_admin
    assert await checks.matches(accounts.password_hash, "another password") is True
    assert accounts.password_hash not in repr(accounts)


async def test_locked_tables_are_unknown(database: Database) -> None:
    """A migration holds the lock possibly for hours, and a session that waits for it would stay open."""
    database.store()
    with psycopg.connect(f"postgresql://{database.address}") as session:
        session.execute("LOCK TABLE users IN ACCESS EXCLUSIVE MODE")
        async with asyncio.timeout(10):
            assert await database.accounts() is None


async def test_tables_of_another_application_are_no_accounts(database: Database) -> None:
    """A shared database may have a table of the same name, which the user may not even read."""
    with psycopg.connect(f"postgresql://{database.address}", autocommit=True) as session:
        session.execute("CREATE TABLE users (id int)")
        assert await database.accounts() == Accounts()
        session.execute("CREATE TABLE alembic_version_auth (version_num text)")
        assert await database.accounts() == Accounts()
        session.execute("REVOKE ALL ON users FROM CURRENT_USER")
        session.execute("ALTER TABLE users ADD username text, ADD password_hash text, ADD is_admin bool")
        assert await database.accounts() == Accounts()
