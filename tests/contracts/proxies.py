"""What stands between servers and their stores: a PgBouncer, and a Toxiproxy whose ways can be spoilt."""

import tempfile
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

import psycopg
import requests

from mlflow_operator.model.postgres_uri import Connection
from tests.containers import docker
from tests.e2e.toxiproxy import API, DATABASE, STORE, Way

START_SECONDS = 60
POOLER = {
    "listen_addr": "*",
    "listen_port": "6432",
    "unix_socket_dir": "",
    "pool_mode": "transaction",
    "auth_type": "scram-sha-256",
    "auth_file": "/etc/pgbouncer/userlist.txt",
    "server_login_retry": "1",
}
"""As docs/external-stores.md says."""


@contextmanager
def pgbouncer(image: str, postgres: str, users: Mapping[str, str]) -> Iterator[Connection]:
    """One before the Postgres in a container; gives how nobody gets in: name user, password and database."""
    doubled = [[word.replace('"', '""') for word in pair] for pair in users.items()]
    lines = ["[databases]", f"* = host={address(postgres)} port=5432", "[pgbouncer]"]
    with tempfile.TemporaryDirectory() as folder:
        Path(folder).chmod(0o755)
        Path(folder, "pgbouncer.ini").write_text(
            "\n".join([*lines, *(f"{name} = {value}" for name, value in POOLER.items()), ""])
        )
        Path(folder, "userlist.txt").write_text(
            "".join(f'"{user}" "{password}"\n' for user, password in doubled)
        )
        name = docker("run", "-d", "-p", "127.0.0.1::6432", "-v", f"{folder}:/etc/pgbouncer:ro", image)
        try:
            host, _, port = docker("port", name, "6432/tcp").splitlines()[0].rpartition(":")
            found = Connection(host, int(port), "", "", "")
            _until_it_listens(found, name)
            yield found
        finally:
            docker("rm", "-f", "-v", name)


@contextmanager
def toxiproxy(image: str, postgres: str, minio: str) -> Iterator[tuple[Way, Way, Connection, str]]:
    """One before both, each by its container: the ways to them, and where they begin for those outside."""
    ports = (API, DATABASE, STORE)
    name = docker("run", "-d", *(flag for port in ports for flag in ("-p", f"127.0.0.1::{port}")), image)
    try:
        outside = {
            port: docker("port", name, f"{port}/tcp").splitlines()[0].rpartition(":")[2] for port in ports
        }
        api = f"http://127.0.0.1:{outside[API]}"
        _until_it_answers(api, name)
        for port, upstream in ((DATABASE, f"{address(postgres)}:5432"), (STORE, f"{address(minio)}:9000")):
            proxy = {"name": f"to-{port}", "listen": f"0.0.0.0:{port}", "upstream": upstream}
            requests.post(f"{api}/proxies", json=proxy, timeout=10).raise_for_status()
        base, files = Way(api, "127.0.0.1", DATABASE), Way(api, "127.0.0.1", STORE)
        yield (
            base,
            files,
            Connection("127.0.0.1", int(outside[DATABASE]), "", "", ""),
            f"http://127.0.0.1:{outside[STORE]}",
        )
    finally:
        docker("rm", "-f", "-v", name)


def address(container: str) -> str:
    """Where another container reaches it."""
    form = "{{range .NetworkSettings.Networks}}{{.IPAddress}}{{end}}"
    return docker("inspect", "-f", form, container)


def _until_it_listens(pooler: Connection, container: str) -> None:
    deadline = time.monotonic() + START_SECONDS
    while True:
        try:
            psycopg.connect(host=pooler.host, port=pooler.port, user="nobody", password="x", dbname="none")
        except psycopg.OperationalError as error:
            if "FATAL" in str(error):
                return
        assert time.monotonic() < deadline, docker("logs", container)
        time.sleep(0.2)


def _until_it_answers(api: str, container: str) -> None:
    deadline = time.monotonic() + START_SECONDS
    while True:
        try:
            requests.get(f"{api}/version", timeout=2).raise_for_status()
        except requests.RequestException:
            assert time.monotonic() < deadline, docker("logs", container)
            time.sleep(0.2)
        else:
            return
