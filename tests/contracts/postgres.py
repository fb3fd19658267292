"""A Postgres in a container, and access to it as superuser."""

import subprocess
import tempfile
import time
from collections.abc import Sequence
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import psycopg

from mlflow_operator.model.postgres_uri import Connection

START_TIMEOUT_SECONDS = 60


@dataclass(frozen=True)
class Instance:
    """A running Postgres. `container` is empty if the tests did not start it."""

    host: str
    port: int
    user: str
    password: str
    container: str = ""

    def connection(self, user: str, password: str, database: str = "postgres") -> Connection:
        """The connection parameters for a user."""
        return Connection(self.host, self.port, database, user, password)

    def session(self, database: str = "postgres", **login: Any) -> "psycopg.Connection[tuple[Any, ...]]":
        """Open a session as the superuser, or as the `user` and `password` in `login`."""
        parameters = {"user": self.user, "password": self.password, "client_encoding": "UTF8", **login}
        return psycopg.connect(host=self.host, port=self.port, dbname=database, autocommit=True, **parameters)

    def query(
        self, sql: str, values: Sequence[Any] = (), database: str = "postgres", **login: Any
    ) -> list[tuple[Any, ...]]:
        """Execute a statement and return its rows; empty if it returns none."""
        with closing(self.session(database, **login)) as session:
            cursor = session.execute(sql.encode(), values or None)
            return cursor.fetchall() if cursor.description else []

    def create_admin(self, name: str, password: str, attributes: str = "CREATEROLE CREATEDB") -> Connection:
        """Create an administrator as in managed Postgres services: with these attributes, not a superuser."""
        self.query(f"CREATE ROLE \"{name}\" LOGIN {attributes} PASSWORD '{password}'")
        return self.connection(name, password)

    def database_oids(self) -> dict[str, int]:
        """The OIDs of all databases by name."""
        return dict(self.query("SELECT datname, oid FROM pg_database"))

    def role_names(self) -> set[str]:
        """The names of all roles."""
        return {row[0] for row in self.query("SELECT rolname FROM pg_roles")}

    def run_script(self, script: str) -> None:
        """Run a shell script in the container."""
        _docker("exec", self.container, "sh", "-ec", script)

    def log(self) -> str:
        """The log; empty if the tests did not start this Postgres."""
        return _docker("logs", self.container) if self.container else ""


def start(image: str, *options: str, script: str = "", data_megabytes: int = 512) -> Instance:
    """Start a new Postgres on a free port of loopback. Its data, at most `data_megabytes`, is in memory.

    `script` runs as the Postgres user after the data directory is initialized.
    """
    with tempfile.TemporaryDirectory() as folder:
        init = Path(folder, "init.sh")
        init.write_text(script)
        init.chmod(0o644)
        container = _docker(
            *("run", "-d", "-p", "127.0.0.1::5432", "-e", "POSTGRES_PASSWORD=root"),
            *("--tmpfs", f"/var/lib/postgresql/data:size={data_megabytes}m"),
            *("-v", f"{init}:/docker-entrypoint-initdb.d/init.sh:ro"),
            *(image, "-c", "fsync=off", *options),
        )
        host, _, port = _docker("port", container, "5432/tcp").partition(":")
        instance = Instance(host, int(port), "postgres", "root", container)
        try:
            _wait_until_ready(instance)
        except BaseException:
            stop(instance)
            raise
    return instance


def _wait_until_ready(instance: Instance) -> None:
    deadline = time.monotonic() + START_TIMEOUT_SECONDS
    while True:
        try:
            instance.query("SELECT 1")
        except psycopg.OperationalError:
            assert time.monotonic() < deadline, instance.log()
            time.sleep(0.2)
        else:
            return


def stop(instance: Instance) -> None:
    """Delete the container and its data."""
    _docker("rm", "-f", "-v", instance.container)


def _docker(*argv: str) -> str:
    process = subprocess.run(
        ("docker", *argv), stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, check=False
    )
    assert process.returncode == 0, process.stdout
    return process.stdout.strip()
