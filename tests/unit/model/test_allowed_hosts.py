"""The server answers to its own names and addresses, and to nobody's page that was bound to them."""

from fnmatch import fnmatch

import pytest

from mlflow_operator.model.allowed_hosts import allowed_hosts, origins, service_names

HOSTS = allowed_hosts(service_names("a", "team", "cluster.local"), ["mlflow.example.com"], [30500])


def answers(host: str) -> bool:
    """MLflow's own rule: a pattern where there is a `*`, else the whole header."""
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
def test_every_way_in_is_answered(host: str) -> None:
    """Service names, port-forward, pod and node addresses, and what the owner adds."""
    assert answers(host)


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
def test_a_rebound_name_is_not_answered(host: str) -> None:
    """A page that points its own name at us must get nothing."""
    assert not answers(host)


def test_no_entry_lets_everything_in() -> None:
    """A lone `*` would switch MLflow's check off."""
    assert "*" not in HOSTS


def test_pages_of_the_server_may_talk_to_it() -> None:
    """The web page posts with its own origin; without it searches get 403."""
    found = origins(HOSTS)
    assert any(fnmatch("http://198.18.4.2:30500", entry) for entry in found)
    assert any(fnmatch("https://mlflow.example.com", entry) for entry in found)
    assert not any(fnmatch("https://evil.example.com", entry) for entry in found)
