"""Host headers that a server accepts by default. test_rotation tests `spec.allowedHosts`."""

import pytest
import requests

from tests.e2e.server import Server

GROUP = "shared"

SEARCH_PATH = "/api/2.0/mlflow/experiments/search?max_results=1"
FETCH_PROGRAM = "import sys, urllib.request; print(urllib.request.urlopen(sys.argv[1], timeout=10).status)"


def status_code(server: Server, host: str) -> int:
    """Return the status code of a request with this Host header."""
    return requests.get(f"{server.url}{SEARCH_PATH}", headers={"Host": host}, timeout=10).status_code


def test_every_dns_name_of_the_service_is_allowed(shared_server: Server) -> None:
    """Requested from inside the cluster, by each DNS name and by the cluster IP."""
    name, namespace = shared_server.names.service, shared_server.kube.namespace
    pod = shared_server.pod()["metadata"]["name"]
    for host in (
        name,
        f"{name}.{namespace}",
        f"{name}.{namespace}.svc",
        f"{name}.{namespace}.svc.cluster.local",
        f"{name}.{namespace}.svc.cluster.local.",
        shared_server.service["spec"]["clusterIP"],
    ):
        url = f"http://{host}:5000{SEARCH_PATH}"
        output = shared_server.kube.kubectl("exec", pod, "--", "python3", "-c", FETCH_PROGRAM, url)
        assert output.strip() == "200", url


def test_the_node_port_address_is_allowed(shared_server: Server) -> None:
    """The node's address is in no spec."""
    host = shared_server.url.removeprefix("http://")
    assert status_code(shared_server, host) == requests.codes.ok


@pytest.mark.parametrize(
    "host",
    [
        "evil.example",
        "evil.example:5000",
        "tracking.evil.example",
        "10.evil.example",
        "10.0.0.1.evil.example:5000",
    ],
)
def test_unknown_host_header_is_rejected(shared_server: Server, host: str) -> None:
    """A website must not reach the server by DNS rebinding."""
    assert status_code(shared_server, host) == requests.codes.forbidden
    port = shared_server.url.rsplit(":", 1)[1]
    assert status_code(shared_server, f"evil.example:{port}") == requests.codes.forbidden


@pytest.mark.parametrize("host", ["100.64.0.7", "34.118.226.1:5000", "[fd00::1]:5000", "[2001:db8::1]"])
def test_addresses_of_any_range_are_allowed(shared_server: Server, host: str) -> None:
    """Clusters use carrier-grade NAT, public and IPv6 ranges. DNS rebinding needs a name."""
    assert status_code(shared_server, host) == requests.codes.ok


@pytest.mark.parametrize("prefix", ["http://10", "http://{service}"])
def test_longer_names_are_no_origins(shared_server: Server, prefix: str) -> None:
    """MLflow's CORS library compares patterns with the beginning of an origin."""
    origin = f"{prefix.format(service=shared_server.names.service)}.evil.example"
    response = requests.get(f"{shared_server.url}{SEARCH_PATH}", headers={"Origin": origin}, timeout=10)
    assert "Access-Control-Allow-Origin" not in response.headers


def test_cross_origin_request_is_rejected(shared_server: Server) -> None:
    """MLflow's web UI may write, another website may not."""
    url = f"{shared_server.url}/api/2.0/mlflow/experiments/create"
    cross_origin = requests.post(
        url, json={"name": "x"}, headers={"Origin": "http://evil.example"}, timeout=10
    )
    assert cross_origin.status_code == requests.codes.forbidden
    same_origin = requests.post(
        url, json={"name": "from-the-page"}, headers={"Origin": shared_server.url}, timeout=10
    )
    assert same_origin.ok, same_origin.text
