"""Faults of an MLflowPlatform with a real Postgres and many servers: the Events are counted."""

import socket
import threading
from collections import Counter
from collections.abc import Iterator
from contextlib import suppress
from functools import partial

import pytest

from mlflow_operator.kube import kinds
from mlflow_operator.kube.objects import Object
from tests.apiserver.client import Client
from tests.integration.operator import Operator
from tests.integration.postgres import Postgres
from tests.integration.server import Server, external_spec
from tests.integration.test_platform import Platform, reconcile_count
from tests.polling import eventually

SERVER_COUNT = 50
EXTERNAL_STORE: Object = {"artifacts": {"external": {"uri": "gs://bucket"}}}
"""A store that the operator does not check: the tests have no MinIO."""

ALL_SERVERS_SECONDS = 180.0
OUTAGE_ROUNDS = 4
"""Reconciles of each server while Postgres is unavailable. tests/unit/test_platform_faults.py simulates ten minutes."""


class Gate:
    """A port that forwards connections to a Postgres while it is open, and resets them while it is closed."""

    def __init__(self, postgres: Postgres) -> None:
        self.postgres, self._is_open = postgres, threading.Event()
        self._sockets: set[socket.socket] = set()
        self._listener = socket.create_server(("127.0.0.1", 0), backlog=128)
        self.port: int = self._listener.getsockname()[1]
        self._is_open.set()
        threading.Thread(target=self._accept, daemon=True).start()

    def close(self) -> None:
        """End the connections, and accept no new ones."""
        self._is_open.clear()
        for connection in list(self._sockets):
            with suppress(OSError):
                connection.shutdown(socket.SHUT_RDWR)

    def open(self) -> None:
        """Forward new connections again."""
        self._is_open.set()

    def stop(self) -> None:
        """Close the port."""
        self.close()
        self._listener.close()

    def _accept(self) -> None:
        while True:
            try:
                client, _ = self._listener.accept()
            except OSError:
                return
            if not self._is_open.is_set():
                client.close()
                continue
            target = socket.create_connection(("127.0.0.1", self.postgres.port))
            self._sockets |= {client, target}
            for source, sink in ((client, target), (target, client)):
                threading.Thread(target=self._forward, args=(source, sink), daemon=True).start()

    def _forward(self, source: socket.socket, sink: socket.socket) -> None:
        with suppress(OSError):
            while data := source.recv(65536):
                sink.sendall(data)
        with suppress(OSError):
            sink.shutdown(socket.SHUT_WR)


@pytest.fixture
def gate(postgres: Postgres) -> Iterator[Gate]:
    """The port of the platform's Postgres."""
    opened = Gate(postgres)
    yield opened
    opened.stop()


@pytest.fixture
def platform(
    operator: Operator, admin: Client, namespace: str, other_namespace: str, gate: Gate
) -> Iterator[Platform]:
    """The default platform of the namespace, with its Secrets in another namespace. It is Ready."""
    created = Platform(admin, other_namespace, gate.postgres, port=gate.port)
    created.put_secret()
    created.apply({"kubernetes.io/metadata.name": namespace}, is_default=True).wait_for("True", "Ready")
    yield created
    gate.open()
    if admin.get(kinds.MLFLOWPLATFORM, None, created.name):
        created.delete()


def test_fifty_servers_at_once_and_an_outage_of_their_postgres(
    operator: Operator, admin: Client, namespace: str, platform: Platform, gate: Gate
) -> None:
    """Each fault is one Event about the platform and one about each server, however often they are reconciled.

    A server with a database of its own is reconciled meanwhile.
    """
    own_spec = external_spec(admin, platform.namespace, gate.postgres)
    own = Server(admin, platform.namespace).apply(own_spec).wait_ready()
    servers = [Server(admin, namespace, f"s{number}") for number in range(SERVER_COUNT)]
    for server in servers:
        server.apply(EXTERNAL_STORE)
    for server in servers:
        server.wait_for("DatabaseReady", seconds=ALL_SERVERS_SECONDS)
    assert not warnings(admin, namespace)
    assert platform.events() == [("Normal", "Ready")]
    created = {name for name in gate.postgres.databases() if name.startswith(f"mlflow_{namespace}_")}
    assert created == {f"mlflow_{namespace}_{server.name}" for server in servers}

    gate.close()
    # A store is checked once a minute, but at once with a changed Secret.
    platform.put_secret(password="rotated")
    platform.trigger_reconcile()
    platform.wait_for("False", "DatabaseUnreachable")
    reconciles = reconcile_count(operator, "MLflowServer") + OUTAGE_ROUNDS * SERVER_COUNT
    for _ in range(OUTAGE_ROUNDS):
        for server in servers:
            server.trigger_reconcile()
    messages = {
        server.wait_for("DatabaseReady", "False", "DatabaseUnreachable", ALL_SERVERS_SECONDS)["message"]
        for server in servers
    }
    (message,) = messages
    assert f'MLflowPlatform "{platform.name}"' in message
    own.patch_spec(replicas=2)
    eventually("the other server is scaled", partial(_has_replicas, own, 2))
    # The queue merges changes that are close together; retries follow.
    eventually(
        "the servers are reconciled again",
        lambda: reconcile_count(operator, "MLflowServer") >= reconciles,
        ALL_SERVERS_SECONDS,
    )
    assert warnings(admin, namespace) == {(server.name, "DatabaseUnreachable"): 1 for server in servers}
    assert platform.events() == [("Normal", "Ready"), ("Warning", "DatabaseUnreachable")]

    gate.open()
    platform.put_secret(password="rotated again")
    platform.trigger_reconcile()
    platform.wait_for("True", "Ready")
    for server in servers:
        server.wait_for("DatabaseReady", seconds=ALL_SERVERS_SECONDS)
    assert [reason for _, reason in platform.events()] == ["Ready", "DatabaseUnreachable", "Ready"]
    for server in servers:
        server.delete()


def test_platform_that_is_deleted_stays_while_a_server_uses_it(
    operator: Operator, admin: Client, namespace: str, platform: Platform
) -> None:
    """Its condition names the server, which continues. A new server is refused. Each is one Event."""
    server = Server(admin, namespace).apply(EXTERNAL_STORE)
    server.wait_for("DatabaseReady")
    platform.delete()
    platform.wait_for("False", "DeletionBlocked")
    (ready,) = platform.status["conditions"]
    assert f"{namespace}/{server.name}" in ready["message"]
    refused = Server(admin, namespace, "new").apply({"platformRef": {"name": platform.name}})
    refused.wait_for("Ready", "False", "PlatformNotFound")
    reconciles = reconcile_count(operator, "MLflowServer") + 2
    for changed in (platform, server, refused):
        changed.trigger_reconcile()
    eventually("the servers are reconciled", lambda: reconcile_count(operator, "MLflowServer") >= reconciles)
    server.wait_for("DatabaseReady")
    assert warnings(admin, namespace) == {(refused.name, "PlatformNotFound"): 1}
    assert platform.events() == [("Normal", "Ready"), ("Warning", "DeletionBlocked")]
    refused.delete()
    server.delete()
    eventually("the platform is gone", lambda: admin.get(kinds.MLFLOWPLATFORM, None, platform.name) is None)


def warnings(client: Client, namespace: str) -> Counter[tuple[str, str]]:
    """Number of Warning Events about servers in a namespace, by server and reason."""
    return Counter(
        (event["involvedObject"]["name"], event["reason"])
        for event in client.list(kinds.EVENT, namespace)
        if event["type"] == "Warning" and event["involvedObject"]["kind"] == "MLflowServer"
    )


def _has_replicas(server: Server, count: int) -> bool:
    return bool(server.require(kinds.DEPLOYMENT, server.name)["spec"]["replicas"] == count)
