"""The embedded database: one Postgres with one PersistentVolumeClaim."""

from mlflow_operator.kube import labels
from mlflow_operator.kube.objects import Object
from mlflow_operator.model import container_parts, stateful_store
from mlflow_operator.model.pod_template import PodSettings
from mlflow_operator.model.server import EmbeddedDatabase, SecretKey, ServerRef
from mlflow_operator.model.stateful_store import Store
from mlflow_operator.model.volumes import persistent_volume_claim

_RUN_AS_USER = 999  # `postgres` in the official image
_DATA_DIR = "/var/lib/postgresql/data"


def objects(
    owner: ServerRef, database: EmbeddedDatabase, settings: PodSettings, *, running: bool
) -> list[Object]:
    """StatefulSet and Service; `running` False means 0 replicas.

    The PersistentVolumeClaim and the credentials are data: `volume_claim` and `model.secrets` build them.
    """
    names = owner.names
    store = Store(
        name=names.postgres,
        component=labels.DATABASE_POD,
        claim_name=names.postgres_data,
        port_name="postgres",
        port=database.port,
        run_as_user=_RUN_AS_USER,
        # Enough for a fast shutdown, after which Postgres needs no crash recovery.
        grace_seconds=60,
        container=_container(owner, database),
        volumes=(
            {"name": "run", "emptyDir": {}},
            # Shared memory for parallel queries; the container runtime's default of 64 MiB is too small.
            {"name": "shared-memory", "emptyDir": {"medium": "Memory", "sizeLimit": "256Mi"}},
            {"name": "tmp", "emptyDir": {}},
        ),
    )
    return stateful_store.objects(owner, store, settings, running=running)


def volume_claim(owner: ServerRef, database: EmbeddedDatabase) -> Object:
    """PersistentVolumeClaim of the database."""
    return persistent_volume_claim(owner, owner.names.postgres_data, labels.DATABASE_POD, database.volume)


def _container(owner: ServerRef, database: EmbeddedDatabase) -> Object:
    pg_isready = ["pg_isready", "-q", "-h", "127.0.0.1", "-U", database.username, "-d", database.database]
    password = SecretKey(owner.names.database_secret, "password", "")
    return {
        "name": "postgres",
        "image": database.image,
        "args": ["postgres", "-c", f"max_connections={database.max_connections}"],
        "env": [
            container_parts.env_value("PGDATA", f"{_DATA_DIR}/pgdata"),
            container_parts.env_value("POSTGRES_USER", database.username),
            container_parts.env_value("POSTGRES_DB", database.database),
            # MLflow needs UTF8; with only the C locale, initdb would choose SQL_ASCII.
            container_parts.env_value("POSTGRES_INITDB_ARGS", "--encoding=UTF8 --locale=C.UTF-8"),
            container_parts.env_from_secret("POSTGRES_PASSWORD", password),
        ],
        "resources": database.resources,
        # Crash recovery after the loss of a node can take long, and killing the container would restart it.
        "startupProbe": container_parts.probe({"exec": {"command": pg_isready}}, 1, 600),
        # After the startup probe, an open port means that Postgres accepts connections. An exec probe would cost a
        # hundred times as much as a TCP connection, for the lifetime of the database.
        "readinessProbe": container_parts.probe({"tcpSocket": {"port": "postgres"}}, 5, 3),
        "volumeMounts": [
            {"name": "data", "mountPath": _DATA_DIR},
            {"name": "run", "mountPath": "/var/run/postgresql"},
            {"name": "shared-memory", "mountPath": "/dev/shm"},  # noqa: S108 - a mount path
            {"name": "tmp", "mountPath": "/tmp"},  # noqa: S108 - a mount path
        ],
    }
