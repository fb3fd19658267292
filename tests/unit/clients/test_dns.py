"""Short host names resolve as in the server's namespace, not as in the operator's."""

import asyncio
import socket

import pytest

from mlflow_operator.clients.dns import Resolver
from mlflow_operator.clients.postgres.client import Postgres
from mlflow_operator.clients.postgres.session import Sessions
from mlflow_operator.model.postgres_uri import Connection
from mlflow_operator.status.errors import TransientError

SERVICES = {
    "postgres.team.svc.cluster.local.": "10.96.0.7",
    "postgres-0.postgres.team.svc.cluster.local.": "10.244.0.9",
    "a.b.c.d.e.f.team.svc.cluster.local.": "10.244.0.10",
}
NAMESPACE_AND_DOMAIN = ("team", "cluster.local")


@pytest.fixture(autouse=True)
async def _dns(monkeypatch: pytest.MonkeyPatch) -> None:
    """A resolver that only knows the Services in namespace `team`."""

    async def getaddrinfo(host: str, port: object, **_: object) -> list[object]:
        if host in SERVICES:
            return [(socket.AF_INET, socket.SOCK_STREAM, 6, "", (SERVICES[host], 0))]
        raise socket.gaierror(socket.EAI_NONAME, "Name or service not known")

    monkeypatch.setattr(asyncio.get_running_loop(), "getaddrinfo", getaddrinfo, raising=False)


@pytest.mark.parametrize("host", ["postgres", "postgres-0.postgres"])
async def test_service_in_namespace_resolves(host: str) -> None:
    """By the names that pods there use: of a Service, or of a pod of a StatefulSet."""
    fqdn = f"{host}.team.svc.cluster.local"
    assert await Resolver().resolve(host, *NAMESPACE_AND_DOMAIN) == (fqdn, SERVICES[f"{fqdn}."])


@pytest.mark.parametrize(
    "host", ["db.example.com", "elsewhere", "10.0.0.1", "::1", "postgres.", "a.b.c.d.e.f", "", "."]
)
async def test_host_that_does_not_depend_on_namespace_is_unchanged(host: str) -> None:
    """Addresses, names with a trailing dot, and names that do not exist in the namespace."""
    assert await Resolver().resolve(host, *NAMESPACE_AND_DOMAIN) is None


@pytest.mark.parametrize(
    ("url", "expected"),
    [
        ("http://postgres:9000", "http://postgres.team.svc.cluster.local:9000"),
        ("https://postgres", "https://postgres.team.svc.cluster.local"),
        ("https://s3.example.com:9000", "https://s3.example.com:9000"),
        ("http://[::1]:9000", "http://[::1]:9000"),
    ],
)
async def test_only_host_of_url_changes(url: str, expected: str) -> None:
    """The scheme and an explicit port stay."""
    assert await Resolver().resolve_url(url, *NAMESPACE_AND_DOMAIN) == expected


async def test_unresponsive_dns_times_out(monkeypatch: pytest.MonkeyPatch) -> None:
    """The host name is then used unchanged."""

    async def getaddrinfo(*_: object, **__: object) -> list[object]:
        await asyncio.Event().wait()
        return []

    monkeypatch.setattr(asyncio.get_running_loop(), "getaddrinfo", getaddrinfo, raising=False)
    assert await Resolver(timeout_seconds=0.01).resolve("postgres", *NAMESPACE_AND_DOMAIN) is None


async def test_postgres_client_connects_to_resolved_address() -> None:
    """Messages still contain the host name from the spec."""
    requests: list[bytes] = []

    async def handler(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        requests.append(await reader.read(8))
        writer.close()

    async with await asyncio.start_server(handler, "127.0.0.1", 0) as listener:
        port = listener.sockets[0].getsockname()[1]
        connection = Connection("postgres", port, "mlflow", "u", "p").with_hostaddr("127.0.0.1")
        with pytest.raises(TransientError) as error:
            await Postgres(Sessions()).inspect(connection, None, "spec.database.external")
    assert requests, "no connection to the resolved address"
    assert f"postgres:{port}" in error.value.message
