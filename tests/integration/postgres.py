"""One Postgres on loopback, with databases that MLflow seems to have migrated already."""

import os
import shutil
import signal
import subprocess
import tempfile
import uuid
from pathlib import Path

import psycopg

from mlflow_operator.core.versions import SCHEMA_HEADS, TESTED
from tests.apiserver.processes import STOP_SECONDS, Missing, Process, accepts_connections, free_port

USER = "mlflow"
PASSWORD = "password"
TEMPLATE = "migrated"
_NOBODY = 65534
_DEBIAN = Path("/usr/lib/postgresql")


class Postgres:
    """A running Postgres. `stop` must be called at the end."""

    def __init__(self) -> None:
        """Create a cluster of databases in a temporary directory and start it."""
        initdb, server = find("initdb"), find("postgres")
        self.port = free_port()
        # Postgres refuses to run as root, and the directories of pytest are closed to other users.
        self._user = _NOBODY if os.geteuid() == 0 else None
        self._folder = Path(tempfile.mkdtemp(prefix="postgres-"))
        if self._user is not None:
            os.chown(self._folder, self._user, self._user)
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
        self._query("INSERT INTO alembic_version VALUES (%s)", database, SCHEMA_HEADS[TESTED])
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


def find(name: str) -> str:
    """A program of Postgres: from PATH, or where Debian keeps it. Missing says how to install it."""
    places = [
        os.environ.get("PATH", ""),
        *(str(found) for found in sorted(_DEBIAN.glob("*/bin"), reverse=True)),
    ]
    found = shutil.which(name, path=os.pathsep.join(places))
    if found is None:
        raise Missing(f"{name} is not installed. Install Debian's package postgresql, or put {name} on PATH.")
    return found
