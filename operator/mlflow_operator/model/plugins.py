"""Plugins for MLflow's own extension points: files of a ConfigMap that are mounted on the Python path.

Access Proxied needs an artifact repository that cannot presign URLs. The other access modes need one that presigns URLs
for the public endpoint and, like the first, sends requests that stores other than AWS accept. Authentication needs an
application that checks passwords before MLflow does. The rest is MLflow's own code.
"""

from mlflow_operator import pod_scripts
from mlflow_operator.api.artifacts import ArtifactAccess
from mlflow_operator.kube import labels
from mlflow_operator.kube.objects import Object
from mlflow_operator.model import authentication
from mlflow_operator.model.metadata import object_metadata
from mlflow_operator.model.server import Artifacts, Server

PLUGIN_DIR = "/opt/mlflow-operator/plugins"
"""Directory on PYTHONPATH where importlib.metadata finds the plugins like installed distributions."""

PUBLIC_ENDPOINT_ENV = "MLFLOW_OPERATOR_S3_PUBLIC_ENDPOINT_URL"
"""Environment variable with the endpoint for which the plugin presigns URLs."""

ASSISTANT_ENV = "MLFLOW_OPERATOR_ASSISTANT"
"""Environment variable that makes the fast path hide MLflow's assistant. MLflow has no setting for this."""

FAST_PATH_APP = "mlflow-operator-direct"
"""Value of `mlflow server --app-name` for the application that calls MLflow's tracking API handlers directly."""

AUTH_FAST_PATH_APP, AUTH_APP, AUTH_CACHE_APP = (
    "mlflow-operator-direct-auth",
    "mlflow-operator-auth",
    "mlflow-operator-auth-cache",
)
"""The same for the applications with authentication: with the fast path, without it, and for versions of MLflow whose
internals are not known and that check passwords themselves."""

LAUNCHER_MODULE = "mlflow_operator_tracking.launcher"
"""Module that replaces the `mlflow` command and does not keep a second copy of MLflow in memory."""

DUAL_STACK_MODULE = "mlflow_operator_tracking.dual_stack"
"""Module that replaces the `mlflow` command and also accepts IPv6 connections."""

DRAINING_FILE = ".mlflow-operator-draining"
"""File in HOME. While it exists, the fast path application closes a client's connection after each response."""

MOUNT: Object = {"name": "plugins", "mountPath": PLUGIN_DIR, "readOnly": True}


def _distribution(name: str, group: str, entries: str, keys: tuple[str, str]) -> dict[str, tuple[str, str]]:
    """The two metadata files that make Python treat a module as an installed distribution."""
    folder = f"mlflow_operator_{name}-1.dist-info"
    distribution = f"mlflow-operator-{name.replace('_', '-')}"
    return {
        keys[0]: (f"{folder}/METADATA", f"Metadata-Version: 2.1\nName: {distribution}\nVersion: 1\n"),
        keys[1]: (f"{folder}/entry_points.txt", f"[{group}]\n{entries}\n"),
    }


_REPOSITORY_KEYS, _FAST_PATH_KEYS, _AUTH_KEYS = (
    ("METADATA", "entry_points.txt"),
    ("DIRECT_METADATA", "direct_entry_points.txt"),
    ("AUTH_METADATA", "auth_entry_points.txt"),
)
_REPOSITORY_GROUP = "mlflow.artifact_repository"
_PROXIED = {
    "proxied_s3.py": ("mlflow_operator_proxied_s3.py", pod_scripts.PROXIED_S3),
    **_distribution(
        "proxied_s3",
        _REPOSITORY_GROUP,
        "s3 = mlflow_operator_proxied_s3:ProxiedS3ArtifactRepository",
        _REPOSITORY_KEYS,
    ),
    "direct.py": ("mlflow_operator_tracking/direct.py", pod_scripts.DIRECT),
    "dual_stack.py": ("mlflow_operator_tracking/dual_stack.py", pod_scripts.DUAL_STACK),
    "json_writer.py": ("mlflow_operator_tracking/json_writer.py", pod_scripts.JSON_WRITER),
    "launcher.py": ("mlflow_operator_tracking/launcher.py", pod_scripts.LAUNCHER),
    **_distribution(
        "direct", "mlflow.app", f"{FAST_PATH_APP} = mlflow_operator_tracking.direct:app", _FAST_PATH_KEYS
    ),
}
_SMALL_POOL = {
    "small_pool.py": ("mlflow_operator_tracking/small_pool.py", pod_scripts.SMALL_POOL),
    **_distribution(
        "direct", "mlflow.app", f"{FAST_PATH_APP} = mlflow_operator_tracking.small_pool:app", _FAST_PATH_KEYS
    ),
}
"""Files with which the fast path uses fewer threads than the limit of the platform allows connections."""
_AUTH_MODULE = "mlflow_operator_tracking.authentication"
_AUTH = {
    "authentication.py": ("mlflow_operator_tracking/authentication.py", pod_scripts.AUTHENTICATION),
    "model_sources.py": ("mlflow_operator_tracking/model_sources.py", pod_scripts.MODEL_SOURCES),
    "password_check.py": ("mlflow_operator_tracking/password_check.py", pod_scripts.PASSWORD_CHECK),
    "request_login.py": ("mlflow_operator_tracking/request_login.py", pod_scripts.REQUEST_LOGIN),
    **_distribution(
        "authentication",
        "mlflow.app",
        f"{AUTH_FAST_PATH_APP} = {_AUTH_MODULE}:app\n"
        f"{AUTH_APP} = {_AUTH_MODULE}:app_without_fast_path\n"
        f"{AUTH_CACHE_APP} = {_AUTH_MODULE}:app_with_cache",
        _AUTH_KEYS,
    ),
}
_PUBLIC = {
    "public_s3.py": ("mlflow_operator_public_s3.py", pod_scripts.PUBLIC_S3),
    **_distribution(
        "public_s3",
        _REPOSITORY_GROUP,
        "s3 = mlflow_operator_public_s3:PublicS3ArtifactRepository",
        _REPOSITORY_KEYS,
    ),
}


def is_needed(server: Server) -> bool:
    """Whether the configuration needs a plugin because MLflow itself does not support it."""
    return bool(_files(server))


def app_name(server: Server) -> str | None:
    """Value of `mlflow server --app-name`; None for MLflow's own application."""
    if not server.requires_login:
        return FAST_PATH_APP if server.fast_path else None
    if server.fast_path:
        return AUTH_FAST_PATH_APP
    return AUTH_APP if authentication.checks_passwords(server) else AUTH_CACHE_APP


def public_endpoint(artifacts: Artifacts) -> str | None:
    """Endpoint in presigned URLs, if it differs from the endpoint that the server uses; else None."""
    store = artifacts.s3 if artifacts.access is ArtifactAccess.PRESIGNED else None
    return store.public_endpoint if store else None


def hides_assistant(server: Server) -> bool:
    """Whether the fast path hides MLflow's assistant. Other servers run MLflow's application without changes."""
    return server.fast_path and not server.assistant


def config_map(server: Server) -> Object:
    """ConfigMap with one key per plugin file."""
    owner = server.owner
    return {
        "apiVersion": "v1",
        "kind": "ConfigMap",
        "metadata": object_metadata(owner, owner.names.plugin_config_map, labels.SERVER_POD),
        "data": {key: content for key, (_, content) in _files(server).items()},
    }


def keys(server: Server) -> tuple[str, ...]:
    """Keys of the ConfigMap that the pods read."""
    return tuple(_files(server))


def volume(server: Server) -> Object:
    """Volume with the files at the paths where Python expects them."""
    items = [{"key": key, "path": path} for key, (path, _) in _files(server).items()]
    return {"name": "plugins", "configMap": {"name": server.names.plugin_config_map, "items": items}}


def _files(server: Server) -> dict[str, tuple[str, str]]:
    """Map each key of the ConfigMap to its path below PLUGIN_DIR and its content."""
    artifacts = server.artifacts
    files = _PUBLIC if artifacts.s3 else {}
    if artifacts.proxied:
        files = _PROXIED
    if server.fast_path and server.pool:
        files = files | _SMALL_POOL
    return files | _AUTH if server.requires_login else files
