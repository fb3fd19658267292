"""Secrets of a server. Two are generated once and are data; the third is derived and can be recreated."""

import base64
import binascii
import contextlib
from collections.abc import Mapping

from mlflow_operator.api.artifacts import Engine
from mlflow_operator.kube import json_patch, labels
from mlflow_operator.kube.objects import Object
from mlflow_operator.model import mlflow_env, seaweedfs
from mlflow_operator.model.metadata import data_metadata, object_metadata
from mlflow_operator.model.postgres_uri import Connection
from mlflow_operator.model.server import Artifacts, ObjectStore, ServerRef

ROLLOUT_KEY = "rollout-key"
"""Key of the Secret `<name>-server` with the HMAC key for the digests in annotations."""

DATABASE_CA_KEY, ARTIFACTS_CA_KEY = "database-ca.crt", "artifacts-ca.crt"
"""Keys of the same Secret: the CA certificates of a platform's stores, whose own Secrets pods cannot read."""

ACCESS_KEY_FIELDS = "accessKeyID", "secretAccessKey"
"""Keys of the Secret `<name>-artifacts`: root credentials of an embedded store, or the server's for a shared store."""

SERVER_ACCESS_KEY_FIELDS = "serverAccessKeyID", "serverSecretAccessKey"
"""Keys of the same Secret: the server's own credentials for an embedded store."""


def database_secret(owner: ServerRef, connection: Connection) -> Object:
    """Secret with the credentials of a database that was created for the server, complete for a manual connection."""
    metadata = data_metadata(owner, owner.names.database_secret, labels.DATABASE_POD)
    return opaque_secret(metadata, database_values(connection))


def database_values(connection: Connection) -> dict[str, str]:
    """Values of that Secret for a connection."""
    return {
        "username": connection.username,
        "password": connection.password,
        "host": connection.host,
        "port": str(connection.port),
        "dbname": connection.database,
        "uri": connection.sqlalchemy_uri(),
    }


def artifacts_secret(owner: ServerRef, store: ObjectStore, keys: dict[str, str]) -> Object:
    """Secret with the credentials of the embedded artifact store, or of the server's own user of a shared store.

    It also contains endpoint and bucket for a manual connection. `keys` contains the keys ACCESS_KEY_FIELDS, and
    SERVER_ACCESS_KEY_FIELDS if the store is embedded.
    """
    metadata = data_metadata(owner, owner.names.artifacts_secret, labels.ARTIFACT_STORE_POD)
    return opaque_secret(metadata, {**keys, **_location(store)})


def access_key_pair(first_token: str, second_token: str) -> tuple[str, str]:
    """Turn two random URL-safe tokens of about 30 characters into an access key ID and a secret key for any store.

    SeaweedFS accepts only letters and digits in the ID, MinIO at most 20 characters.
    """
    return "".join(filter(str.isalnum, first_token))[:20], second_token


def location_patch(values: dict[str, str], store: ObjectStore) -> list[Object]:
    """JSON patch that updates endpoint and bucket in that Secret; empty if they are current."""
    return [
        json_patch.put(json_patch.pointer("data", key), encode(text))
        for key, text in _location(store).items()
        if values.get(key) != text
    ]


def _location(store: ObjectStore) -> dict[str, str]:
    return {"endpoint": store.endpoint or "", "bucket": store.bucket}


def pod_database_uri(connection: Connection) -> str:
    """Connection URI for the server's pods."""
    return connection.with_keepalives().sqlalchemy_uri()


def server_secret(owner: ServerRef, uri: str, rollout_key: str, **extra: str) -> Object:
    """Secret with values for the pods that only the operator can compute. `uri` is a result of `pod_database_uri`."""
    return opaque_secret(
        object_metadata(owner, owner.names.server_secret, labels.SERVER_POD),
        {mlflow_env.BACKEND_STORE_KEY: uri, ROLLOUT_KEY: rollout_key, **extra},
    )


def embedded_store_config(artifacts: Artifacts, access_key: str, secret_key: str) -> dict[str, str]:
    """Configuration with the root credentials for a store that cannot read them from their own Secret."""
    embedded = artifacts.embedded
    if embedded is None or embedded.engine is not Engine.SEAWEEDFS:
        return {}
    return seaweedfs.config(access_key, secret_key)


def text_values(secret: Object) -> dict[str, str]:
    """Text values of an observed Secret of the operator. Others are skipped: the operator writes no binary values."""
    return {key: text for key, text in all_values(secret).items() if is_text(text)}


def all_values(secret: Object) -> dict[str, str]:
    """All values of any observed Secret.

    Bytes that are not UTF-8 (for example a Java keystore) become surrogates, so that a change of them is detected and
    `is_text` recognises them.
    """
    values = {}
    for key, encoded in (secret.get("data") or {}).items():
        with contextlib.suppress(binascii.Error):
            values[key] = base64.b64decode(encoded).decode(errors="surrogateescape")
    return values


def encode(text: str) -> str:
    """Encode a value for the `data` of a Secret."""
    return base64.b64encode(text.encode()).decode()


def is_text(value: str) -> bool:
    """Whether a value of `all_values` is text, not binary."""
    try:
        value.encode()
    except UnicodeEncodeError:
        return False
    return True


def opaque_secret(metadata: Object, values: Mapping[str, str]) -> Object:
    """A Secret with text values."""
    return {
        "apiVersion": "v1",
        "kind": "Secret",
        "metadata": metadata,
        "type": "Opaque",
        "data": {key: encode(text) for key, text in values.items()},
    }
