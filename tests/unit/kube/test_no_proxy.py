"""An HTTP proxy in the operator's environment is only for hosts outside the cluster."""

import os

import pytest
from aiohttp.helpers import get_env_proxy_for_url
from botocore.utils import get_environ_proxies
from yarl import URL

from mlflow_operator.kube.no_proxy import exempt_cluster

INTERNAL = (
    "http://a-artifacts.team.svc:9000",
    "https://minio.storage.svc.k8s.example.com:9000/bucket",
    "https://10.96.0.1/api",
    "http://localhost:8080/healthz",
)
EXTERNAL = "https://s3.us-east-1.amazonaws.com/bucket"


@pytest.fixture
def _proxy(monkeypatch: pytest.MonkeyPatch) -> None:
    """The environment of a pod with a proxy."""
    for name in list(os.environ):
        if name.lower().endswith("_proxy"):
            monkeypatch.delenv(name)
    monkeypatch.setenv("no_proxy", "")
    monkeypatch.setenv("NO_PROXY", "")
    for name in ("HTTP_PROXY", "HTTPS_PROXY"):
        monkeypatch.setenv(name, "http://proxy:3128")
    monkeypatch.setenv("KUBERNETES_SERVICE_HOST", "10.96.0.1")


def uses_proxy(url: str) -> bool:
    """Whether aiohttp and boto3 send a request through the proxy."""
    boto3 = bool(get_environ_proxies(url))
    try:
        get_env_proxy_for_url(URL(url))
    except LookupError:
        assert not boto3, "boto3 uses the proxy, and aiohttp does not"
        return False
    assert boto3, "aiohttp uses the proxy, and boto3 does not"
    return True


@pytest.mark.usefixtures("_proxy")
def test_requests_in_the_cluster_bypass_the_proxy(monkeypatch: pytest.MonkeyPatch) -> None:
    """The Kubernetes client uses aiohttp."""
    monkeypatch.setenv("NO_PROXY", "internal.example.com")
    assert all(map(uses_proxy, INTERNAL))
    exempt_cluster(os.environ, "k8s.example.com")
    assert not any(map(uses_proxy, INTERNAL))
    assert not uses_proxy("https://internal.example.com")
    assert uses_proxy(EXTERNAL)


@pytest.mark.usefixtures("_proxy")
def test_a_process_outside_a_cluster_may_reach_it_through_the_proxy(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("KUBERNETES_SERVICE_HOST")
    exempt_cluster(os.environ, "cluster.local")
    assert uses_proxy("https://10.96.0.1/api")


@pytest.mark.usefixtures("_proxy")
def test_an_ipv6_api_server_bypasses_the_proxy(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("KUBERNETES_SERVICE_HOST", "fd00:10:96::1")
    exempt_cluster(os.environ, "cluster.local")
    with pytest.raises(LookupError):
        get_env_proxy_for_url(URL("https://[fd00:10:96::1]:443/api"))


def test_exceptions_are_added_once_and_a_wildcard_stays() -> None:
    """The command and the group of commands both add them."""
    environ = {"KUBERNETES_SERVICE_HOST": "10.96.0.1", "no_proxy": "a,.svc"}
    exempt_cluster(environ, "cluster.local")
    first = dict(environ)
    exempt_cluster(environ, "cluster.local")
    assert environ == first
    assert environ["NO_PROXY"] == "a,.svc,10.96.0.1,.svc.cluster.local,localhost,127.0.0.1,::1"
    environ = {"KUBERNETES_SERVICE_HOST": "10.96.0.1", "NO_PROXY": "*"}
    exempt_cluster(environ, "cluster.local")
    assert environ["NO_PROXY"] == "*"
