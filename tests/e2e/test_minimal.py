"""An empty spec becomes a server that does real MLflow work, and shares nothing with the server beside it."""

import uuid
from collections.abc import Iterator

import pytest

from mlflow_operator.model.postgres_uri import DIALECT
from tests.e2e.kube import CommandError, Kube
from tests.e2e.mlflow_workload import Scientist
from tests.e2e.pod_exec import environment, logs_in, opens
from tests.e2e.port_forward import Forward
from tests.e2e.server import Server

GROUP = "shared"

pytestmark = pytest.mark.start_early


@pytest.fixture(scope="module")
def _minimal(module_ns: Kube) -> Server:
    return Server(module_ns).apply()


@pytest.fixture
def minimal(_minimal: Server, evidence_of_module: None) -> Server:
    """A server whose spec is empty."""
    return _minimal.ready()


@pytest.fixture
def scientist(minimal: Server) -> Iterator[Scientist]:
    """A client that reaches it as a person without an Ingress does."""
    with Forward(minimal.kube, minimal.names.service, 5000) as forward:
        yield Scientist(forward.url)


def test_an_empty_spec_becomes_a_working_server(scientist: Scientist) -> None:
    """A run with parameters, metrics and files, a registered model with an alias, loaded back and predicting."""
    scientist.finds(scientist.work())


def test_servers_of_two_namespaces_share_nothing(
    minimal: Server, scientist: Scientist, shared: Server
) -> None:
    """Both have the same name. Each one's password and key are tried on the other's stores."""
    assert minimal.name == shared.name
    other = Scientist(shared.url)
    mine, yours = f"mine-{uuid.uuid4().hex}", f"yours-{uuid.uuid4().hex}"
    scientist.work(mine)
    other.work(yours)
    assert mine in scientist.experiments() - other.experiments()
    assert yours in other.experiments() - scientist.experiments()

    one, two = minimal.generated(), shared.generated()
    assert not set(one.values()) & set(two.values()), "the same secret was generated twice"
    for caller, key, host, own in ((minimal, one, shared, two), (shared, two, minimal, one)):
        # the host's own login and key first: otherwise a refusal would prove nothing
        logs_in(caller, _libpq(own["database URI"]))
        uri = _libpq(own["database URI"]).replace(own["database password"], key["database password"])
        with pytest.raises(CommandError, match="password authentication failed"):
            logs_in(caller, uri)

        for name, password in (("root key", "root secret"), ("artifact key", "artifact secret")):
            assert opens(caller, host, own[name], own[password])
            assert not opens(caller, host, key[name], key[password])
            assert not opens(caller, host, own[name], key[password])


def _libpq(uri: str) -> str:
    """SQLAlchemy names a driver in the scheme, libpq knows none."""
    return uri.replace(f"{DIALECT}://", "postgresql://", 1)


def test_the_root_key_of_the_store_is_not_given_to_the_server(shared: Server) -> None:
    """An attacker in the server's process finds a key for its bucket alone."""
    found, values = environment(shared), shared.generated()
    assert {values["artifact key"], values["artifact secret"]} <= found
    assert not {values["root key"], values["root secret"]} & found


def test_status_names_the_url_version_and_stores(shared: Server) -> None:
    """What `kubectl get` shows, and what a client's pod takes as envFrom."""
    server, ns = shared, shared.kube
    status = server.status
    assert status["url"] == f"http://{server.name}.{ns.namespace}.svc:5000"
    assert status["version"]
    assert status["image"].endswith(f"v{status['version']}-full")
    assert status["schemaRevision"]
    assert status["database"]["type"] == "Embedded"
    assert status["artifacts"] == {"type": "Embedded", "uri": "s3://mlflow"}
    config = ns.need("ConfigMap", status["clientConfigMapRef"]["name"])
    assert config["data"]["MLFLOW_TRACKING_URI"] == status["url"]
    shown = ns.kubectl("get", "mls", server.name, "--no-headers").split()
    assert shown[:4] == [server.name, "True", status["version"], status["url"]]
