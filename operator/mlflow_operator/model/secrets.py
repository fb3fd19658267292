"""Secrets of a server: two kinds that are generated once and are data, one that is computed and may go."""

import base64
import binascii
import contextlib

from mlflow_operator.kube import labels
from mlflow_operator.kube.objects import Object
from mlflow_operator.model import mlflow_env, seaweedfs
from mlflow_operator.model.metadata import object_metadata
from mlflow_operator.model.postgres_uri import Connection
from mlflow_operator.model.server import Artifacts, Engine, ObjectStore, ServerRef

ROLLOUT_KEY = "rollout-key"
"""Key of the Secret `<name>-server` with which values in annotations are made unguessable."""

STORE_KEY = "accessKeyID", "secretAccessKey"
"""Keys of the Secret `<name>-artifacts`: the root key of an embedded store, or the server's own of a shared one."""

OWN_KEY = "serverAccessKeyID", "serverSecretAccessKey"
"""Keys there of what the server itself opens an embedded store with."""


def database_secret(owner: ServerRef, connection: Connection) -> Object:
    """Credentials of a database that was made for the server, with all that a person needs to connect."""
    return _secret(owner, owner.names.database_secret, labels.DATABASE_POD, database_values(connection))


def database_values(connection: Connection) -> dict[str, str]:
    """What that Secret says of a connection."""
    return {
        "username": connection.username,
        "password": connection.password,
        "host": connection.host,
        "port": str(connection.port),
        "dbname": connection.database,
        "uri": connection.sqlalchemy(),
    }


def artifacts_secret(owner: ServerRef, store: ObjectStore, keys: dict[str, str]) -> Object:
    """Credentials of the embedded artifact store, or of the server's own user of a shared one, with all that a person
    needs to connect. `keys` are those under STORE_KEY, and OWN_KEY where the store is embedded."""
    return _secret(
        owner,
        owner.names.artifacts_secret,
        labels.ARTIFACT_STORE_POD,
        {**keys, **_place(store)},
    )


def access_key(word: str, other: str) -> tuple[str, str]:
    """Two random words, url-safe and some 30 characters long, as the two parts of a key that every store takes:
    SeaweedFS wants nothing but letters and digits in the first, MinIO at most 20 characters."""
    return "".join(filter(str.isalnum, word))[:20], other


def artifacts_moved(values: dict[str, str], store: ObjectStore) -> list[Object]:
    """The JSON patch by which that Secret says where the artifacts are now; empty where it does."""
    return [
        {"op": "add", "path": f"/data/{key}", "value": base64.b64encode(text.encode()).decode()}
        for key, text in _place(store).items()
        if values.get(key) != text
    ]


def _place(store: ObjectStore) -> dict[str, str]:
    return {"endpoint": store.endpoint or "", "bucket": store.bucket}


def server_uri(connection: Connection) -> str:
    """The database as the server's pods are told of it."""
    return connection.with_keepalives().sqlalchemy()


def server_secret(owner: ServerRef, uri: str, rollout_key: str, **more: str) -> Object:
    """What the pods read that only the operator can spell out: `uri` as `server_uri` gives it, and `more`."""
    return _secret(
        owner,
        owner.names.server_secret,
        labels.SERVER_POD,
        {mlflow_env.BACKEND_STORE_KEY: uri, ROLLOUT_KEY: rollout_key, **more},
    )


def store_users(artifacts: Artifacts, access_key: str, secret_key: str) -> dict[str, str]:
    """What the embedded store itself reads of its root key, where it does not take them from their own Secret."""
    embedded = artifacts.embedded
    if embedded is None or embedded.engine is not Engine.SEAWEEDFS:
        return {}
    return {seaweedfs.CONFIG_KEY: seaweedfs.config(access_key, secret_key)}


def decoded(secret: Object) -> dict[str, str]:
    """The values of a live Secret of ours; what is not UTF-8 is left out, for no value of ours may be binary."""
    return {key: text for key, text in contents(secret).items() if is_text(text)}


def contents(secret: Object) -> dict[str, str]:
    """All values of anybody's live Secret. Bytes that are no UTF-8 (a Java keystore, say) stand as surrogates, so
    that a change of them is a change, and `is_text` tells them."""
    found = {}
    for key, encoded in (secret.get("data") or {}).items():
        with contextlib.suppress(binascii.Error):
            found[key] = base64.b64decode(encoded).decode(errors="surrogateescape")
    return found


def encoded(text: str) -> str:
    """A value as a Secret's `data` holds it."""
    return base64.b64encode(text.encode()).decode()


def is_text(value: str) -> bool:
    """Whether a value of `contents` was text."""
    try:
        value.encode()
    except UnicodeEncodeError:
        return False
    return True


def _secret(owner: ServerRef, name: str, component: str, values: dict[str, str]) -> Object:
    return {
        "apiVersion": "v1",
        "kind": "Secret",
        "metadata": object_metadata(owner, name, component),
        "type": "Opaque",
        "data": {key: encoded(text) for key, text in values.items()},
    }
