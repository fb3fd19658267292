"""Where a server keeps its data, as the status says it: for people, and to notice that it is pointed elsewhere."""

from mlflow_operator.core.database_uri import Connection
from mlflow_operator.core.objects import Object
from mlflow_operator.core.server import EmbeddedDatabase, Server


def of(server: Server, connection: Connection) -> Object:
    """The status' members `database` and `artifacts`."""
    embedded = isinstance(server.database, EmbeddedDatabase)
    return {
        "database": {
            "type": "Embedded" if embedded else "External",
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


def spelled(known: Object) -> str:
    """A database of the status in one word: host, port if it is known, name."""
    port = f":{known['port']}" if known.get("port") else ""
    return f"{known.get('host')}{port}/{known.get('name')}"
