"""ConfigMap and Secret for MLflow clients, for use with `envFrom`."""

from mlflow_operator.api.artifacts import ArtifactAccess
from mlflow_operator.kube import labels
from mlflow_operator.kube.objects import Object
from mlflow_operator.model import mlflow_env, secrets
from mlflow_operator.model.metadata import object_metadata
from mlflow_operator.model.server import Server


def config_map(server: Server) -> Object:
    """ConfigMap `<name>-client`: the environment variables with which an MLflow client in a pod finds this server, and
    the artifact store if clients access it themselves."""
    return {
        "apiVersion": "v1",
        "kind": "ConfigMap",
        "metadata": object_metadata(server.owner, server.names.client, labels.SERVER_POD),
        "data": {"MLFLOW_TRACKING_URI": server.url, **_store_settings(server)},
    }


def has_secret(server: Server) -> bool:
    """Whether clients receive store credentials. Without them server and clients use their workload identities."""
    store = server.artifacts.s3
    return bool(server.artifacts.access is ArtifactAccess.DIRECT and store and store.access_key)


def secret(server: Server, access_key: str | None, secret_key: str | None) -> Object:
    """Secret `<name>-client`: the server's store credentials, for clients that access the store themselves.

    If clients receive no credentials, the values are empty: an existing Secret is emptied rather than deleted, because
    not every operator has the permission to delete Secrets.
    """
    has_keys = has_secret(server)
    values = {
        "AWS_ACCESS_KEY_ID": (access_key or "") if has_keys else "",
        "AWS_SECRET_ACCESS_KEY": (secret_key or "") if has_keys else "",
    }
    metadata = object_metadata(server.owner, server.names.client, labels.SERVER_POD)
    return secrets.opaque_secret(metadata, values)


def _store_settings(server: Server) -> dict[str, str]:
    store = server.artifacts.s3
    if server.artifacts.access is not ArtifactAccess.DIRECT or store is None:
        return {}
    endpoint = store.public_endpoint or store.endpoint
    return {
        "AWS_DEFAULT_REGION": store.region,
        "MLFLOW_BOTO_CLIENT_ADDRESSING_STYLE": store.addressing_style,
        **({"MLFLOW_S3_ENDPOINT_URL": endpoint} if endpoint else {}),
        **mlflow_env.checksum_settings(store),
        **{variable["name"]: variable["value"] for variable in mlflow_env.upload_env(store)},
    }
