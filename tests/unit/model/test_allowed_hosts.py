"""The server accepts its own names and addresses in the Host header, and rejects other names (DNS rebinding)."""

from fnmatch import fnmatch

import pytest

from mlflow_operator.model.allowed_hosts import allowed_hosts, origins, service_names

HOSTS = allowed_hosts(service_names("a", "team", "cluster.local"), ["mlflow.example.com"], [30500])


def is_accepted(host: str) -> bool:
    """Apply MLflow's own rule: an entry with a `*` is a pattern, any other entry must equal the whole header."""
    return any(fnmatch(host, entry) if "*" in entry else host == entry for entry in HOSTS)


@pytest.mark.parametrize(
    "host",
    [
        "a:5000",
        "a",
        "a.team:5000",
        "a.team.svc:5000",
        "a.team.svc",
        "a.team.svc.cluster.local:5000",
        "localhost:5000",
        "127.0.0.1:34567",
        "[::1]:5000",
        "10.96.3.4:5000",
        "172.31.0.9:5000",
        "192.168.1.1",
        "mlflow.example.com",
        "mlflow.example.com:8443",
        "198.18.4.2:30500",
        "8.8.8.8:30500",
        "203.0.113.254:30500",
    ],
)
def test_all_names_and_addresses_of_the_server_are_accepted(host: str) -> None:
    """Service names, port-forward, pod and node addresses, and `spec.allowedHosts`."""
    assert is_accepted(host)


@pytest.mark.parametrize(
    "host",
    [
        "evil.example.com",
        "evil.example.com:30500",
        "1.2.3.4.evil.com:30500",
        "1.2.3.4evil:30500",
        "198.18.4.2:30501",
        "198.18.4.2",
        "b.team.svc:5000",
        "a.other.svc:5000",
        "a.team.svc.evil.com:5000",
        "",
    ],
)
def test_other_host_names_are_rejected(host: str) -> None:
    """A web page that resolves its own name to the server's address must not reach the server."""
    assert not is_accepted(host)


def test_no_entry_matches_every_host() -> None:
    """A single `*` would disable MLflow's check."""
    assert "*" not in HOSTS


def test_cors_origins_include_the_servers_own_pages() -> None:
    """The web UI sends its own origin with POST requests; without an entry, searches return 403."""
    entries = origins(HOSTS)
    assert any(fnmatch("http://198.18.4.2:30500", entry) for entry in entries)
    assert any(fnmatch("https://mlflow.example.com", entry) for entry in entries)
    assert not any(fnmatch("https://evil.example.com", entry) for entry in entries)
