"""A Postgres to try providers on, and its superuser's view of it."""

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

START_SECONDS = 60


@dataclass(frozen=True)
class Instance:
    """One that runs. `container` is empty where it is none of ours."""

    host: str
    port: int
    user: str
    password: str
    container: str = ""

    def connection(self, user: str, password: str, database: str = "postgres") -> Connection:
        """How anybody gets in."""
        return Connection(self.host, self.port, database, user, password)

    def session(self, database: str = "postgres", **who: Any) -> "psycopg.Connection[tuple[Any, ...]]":
        """A session of the superuser, or of the user and the password given."""
        keys = {"user": self.user, "password": self.password, "client_encoding": "UTF8", **who}
        return psycopg.connect(host=self.host, port=self.port, dbname=database, autocommit=True, **keys)

    def query(
        self, sql: str, values: Sequence[Any] = (), database: str = "postgres", **who: Any
    ) -> list[tuple[Any, ...]]:
        """All rows, or none where the statement gives none."""
        with closing(self.session(database, **who)) as session:
            cursor = session.execute(sql.encode(), values or None)
            return cursor.fetchall() if cursor.description else []

    def make_admin(self, name: str, password: str, rights: str = "CREATEROLE CREATEDB") -> Connection:
        """A role such as a managed Postgres gives its customer, no superuser."""
        self.query(f"CREATE ROLE \"{name}\" LOGIN {rights} PASSWORD '{password}'")
        return self.connection(name, password)

    def databases(self) -> dict[str, int]:
        """Every database's oid by its name."""
        return dict(self.query("SELECT datname, oid FROM pg_database"))

    def roles(self) -> set[str]:
        """Every role's name."""
        return {row[0] for row in self.query("SELECT rolname FROM pg_roles")}

    def shell(self, script: str) -> None:
        """Runs a script in the container."""
        _docker("exec", self.container, "sh", "-ec", script)

    def log(self) -> str:
        """All that it has logged; empty where it is none of ours."""
        return _docker("logs", self.container) if self.container else ""


def start(image: str, *options: str, script: str = "", megabytes: int = 512) -> Instance:
    """A new one on a free port of loopback; its data, of so many megabytes at most, is in memory and goes with it.

    `script` is run by its own user once the data is made.
    """
    with tempfile.TemporaryDirectory() as folder:
        init = Path(folder, "init.sh")
        init.write_text(script)
        init.chmod(0o644)
        container = _docker(
            *("run", "-d", "-p", "127.0.0.1::5432", "-e", "POSTGRES_PASSWORD=root"),
            *("--tmpfs", f"/var/lib/postgresql/data:size={megabytes}m"),
            *("-v", f"{init}:/docker-entrypoint-initdb.d/init.sh:ro"),
            *(image, "-c", "fsync=off", *options),
        )
        host, _, port = _docker("port", container, "5432/tcp").partition(":")
        found = Instance(host, int(port), "postgres", "root", container)
        try:
            _until_it_answers(found)
        except BaseException:
            stop(found)
            raise
    return found


def _until_it_answers(instance: Instance) -> None:
    deadline = time.monotonic() + START_SECONDS
    while True:
        try:
            instance.query("SELECT 1")
        except psycopg.OperationalError:
            assert time.monotonic() < deadline, instance.log()
            time.sleep(0.2)
        else:
            return


def stop(instance: Instance) -> None:
    """Away with it."""
    _docker("rm", "-f", "-v", instance.container)


def _docker(*argv: str) -> str:
    done = subprocess.run(
        ("docker", *argv), stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, check=False
    )
    assert done.returncode == 0, done.stdout
    return done.stdout.strip()
