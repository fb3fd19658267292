"""Backup and restore of a database that MLflow shares with other applications, with a real Postgres."""

import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from mlflow.store.tracking.dbmodels.initial_models import Base as InitialBase
from sqlalchemy import create_engine

from mlflow_operator import pod_scripts
from tests.dump_scripts import back_up, load, restore
from tests.integration.postgres import Postgres

SCHEMA = "tracking"


class SharedPostgres:
    """A Postgres with databases in which the user `app` may use one schema."""

    def __init__(self, postgres: Postgres) -> None:
        self.postgres = postgres
        self.programs = next(postgres._folder.rglob("pg_dump")).parent
        self.query("CREATE ROLE app LOGIN PASSWORD 'x'", "postgres")
        self.query(f"ALTER ROLE app SET search_path = {SCHEMA}", "postgres")

    def query(self, sql: str, database: str) -> list[tuple[object, ...]]:
        """Execute a statement as superuser."""
        return self.postgres._query(sql, database)

    def create(self, database: str) -> str:
        """Create a database with an extension and data of another application; return the URI for `app`."""
        self.query(f"CREATE DATABASE {database}", "postgres")
        self.query(
            f"CREATE SCHEMA {SCHEMA} AUTHORIZATION app; CREATE TABLE {SCHEMA}.invoices (id int); "
            f"CREATE VIEW {SCHEMA}.report AS TABLE {SCHEMA}.invoices; "
            "CREATE SCHEMA payroll; CREATE TABLE payroll.salaries (id int); CREATE EXTENSION pg_trgm",
            database,
        )
        return f"postgresql+psycopg://app:x@127.0.0.1:{self.postgres.port}/{database}"

    def tables(self, database: str) -> set[object]:
        """Names of the tables in the schema of `app`."""
        rows = self.query(f"SELECT tablename FROM pg_tables WHERE schemaname = '{SCHEMA}'", database)  # noqa: S608
        return {row[0] for row in rows}

    def full_dump(self, database: str) -> bytes:
        """A dump of the whole database, as earlier operator versions made it."""
        uri = f"postgresql://postgres@127.0.0.1:{self.postgres.port}/{database}"
        return subprocess.run(
            [self.programs / "pg_dump", "--format=custom", uri], check=True, capture_output=True
        ).stdout


@pytest.fixture(scope="module")
def shared() -> Iterator[SharedPostgres]:
    """A Postgres whose database `source` contains the tables of MLflow and of another application."""
    postgres = Postgres()
    try:
        shared = SharedPostgres(postgres)
        uri = shared.create("source")
        engine = create_engine(uri)
        InitialBase.metadata.create_all(engine)
        engine.dispose()
        upgrade = subprocess.run(
            [sys.executable, "-m", "mlflow", "db", "upgrade", uri],
            capture_output=True,
            text=True,
            check=False,
        )
        assert upgrade.returncode == 0, upgrade.stderr
        yield shared
    finally:
        postgres.stop()


def test_backup_contains_the_tables_of_mlflow_only(
    shared: SharedPostgres, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """Including the functions of its triggers. `app` cannot even read the other tables in `payroll`."""
    uri = f"postgresql+psycopg://app:x@127.0.0.1:{shared.postgres.port}/source"
    manifest, dump = back_up(uri, shared.programs, monkeypatch)
    assert set(manifest["tables"]) == shared.tables("source") - {"invoices"}
    assert manifest["databaseSchema"] == SCHEMA
    assert manifest["functions"]
    (tmp_path / "dump").write_bytes(dump)
    contents = subprocess.run(
        [shared.programs / "pg_restore", "--list", tmp_path / "dump"],
        check=True,
        capture_output=True,
        text=True,
    ).stdout
    assert not [
        name for name in ("invoices", "report", "payroll", "EXTENSION", " SCHEMA ") if name in contents
    ]


@pytest.mark.parametrize("table", ["alembic_version", "alembic_version_auth"])
def test_backup_of_a_later_schema_is_refused(
    shared: SharedPostgres, monkeypatch: pytest.MonkeyPatch, table: str
) -> None:
    """The pod has the image of the previous version, which does not know all tables."""
    uri = shared.create(f"later_{table}") + "?application_name=backup"
    revisions = {"alembic_version": "dc11669786a5", "alembic_version_auth": "2ed73881770d"}
    for name, revision in revisions.items():
        shared.query(
            f"CREATE TABLE {SCHEMA}.{name} AS SELECT text '{revision}' AS version_num; "
            f"ALTER TABLE {SCHEMA}.{name} OWNER TO app",
            f"later_{table}",
        )
    assert set(back_up(uri, shared.programs, monkeypatch)[0]["tables"]) == {*revisions}
    shared.query(f"UPDATE {SCHEMA}.{table} SET version_num = 'ffffffffffff'", f"later_{table}")  # noqa: S608
    with pytest.raises(Exception, match=f"does not know the revision ffffffffffff in {table}"):
        back_up(uri, shared.programs, monkeypatch)


@pytest.mark.parametrize("table", ["alembic_version", "alembic_version_auth"])
def test_migration_during_a_backup_is_detected(
    shared: SharedPostgres, monkeypatch: pytest.MonkeyPatch, table: str
) -> None:
    """Even the first migration of basic-auth."""
    name = f"during_{table}"
    database = load(pod_scripts.BACKUP, monkeypatch)["Database"](shared.create(name))
    shared.query(f"CREATE TABLE {SCHEMA}.alembic_version AS SELECT text 'dc11669786a5' version_num", name)
    shared.query(f"GRANT SELECT ON {SCHEMA}.alembic_version TO app", name)
    database.inspect()
    database.check_unchanged()
    shared.query(
        f"DROP TABLE IF EXISTS {SCHEMA}.{table}; "
        f"CREATE TABLE {SCHEMA}.{table} AS SELECT text 'ffffffffffff' version_num; "
        f"ALTER TABLE {SCHEMA}.{table} OWNER TO app",
        name,
    )
    with pytest.raises(Exception, match=f"{table}: from .* to ffffffffffff"):
        database.check_unchanged()


def test_backup_is_restored_beside_other_applications(
    shared: SharedPostgres, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The schema and its other tables exist. A second restore is refused."""
    uri = shared.create("target")
    source = uri.replace("/target", "/source")
    manifest, dump = back_up(source, shared.programs, monkeypatch)
    assert restore(uri, manifest, dump, shared.programs, monkeypatch) == "0"
    assert shared.tables("target") == shared.tables("source")
    triggers = "SELECT tgname FROM pg_trigger WHERE NOT tgisinternal ORDER BY 1"
    assert shared.query(triggers, "target") == shared.query(triggers, "source")
    assert restore(uri, manifest, dump, shared.programs, monkeypatch) == "not_empty"


def test_functions_of_a_manifest_cannot_execute_commands_of_psql(
    shared: SharedPostgres, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """pg_restore disables them for the statements of the dump, and the manifest has no checksum."""
    shared.query("CREATE DATABASE untouched OWNER app", "postgres")
    uri = f"postgresql+psycopg://app:x@127.0.0.1:{shared.postgres.port}/untouched"
    touched = tmp_path / "touched"
    functions = [f"SELECT 1;\n\\! touch {touched}\n"]
    manifest = {"formatVersion": 2, "databaseSchema": SCHEMA, "tables": ["runs"], "functions": functions}
    assert restore(uri, manifest, b"", shared.programs, monkeypatch) != "0"
    assert not touched.exists()


def test_missing_schema_is_created(shared: SharedPostgres, monkeypatch: pytest.MonkeyPatch) -> None:
    uri = f"postgresql+psycopg://app:x@127.0.0.1:{shared.postgres.port}/source"
    manifest, dump = back_up(uri, shared.programs, monkeypatch)
    shared.query("CREATE DATABASE empty OWNER app", "postgres")
    assert restore(uri.replace("/source", "/empty"), manifest, dump, shared.programs, monkeypatch) == "0"
    assert shared.tables("empty") == shared.tables("source") - {"invoices"}


def test_dump_of_a_whole_database_with_extensions_is_restored(
    shared: SharedPostgres, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Only a superuser may create the extension, and the schemas exist."""
    shared.query("CREATE DATABASE earlier", "postgres")
    shared.query(f"CREATE SCHEMA {SCHEMA} AUTHORIZATION app", "earlier")
    uri = f"postgresql+psycopg://app:x@127.0.0.1:{shared.postgres.port}/earlier"
    assert restore(uri, {"formatVersion": 1}, shared.full_dump("source"), shared.programs, monkeypatch) == "0"
    assert shared.tables("earlier") == shared.tables("source")


def test_schema_outside_of_the_search_path_is_refused(
    shared: SharedPostgres, monkeypatch: pytest.MonkeyPatch
) -> None:
    """MLflow would not find its tables."""
    uri = f"postgresql+psycopg://app:x@127.0.0.1:{shared.postgres.port}/postgres"
    manifest = {"formatVersion": 2, "databaseSchema": "elsewhere", "tables": ["runs"], "functions": []}
    assert restore(uri, manifest, b"", shared.programs, monkeypatch) == "search_path"
