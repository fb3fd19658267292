"""How `artifacts.access: Proxied` is kept: an MLflow plugin, mounted from a ConfigMap."""

from mlflow_operator import payload
from mlflow_operator.core import labels
from mlflow_operator.core.meta import metadata
from mlflow_operator.core.objects import Object
from mlflow_operator.core.server import Owner

PATH = "/opt/mlflow-operator/plugins"
"""On PYTHONPATH, so that Python's importlib.metadata finds the plugin as if it were installed."""

_DIST = "mlflow_operator_proxied_s3-1.dist-info"
DIRECT_APP = "mlflow-operator-direct"
"""What `mlflow server --app-name` calls the application that takes the tracking API straight to its handlers."""

_DIRECT_DIST = "mlflow_operator_direct-1.dist-info"
_FILES = {
    "proxied_s3.py": ("mlflow_operator_proxied_s3.py", payload.PROXIED_S3),
    "METADATA": (
        f"{_DIST}/METADATA",
        "Metadata-Version: 2.1\nName: mlflow-operator-proxied-s3\nVersion: 1\n",
    ),
    "entry_points.txt": (
        f"{_DIST}/entry_points.txt",
        "[mlflow.artifact_repository]\ns3 = mlflow_operator_proxied_s3:ProxiedS3ArtifactRepository\n",
    ),
    "direct.py": ("mlflow_operator_direct.py", payload.DIRECT),
    "DIRECT_METADATA": (
        f"{_DIRECT_DIST}/METADATA",
        "Metadata-Version: 2.1\nName: mlflow-operator-direct\nVersion: 1\n",
    ),
    "direct_entry_points.txt": (
        f"{_DIRECT_DIST}/entry_points.txt",
        f"[mlflow.app]\n{DIRECT_APP} = mlflow_operator_direct:app\n",
    ),
}


def config_map(owner: Owner) -> Object:
    """The plugin's files, one key each."""
    return {
        "apiVersion": "v1",
        "kind": "ConfigMap",
        "metadata": metadata(owner, owner.names.plugin, labels.SERVER_POD),
        "data": {key: content for key, (_, content) in _FILES.items()},
    }


def volume(owner: Owner) -> Object:
    """The files at the paths where Python looks for them."""
    items = [{"key": key, "path": path} for key, (path, _) in _FILES.items()]
    return {"name": "plugins", "configMap": {"name": owner.names.plugin, "items": items}}


MOUNT: Object = {"name": "plugins", "mountPath": PATH, "readOnly": True}
