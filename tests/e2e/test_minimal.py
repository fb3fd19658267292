"""An empty spec creates a working MLflow server that shares nothing with other servers."""

import uuid
from collections.abc import Iterator

import pytest

from mlflow_operator.model.postgres_uri import DIALECT
from tests.e2e.kube import CommandError, Kube
from tests.e2e.mlflow_workload import Workload
from tests.e2e.pod_exec import can_list_bucket, connect_to_database, environment_values
from tests.e2e.port_forward import PortForward
from tests.e2e.server import Server

GROUP = "shared"

pytestmark = pytest.mark.start_early


@pytest.fixture(scope="module")
def _minimal_server(module_ns: Kube) -> Server:
    return Server(module_ns).apply()


@pytest.fixture
def minimal_server(_minimal_server: Server, module_evidence: None) -> Server:
    """A server with an empty spec."""
    return _minimal_server.wait_ready()


@pytest.fixture
def workload(minimal_server: Server) -> Iterator[Workload]:
    """A client that reaches the server by `kubectl port-forward`."""
    with PortForward(minimal_server.kube, minimal_server.names.service, 5000) as forward:
        yield Workload(forward.url)


def test_empty_spec_creates_a_working_server(workload: Workload) -> None:
    """A run with parameters, metrics and files, and a registered model with an alias that is loaded and predicts."""
    workload.check_data(workload.log_data())


def test_servers_in_two_namespaces_share_nothing(
    minimal_server: Server, workload: Workload, shared_server: Server
) -> None:
    """Both have the same name. Each server's password and keys are tried on the other server's stores."""
    assert minimal_server.name == shared_server.name
    other_workload = Workload(shared_server.url)
    mine, yours = f"mine-{uuid.uuid4().hex}", f"yours-{uuid.uuid4().hex}"
    workload.log_data(mine)
    other_workload.log_data(yours)
    assert mine in workload.experiment_names() - other_workload.experiment_names()
    assert yours in other_workload.experiment_names() - workload.experiment_names()

    minimal_values, shared_values = minimal_server.generated_values(), shared_server.generated_values()
    assert not set(minimal_values.values()) & set(shared_values.values()), (
        "the same secret was generated twice"
    )
    for caller, key, host, own in (
        (minimal_server, minimal_values, shared_server, shared_values),
        (shared_server, shared_values, minimal_server, minimal_values),
    ):
        # The host's own login and key must work; otherwise a rejection would prove nothing.
        connect_to_database(caller, _libpq(own["database URI"]))
        uri = _libpq(own["database URI"]).replace(own["database password"], key["database password"])
        with pytest.raises(CommandError, match="password authentication failed"):
            connect_to_database(caller, uri)

        for name, password in (("root key", "root secret"), ("artifact key", "artifact secret")):
            assert can_list_bucket(caller, host, own[name], own[password])
            assert not can_list_bucket(caller, host, key[name], key[password])
            assert not can_list_bucket(caller, host, own[name], key[password])


def _libpq(uri: str) -> str:
    """Convert a SQLAlchemy URI, whose scheme names a driver, to a libpq URI."""
    return uri.replace(f"{DIALECT}://", "postgresql://", 1)


def test_server_does_not_get_the_stores_root_key(shared_server: Server) -> None:
    """An attacker in the server's process only finds a key for the server's bucket."""
    found, values = environment_values(shared_server), shared_server.generated_values()
    assert {values["artifact key"], values["artifact secret"]} <= found
    assert not {values["root key"], values["root secret"]} & found


def test_status_has_url_version_and_stores(shared_server: Server) -> None:
    """Also the columns of `kubectl get` and the ConfigMap for clients."""
    server, ns = shared_server, shared_server.kube
    status = server.status
    assert status["url"] == f"http://{server.name}.{ns.namespace}.svc:5000"
    assert status["version"]
    assert status["image"].endswith(f"v{status['version']}-full")
    assert status["schemaRevision"]
    assert status["database"]["type"] == "Embedded"
    endpoint = f"http://{server.names.artifact_store}.{ns.namespace}.svc:9000"
    assert status["artifacts"] == {"type": "Embedded", "uri": "s3://mlflow", "endpoint": endpoint}
    config = ns.require("ConfigMap", status["clientConfigMapRef"]["name"])
    assert config["data"]["MLFLOW_TRACKING_URI"] == status["url"]
    shown = ns.kubectl("get", "mls", server.name, "--no-headers").split()
    assert shown[:4] == [server.name, "True", status["version"], status["url"]]
