"""Proxies between servers and their stores: PgBouncer, and Toxiproxy for network faults."""

import tempfile
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

import psycopg
import requests

from mlflow_operator.model.postgres_uri import Connection
from tests.containers import docker
from tests.e2e.toxiproxy import API, DATABASE, STORE, Proxy

START_TIMEOUT_SECONDS = 60
PGBOUNCER_SETTINGS = {
    "listen_addr": "*",
    "listen_port": "6432",
    "unix_socket_dir": "",
    "pool_mode": "transaction",
    "auth_type": "scram-sha-256",
    "auth_file": "/etc/pgbouncer/userlist.txt",
    "server_login_retry": "1",
}
"""As in docs/guides/external-stores.md."""


@contextmanager
def pgbouncer(image: str, postgres: str, users: Mapping[str, str]) -> Iterator[Connection]:
    """Run a PgBouncer in front of a Postgres container. Yield a connection without user, password and database."""
    escaped_users = [[word.replace('"', '""') for word in pair] for pair in users.items()]
    lines = ["[databases]", f"* = host={container_address(postgres)} port=5432", "[pgbouncer]"]
    with tempfile.TemporaryDirectory() as folder:
        Path(folder).chmod(0o755)
        Path(folder, "pgbouncer.ini").write_text(
            "\n".join([*lines, *(f"{name} = {value}" for name, value in PGBOUNCER_SETTINGS.items()), ""])
        )
        Path(folder, "userlist.txt").write_text(
            "".join(f'"{user}" "{password}"\n' for user, password in escaped_users)
        )
        name = docker("run", "-d", "-p", "127.0.0.1::6432", "-v", f"{folder}:/etc/pgbouncer:ro", image)
        try:
            host, _, port = docker("port", name, "6432/tcp").splitlines()[0].rpartition(":")
            pooler = Connection(host, int(port), "", "", "")
            _wait_until_listening(pooler, name)
            yield pooler
        finally:
            docker("rm", "-f", "-v", name)


@contextmanager
def toxiproxy(image: str, postgres: str, minio: str) -> Iterator[tuple[Proxy, Proxy, Connection, str]]:
    """Run a Toxiproxy in front of a Postgres and a MinIO container.

    Yield both proxies, the connection to the database and the endpoint of the store.
    """
    ports = (API, DATABASE, STORE)
    name = docker("run", "-d", *(flag for port in ports for flag in ("-p", f"127.0.0.1::{port}")), image)
    try:
        host_ports = {
            port: docker("port", name, f"{port}/tcp").splitlines()[0].rpartition(":")[2] for port in ports
        }
        api = f"http://127.0.0.1:{host_ports[API]}"
        _wait_until_ready(api, name)
        for port, upstream in (
            (DATABASE, f"{container_address(postgres)}:5432"),
            (STORE, f"{container_address(minio)}:9000"),
        ):
            proxy = {"name": f"to-{port}", "listen": f"0.0.0.0:{port}", "upstream": upstream}
            requests.post(f"{api}/proxies", json=proxy, timeout=10).raise_for_status()
        yield (
            Proxy(api, "127.0.0.1", DATABASE),
            Proxy(api, "127.0.0.1", STORE),
            Connection("127.0.0.1", int(host_ports[DATABASE]), "", "", ""),
            f"http://127.0.0.1:{host_ports[STORE]}",
        )
    finally:
        docker("rm", "-f", "-v", name)


def container_address(container: str) -> str:
    """The container's address on the Docker network."""
    template = "{{range .NetworkSettings.Networks}}{{.IPAddress}}{{end}}"
    return docker("inspect", "-f", template, container)


def _wait_until_listening(pooler: Connection, container: str) -> None:
    deadline = time.monotonic() + START_TIMEOUT_SECONDS
    while True:
        try:
            psycopg.connect(host=pooler.host, port=pooler.port, user="unknown", password="x", dbname="none")
        except psycopg.OperationalError as error:
            if "FATAL" in str(error):
                return
        assert time.monotonic() < deadline, docker("logs", container)
        time.sleep(0.2)


def _wait_until_ready(api: str, container: str) -> None:
    deadline = time.monotonic() + START_TIMEOUT_SECONDS
    while True:
        try:
            requests.get(f"{api}/version", timeout=2).raise_for_status()
        except requests.RequestException:
            assert time.monotonic() < deadline, docker("logs", container)
            time.sleep(0.2)
        else:
            return
