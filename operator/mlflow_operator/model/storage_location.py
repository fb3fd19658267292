"""Where a server keeps its data, as the status says it: for people, and to notice that it is pointed elsewhere."""

from mlflow_operator.kube.objects import Object
from mlflow_operator.model import mlflow_env
from mlflow_operator.model.postgres_uri import Connection
from mlflow_operator.model.server import (
    ClusterDatabase,
    EmbeddedDatabase,
    ExternalDatabase,
    ProvisionedDatabase,
    Server,
)

PROVISION = "Provision"

_TYPES = {
    EmbeddedDatabase: "Embedded",
    ExternalDatabase: "External",
    ProvisionedDatabase: PROVISION,
    ClusterDatabase: "CloudNativePG",
}


def of(server: Server, connection: Connection) -> Object:
    """The status' members `database` and `artifacts`."""
    return {
        "database": {
            "type": _TYPES[type(server.database)],
            "host": connection.host,
            "port": connection.port,
            "name": connection.database,
        },
        "artifacts": {
            "type": "Embedded" if server.artifacts.embedded else "S3" if server.artifacts.s3 else "External",
            "uri": server.artifacts.store.uri,
        },
    }


def same_database(known: Object, connection: Connection) -> bool:
    """Whether `connection` leads to the database that the status knows; of none, it knows nothing to the contrary.

    A status written before ports were noted counts for any port.
    """
    here = (connection.host, connection.port, connection.database)
    return (known.get("host"), known.get("port", connection.port), known.get("name")) == here


def same(known: Object, other: Object) -> bool:
    """Whether two members `database` of the status name one database; a port that one does not know is any port."""
    ports = {place["port"] for place in (known, other) if place.get("port")}
    return len(ports) < 2 and all(known.get(key) == other.get(key) for key in ("host", "name"))


def has_moved(status: Object, connection: Connection) -> bool:
    """Whether the status knows of another database than the one that `connection` leads to."""
    known = status.get("database") or {}
    return bool(known.get("host")) and not same_database(known, connection)


def same_files(deployment: Object | None, wanted: Object) -> bool:
    """Whether the pods that are there keep artifacts where the wanted ones would; so it is where there are none."""
    return deployment is None or files(_pod(deployment)) == files(_pod(wanted))


def files(pod: Object) -> tuple[str, str]:
    """Where pods of this spec keep artifacts: address, and endpoint of the store (empty: AWS, not S3, or unknown)."""
    env = {
        variable["name"]: str(variable.get("value") or "")
        for container in pod.get("containers") or ()
        for variable in container.get("env") or ()
    }
    return env.get(mlflow_env.DESTINATION, ""), env.get(mlflow_env.ENDPOINT, "")


def _pod(deployment: Object) -> Object:
    found: Object = deployment["spec"]["template"]["spec"]
    return found


def as_text(known: Object) -> str:
    """A database of the status in one word: host, port if it is known, name."""
    port = f":{known['port']}" if known.get("port") else ""
    return f"{known.get('host')}{port}/{known.get('name')}"
