"""The first promise: an empty spec becomes a server that does real MLflow work."""

from tests.e2e.forward import Forward
from tests.e2e.kube import Kube
from tests.e2e.scientist import Scientist
from tests.e2e.server import Server


def test_an_empty_spec_is_a_whole_server(ns: Kube) -> None:
    """A run with parameters, metrics and files, a registered model with an alias, loaded back and predicting."""
    server = Server(ns).apply().ready()
    with Forward(ns, server.names.service, 5000) as forward:
        scientist = Scientist(forward.url)
        scientist.finds(scientist.work())


def test_status_tells_where_everything_is(shared: Server) -> None:
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
