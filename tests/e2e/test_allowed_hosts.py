"""Which names a server answers to: all of its own, and no others. test_rotation tests those that the spec lists."""

import pytest
import requests

from tests.e2e.server import Server

GROUP = "shared"

ASK = "/api/2.0/mlflow/experiments/search?max_results=1"
FETCH = "import sys, urllib.request; print(urllib.request.urlopen(sys.argv[1], timeout=10).status)"


def status(server: Server, host: str) -> int:
    """What the server says to a request with this Host header."""
    return requests.get(f"{server.url}{ASK}", headers={"Host": host}, timeout=10).status_code


def test_every_name_of_the_service_is_answered(shared: Server) -> None:
    """As DNS in the cluster spells it; asked from inside, through DNS."""
    name, namespace = shared.names.service, shared.kube.namespace
    pod = shared.pod()["metadata"]["name"]
    for host in (
        name,
        f"{name}.{namespace}",
        f"{name}.{namespace}.svc",
        f"{name}.{namespace}.svc.cluster.local",
        shared.service["spec"]["clusterIP"],
    ):
        url = f"http://{host}:5000{ASK}"
        said = shared.kube.kubectl("exec", pod, "--", "python3", "-c", FETCH, url)
        assert said.strip() == "200", url


def test_the_node_port_is_answered(shared: Server) -> None:
    """At the node's address, which no spec names."""
    host = shared.url.removeprefix("http://")
    assert status(shared, host) == requests.codes.ok


@pytest.mark.parametrize("host", ["evil.example", "evil.example:5000", "tracking.evil.example"])
def test_a_strange_name_is_refused(shared: Server, host: str) -> None:
    """A page on a name of its own must not reach the server by pointing that name at it."""
    assert status(shared, host) == requests.codes.forbidden
    port = shared.url.rsplit(":", 1)[1]
    assert status(shared, f"evil.example:{port}") == requests.codes.forbidden


def test_a_strange_page_may_not_write(shared: Server) -> None:
    """The server's own page may, another site's may not."""
    url = f"{shared.url}/api/2.0/mlflow/experiments/create"
    strange = requests.post(url, json={"name": "x"}, headers={"Origin": "http://evil.example"}, timeout=10)
    assert strange.status_code == requests.codes.forbidden
    own = requests.post(url, json={"name": "from-the-page"}, headers={"Origin": shared.url}, timeout=10)
    assert own.ok, own.text
