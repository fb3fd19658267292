"""A short name means what it means to the server's pods, not to the operator's."""

import asyncio
import socket

import pytest

from mlflow_operator.clients.dns import resolve_in_namespace, resolve_url_in_namespace
from mlflow_operator.clients.postgres.client import inspect
from mlflow_operator.model.postgres_uri import Connection
from mlflow_operator.status.errors import TransientError

SERVICES = {
    "postgres.team.svc.cluster.local.": "10.96.0.7",
    "postgres-0.postgres.team.svc.cluster.local.": "10.244.0.9",
    "a.b.c.d.e.f.team.svc.cluster.local.": "10.244.0.10",
}
ASKED = ("team", "cluster.local")


@pytest.fixture(autouse=True)
async def _dns(monkeypatch: pytest.MonkeyPatch) -> None:
    """Knows the Services of the namespace `team` and nothing else."""

    async def answer(host: str, port: object, **_: object) -> list[object]:
        if host in SERVICES:
            return [(socket.AF_INET, socket.SOCK_STREAM, 6, "", (SERVICES[host], 0))]
        raise socket.gaierror(socket.EAI_NONAME, "Name or service not known")

    monkeypatch.setattr(asyncio.get_running_loop(), "getaddrinfo", answer, raising=False)


@pytest.mark.parametrize("host", ["postgres", "postgres-0.postgres"])
async def test_a_service_beside_the_server_is_found(host: str) -> None:
    """By the name that its pods would use: a Service's, or a pod's of a StatefulSet."""
    full = f"{host}.team.svc.cluster.local"
    assert await resolve_in_namespace(host, *ASKED) == (full, SERVICES[f"{full}."])


@pytest.mark.parametrize(
    "host", ["db.example.com", "elsewhere", "10.0.0.1", "::1", "postgres.", "a.b.c.d.e.f", "", "."]
)
async def test_what_means_the_same_to_everybody_is_left_alone(host: str) -> None:
    """Addresses, names that end in a dot, and names that the namespace does not know."""
    assert await resolve_in_namespace(host, *ASKED) is None


@pytest.mark.parametrize(
    ("url", "becomes"),
    [
        ("http://postgres:9000", "http://postgres.team.svc.cluster.local:9000"),
        ("https://postgres", "https://postgres.team.svc.cluster.local"),
        ("https://s3.example.com:9000", "https://s3.example.com:9000"),
        ("http://[::1]:9000", "http://[::1]:9000"),
    ],
)
async def test_a_url_keeps_all_but_its_host(url: str, becomes: str) -> None:
    """Scheme and port, if there is one, are the store's own."""
    assert await resolve_url_in_namespace(url, *ASKED) == becomes


async def test_a_dns_that_does_not_answer_holds_nobody_up(monkeypatch: pytest.MonkeyPatch) -> None:
    """The name is then asked for as it is."""
    monkeypatch.setattr("mlflow_operator.clients.dns._SECONDS", 0.01)

    async def silent(*_: object, **__: object) -> list[object]:
        await asyncio.Event().wait()
        return []

    monkeypatch.setattr(asyncio.get_running_loop(), "getaddrinfo", silent, raising=False)
    assert await resolve_in_namespace("postgres", *ASKED) is None


async def test_postgres_is_looked_for_where_the_name_leads() -> None:
    """And messages still name the host as the owner wrote it."""
    came: list[bytes] = []

    async def visitor(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        came.append(await reader.read(8))
        writer.close()

    async with await asyncio.start_server(visitor, "127.0.0.1", 0) as listener:
        port = listener.sockets[0].getsockname()[1]
        beside = Connection("postgres", port, "mlflow", "u", "p").with_hostaddr("127.0.0.1")
        with pytest.raises(TransientError) as told:
            await inspect(beside, None, "spec.database.external")
    assert came, "nobody came"
    assert f"postgres:{port}" in told.value.message
