"""What a client needs to know, made for `envFrom`."""

import base64

from mlflow_operator.kube import labels
from mlflow_operator.kube.objects import Object
from mlflow_operator.model.metadata import object_metadata
from mlflow_operator.model.server import Access, Server


def config_map(server: Server) -> Object:
    """ConfigMap `<name>-client`: with it a pod's plain MLflow client finds this server, and where it has to reach the
    store itself, that, too."""
    return {
        "apiVersion": "v1",
        "kind": "ConfigMap",
        "metadata": object_metadata(server.owner, server.names.client, labels.SERVER_POD),
        "data": {"MLFLOW_TRACKING_URI": server.url, **_store(server)},
    }


def has_secret(server: Server) -> bool:
    """Whether clients are given keys; without any, the server's own identity opens the store, and theirs must."""
    store = server.artifacts.s3
    return bool(server.artifacts.access is Access.DIRECT and store and store.access_key)


def secret(server: Server, access_key: str | None, secret_key: str | None) -> Object:
    """Secret `<name>-client`: the keys by which the server opens the store, for clients that do so themselves.

    Where clients are given none its values are empty, for one that is left over: to delete Secrets takes a permission
    that not every operator has.
    """
    given = has_secret(server)
    values = {
        "AWS_ACCESS_KEY_ID": (access_key or "") if given else "",
        "AWS_SECRET_ACCESS_KEY": (secret_key or "") if given else "",
    }
    return {
        "apiVersion": "v1",
        "kind": "Secret",
        "metadata": object_metadata(server.owner, server.names.client, labels.SERVER_POD),
        "type": "Opaque",
        "data": {name: base64.b64encode(value.encode()).decode() for name, value in values.items()},
    }


def _store(server: Server) -> dict[str, str]:
    store = server.artifacts.s3
    if server.artifacts.access is not Access.DIRECT or store is None:
        return {}
    endpoint = store.public_endpoint or store.endpoint
    return {
        "AWS_DEFAULT_REGION": store.region,
        "MLFLOW_BOTO_CLIENT_ADDRESSING_STYLE": store.addressing_style,
        **({"MLFLOW_S3_ENDPOINT_URL": endpoint} if endpoint else {}),
    }
