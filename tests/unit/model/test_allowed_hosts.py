"""The server accepts its own names and addresses, and rejects other names (DNS rebinding) and foreign pages (CORS)."""

import importlib.util
from collections.abc import Iterator
from pathlib import Path

import mlflow
import pytest
from flask import Flask
from flask.testing import FlaskClient
from flask_cors import CORS

from mlflow_operator.model.allowed_hosts import allowed_hosts, allowed_origins, is_private, service_names

NAMES = (
    *service_names("a", "team", "cluster.local"),
    "mlflow.example.com",
    "tls.example.com:8443",
    "*.wild.example.com",
    "203.0.113.*",
    "34.118.226.1",
    "2001:db8::7",
    "[2001:db8::8]:5000",
    "[2001:db8::9]",
    "rooted.example.com.",
    "rooted-tls.example.com.:8443",
    "34.118.226.2.",
)
HOSTS = allowed_hosts(NAMES)
# Without its package, which reads the environment when it is imported, and would do so for other tests.
SPEC = importlib.util.spec_from_file_location(
    "security_utils", Path(mlflow.__file__).parent / "server" / "security_utils.py"
)
assert SPEC
assert SPEC.loader
security_utils = importlib.util.module_from_spec(SPEC)
SPEC.loader.exec_module(security_utils)
ORIGINS = allowed_origins(NAMES, [30500])


def is_accepted(host: str) -> bool:
    """Apply MLflow's own rule to a Host header."""
    return bool(security_utils.is_allowed_host_header(list(HOSTS), host))


def may_write(origin: str) -> bool:
    """Apply MLflow's own rule to the origin of a page that sends a request."""
    return not security_utils.should_block_cors_request(origin, "POST", list(ORIGINS))


@pytest.mark.parametrize(
    "host",
    [
        "a:5000",
        "a",
        "a.team:5000",
        "a.team.svc:5000",
        "a.team.svc",
        "a.team.svc.cluster.local:5000",
        "a.team.svc.cluster.local.",
        "a.team.svc.cluster.local.:5000",
        "localhost:5000",
        "127.0.0.1:34567",
        "127.0.0.1",
        "[::1]:5000",
        "[::1]",
        "10.96.3.4:5000",
        "10.96.3.4",
        "172.31.0.9:5000",
        "192.168.1.1",
        "100.64.0.1:5000",
        "100.127.255.254",
        "34.118.226.1:5000",
        "240.10.0.3:5000",
        "[fd00:10:96::1f]:5000",
        "[fd00:10:96::1f]",
        "[2001:db8::7]:5000",
        "mlflow.example.com",
        "mlflow.example.com:8443",
        "mlflow.example.com.",
        "tls.example.com:8443",
        "x.wild.example.com:8443",
        "198.18.4.2:30500",
        "8.8.8.8:30500",
        "203.0.113.254:30500",
        "rooted.example.com",
        "rooted.example.com:5000",
        "rooted.example.com.",
        "rooted.example.com.:5000",
        "rooted-tls.example.com:8443",
        "rooted-tls.example.com.:8443",
        "localhost.",
        "localhost.:5000",
        "1.2.3.4.",
        "1.2.3.4.:30500",
        "127.0.0.1.:5000",
    ],
)
def test_all_names_and_addresses_of_the_server_are_accepted(host: str) -> None:
    """Service names, port-forward, addresses of pods, nodes, Services and load balancers, and `spec.allowedHosts`."""
    assert is_accepted(host)


@pytest.mark.parametrize(
    "host",
    [
        "evil.example.com",
        "evil.example.com:30500",
        "1.2.3.4.evil.com:30500",
        "1.2.3.4evil:30500",
        "10.evil.example",
        "10.0.0.1.evil.example:5000",
        "10.0.0.1x",
        "10.0.0.evil:5000",
        "192.168.evil.example",
        "172.16.evil.example:5000",
        "100.64.evil.example",
        "203.0.113.evil.example",
        "127.0.0.1.evil.example:5000",
        "fc00.evil.example",
        "fd00:evil.example",
        "localhost.evil.example:5000",
        "tls.example.com:8444",
        "b.team.svc:5000",
        "a.other.svc:5000",
        "a.team.svc.evil.com:5000",
        "a.team.svc.cluster.local.evil.com",
        "localhost..",
        "1.2.3.4.evil.com.:30500",
        "10.0.0.evil.",
        "10.evil.example.",
        "203.0.113.evil.example.:5000",
        "rooted.example.com.evil.example",
        "rooted-tls.example.com:5000",
        ".",
        "",
    ],
)
def test_other_host_names_are_rejected(host: str) -> None:
    """A web page that resolves its own name to the server's address must not reach the server."""
    assert not is_accepted(host)


def test_pattern_of_addresses_in_spec_matches_no_name() -> None:
    """MLflow would compare it as text."""
    hosts = list(allowed_hosts(["10.*", "172.16.0.*:5000", "192.168.*.", "192.168.*.:5000"]))
    assert security_utils.is_allowed_host_header(hosts, "10.2.3.4:5000")
    assert not security_utils.is_allowed_host_header(hosts, "10.evil.example:5000")
    assert not security_utils.is_allowed_host_header(hosts, "172.16.0.evil.example:5000")
    assert not security_utils.is_allowed_host_header(hosts, "192.168.evil.example.")
    assert not security_utils.is_allowed_host_header(hosts, "192.168.evil.example.:5000")


def test_no_entry_matches_every_host() -> None:
    """A single `*` would disable MLflow's check."""
    assert "*" not in HOSTS
    assert "*" not in ORIGINS
    assert "*" not in allowed_hosts(["*."])


@pytest.mark.parametrize(
    "origin",
    [
        "http://a.team.svc:5000",
        "http://a.team.svc.cluster.local.:5000",
        "https://mlflow.example.com",
        "https://mlflow.example.com:8443",
        "https://tls.example.com:8443",
        "https://x.wild.example.com",
        "http://10.96.3.4:5000",
        "https://10.96.3.4",
        "http://100.64.7.7:5000",
        "http://34.118.226.1:5000",
        "http://34.118.226.1",
        "http://203.0.113.12",
        "http://[fd00:10:96::1f]:5000",
        "http://[2001:db8::7]:5000",
        "http://[2001:db8::8]:5000",
        "http://[2001:db8::9]",
        "http://198.18.4.2:30500",
        "http://[2001:db8::1]:30500",
        "http://localhost:5000",
        "http://localhost.:5000",
        "http://rooted.example.com:5000",
        "https://rooted.example.com.",
        "http://34.118.226.2:5000",
    ],
)
def test_cors_origins_include_the_servers_own_pages(origin: str) -> None:
    """The web UI sends its own origin with POST requests; without an entry, searches return 403."""
    assert may_write(origin)


FOREIGN_ORIGINS = (
    "https://evil.example.com",
    "http://10.evil.example",
    "http://10.0.0.1.evil.example:5000",
    "http://100.64.evil.example",
    "http://203.0.113.evil.example",
    "http://8.8.8.8",
    "http://8.8.8.8:5000",
    "http://[2001:db8::1]:5000",
    "http://[2001:db8::8]:5001",
    "http://a.team.svc.evil.example:5000",
    "http://mlflow.example.com.evil.example",
    "http://mlflow-example.com:8443",
    "http://evil.example:30500",
    "http://localhost.evil.example:5000",
    "http://rooted.example.com.evil.example",
)


@pytest.mark.parametrize("origin", FOREIGN_ORIGINS)
def test_pages_of_others_may_not_write(origin: str) -> None:
    """Every address can serve a page: unlike hosts, origins are restricted to private addresses and the Service."""
    assert not may_write(origin)


@pytest.fixture
def application() -> Iterator[FlaskClient]:
    """A Flask application with flask-cors, configured as MLflow does."""
    app = Flask(__name__)
    CORS(app, resources={r"/*": {"origins": list(ORIGINS)}}, supports_credentials=True)
    app.add_url_rule("/page", view_func=lambda: "text")
    with app.test_client() as client:
        yield client


@pytest.mark.filterwarnings("ignore:Possible nested set:FutureWarning")
@pytest.mark.parametrize(
    "origin",
    [
        *FOREIGN_ORIGINS,
        "http://a.evil.example",
        "http://a:5000.evil.example",
        "http://xwild.example.com.evil.example",
        "http://10evil.example",
    ],
)
def test_pages_of_others_may_not_read(application: FlaskClient, origin: str) -> None:
    """flask-cors reads the entries as regular expressions, and grants a page access if the beginning matches."""
    response = application.get("/page", headers={"Host": "a:5000", "Origin": origin})
    assert response.status_code == 200
    assert "Access-Control-Allow-Origin" not in response.headers


@pytest.mark.parametrize(
    ("address", "private"),
    [
        ("10.0.0.1", True),
        ("100.64.0.1", True),
        ("fd00::1", True),
        ("34.118.226.1", False),
        ("2001:db8::1", False),
    ],
)
def test_private_addresses(address: str, private: bool) -> None:
    """Cluster IPs in other ranges are listed."""
    assert is_private(address) is private
