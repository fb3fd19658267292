"""What a client needs to know, made for `envFrom`."""

from mlflow_operator.core import labels
from mlflow_operator.core.meta import metadata
from mlflow_operator.core.objects import Object
from mlflow_operator.core.server import Server


def config_map(server: Server) -> Object:
    """ConfigMap `<name>-client`: with it a pod's plain MLflow client finds this server."""
    return {
        "apiVersion": "v1",
        "kind": "ConfigMap",
        "metadata": metadata(server.owner, server.names.client, labels.SERVER_POD),
        "data": {"MLFLOW_TRACKING_URI": server.url},
    }
