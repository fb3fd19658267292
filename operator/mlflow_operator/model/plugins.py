"""What the operator adds to MLflow, by MLflow's own entry points: files of a ConfigMap, mounted where Python looks.

Proxied needs a store that can't sign, a public address one that signs for it; the rest is MLflow's own.
"""

from mlflow_operator import pod_scripts
from mlflow_operator.kube import labels
from mlflow_operator.kube.objects import Object
from mlflow_operator.model.metadata import object_metadata
from mlflow_operator.model.server import Access, Artifacts, Server

PATH = "/opt/mlflow-operator/plugins"
"""On PYTHONPATH, so that Python's importlib.metadata finds the plugin as if it were installed."""

PUBLIC_ADDRESS = "MLFLOW_OPERATOR_S3_PUBLIC_ENDPOINT_URL"
"""Where the signing plugin finds the address that URLs begin with."""

DIRECT_APP = "mlflow-operator-direct"
"""What `mlflow server --app-name` calls the application that takes the tracking API straight to its handlers."""

LAUNCHER = "mlflow_operator_tracking.launcher"
"""The module that does what the command `mlflow` does, and keeps no second copy of MLflow."""

DRAINING = ".mlflow-operator-draining"
"""The file below HOME that tells that application to part from its clients."""

MOUNT: Object = {"name": "plugins", "mountPath": PATH, "readOnly": True}


def _distribution(name: str, group: str, entry: str, keys: tuple[str, str]) -> dict[str, tuple[str, str]]:
    """The two files by which Python takes a module for installed."""
    folder = f"mlflow_operator_{name}-1.dist-info"
    title = f"mlflow-operator-{name.replace('_', '-')}"
    return {
        keys[0]: (f"{folder}/METADATA", f"Metadata-Version: 2.1\nName: {title}\nVersion: 1\n"),
        keys[1]: (f"{folder}/entry_points.txt", f"[{group}]\n{entry}\n"),
    }


_PLAIN, _OF_DIRECT = ("METADATA", "entry_points.txt"), ("DIRECT_METADATA", "direct_entry_points.txt")
_REPOSITORIES = "mlflow.artifact_repository"
_PROXIED = {
    "proxied_s3.py": ("mlflow_operator_proxied_s3.py", pod_scripts.PROXIED_S3),
    **_distribution(
        "proxied_s3", _REPOSITORIES, "s3 = mlflow_operator_proxied_s3:ProxiedS3ArtifactRepository", _PLAIN
    ),
    "direct.py": ("mlflow_operator_tracking/direct.py", pod_scripts.DIRECT),
    "json_writer.py": ("mlflow_operator_tracking/json_writer.py", pod_scripts.JSON_WRITER),
    "launcher.py": ("mlflow_operator_tracking/launcher.py", pod_scripts.LAUNCHER),
    **_distribution(
        "direct", "mlflow.app", f"{DIRECT_APP} = mlflow_operator_tracking.direct:app", _OF_DIRECT
    ),
}
_PUBLIC = {
    "public_s3.py": ("mlflow_operator_public_s3.py", pod_scripts.PUBLIC_S3),
    **_distribution(
        "public_s3", _REPOSITORIES, "s3 = mlflow_operator_public_s3:PublicS3ArtifactRepository", _PLAIN
    ),
}


def wanted(artifacts: Artifacts) -> bool:
    """Whether MLflow itself does not do what is asked for."""
    return bool(_files(artifacts))


def public_address(artifacts: Artifacts) -> str | None:
    """What signed URLs begin with, where that is not where the server reaches the store."""
    store = artifacts.s3 if artifacts.access is Access.PRESIGNED else None
    return store.public_endpoint if store else None


def config_map(server: Server) -> Object:
    """The plugin's files, one key each."""
    owner = server.owner
    return {
        "apiVersion": "v1",
        "kind": "ConfigMap",
        "metadata": object_metadata(owner, owner.names.plugin, labels.SERVER_POD),
        "data": {key: content for key, (_, content) in _files(server.artifacts).items()},
    }


def volume(server: Server) -> Object:
    """The files at the paths where Python looks for them."""
    items = [{"key": key, "path": path} for key, (path, _) in _files(server.artifacts).items()]
    return {"name": "plugins", "configMap": {"name": server.names.plugin, "items": items}}


def _files(artifacts: Artifacts) -> dict[str, tuple[str, str]]:
    """Key in the ConfigMap -> path below `PATH`, and content."""
    if artifacts.proxied:
        return _PROXIED
    return _PUBLIC if public_address(artifacts) else {}
