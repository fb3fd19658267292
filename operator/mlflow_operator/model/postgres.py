"""The embedded database: one Postgres on a volume of its own."""

from mlflow_operator.kube import labels
from mlflow_operator.kube.objects import Object
from mlflow_operator.model import pod_template, stateful_store
from mlflow_operator.model.server import EmbeddedDatabase, PodSettings, SecretKey, ServerRef
from mlflow_operator.model.stateful_store import Store
from mlflow_operator.model.volumes import claim

_USER = 999  # `postgres` in the official image
_DATA = "/var/lib/postgresql/data"


def objects(
    owner: ServerRef, database: EmbeddedDatabase, settings: PodSettings, *, running: bool
) -> list[Object]:
    """StatefulSet and Service; no pod unless `running`.

    The volume and the credentials are data, made by `data` and `credentials`.
    """
    names = owner.names
    store = Store(
        name=names.postgres,
        component=labels.DATABASE_POD,
        claim=names.postgres_data,
        port_name="postgres",
        port=database.port,
        user=_USER,
        # a fast shutdown ends within it and leaves nothing to recover
        grace=60,
        container=_container(owner, database),
        volumes=(
            {"name": "run", "emptyDir": {}},
            # parallel queries share memory here; the runtime's default of 64 MiB is too little
            {"name": "shared-memory", "emptyDir": {"medium": "Memory", "sizeLimit": "256Mi"}},
            {"name": "tmp", "emptyDir": {}},
        ),
    )
    return stateful_store.objects(owner, store, settings, running=running)


def data(owner: ServerRef, database: EmbeddedDatabase) -> Object:
    """The volume's claim."""
    return claim(owner, owner.names.postgres_data, labels.DATABASE_POD, database.volume)


def _container(owner: ServerRef, database: EmbeddedDatabase) -> Object:
    ready = ["pg_isready", "-q", "-h", "127.0.0.1", "-U", database.username, "-d", database.database]
    password = SecretKey(owner.names.database_secret, "password", "")
    return {
        "name": "postgres",
        "image": database.image,
        "env": [
            pod_template.value("PGDATA", f"{_DATA}/pgdata"),
            pod_template.value("POSTGRES_USER", database.username),
            pod_template.value("POSTGRES_DB", database.database),
            # MLflow needs UTF8: with the C locale alone initdb would choose SQL_ASCII
            pod_template.value("POSTGRES_INITDB_ARGS", "--encoding=UTF8 --locale=C.UTF-8"),
            pod_template.from_secret("POSTGRES_PASSWORD", password),
        ],
        "resources": database.resources,
        # crash recovery after a lost node can take long; killing it would start it all over again
        "startupProbe": pod_template.probe({"exec": {"command": ready}}, 1, 600),
        # by then it listens to nobody it would refuse, and to start a program in a container, for as long as the
        # database lives, takes a hundred times what a connection does
        "readinessProbe": pod_template.probe({"tcpSocket": {"port": "postgres"}}, 5, 3),
        "volumeMounts": [
            {"name": "data", "mountPath": _DATA},
            {"name": "run", "mountPath": "/var/run/postgresql"},
            {"name": "shared-memory", "mountPath": "/dev/shm"},  # noqa: S108 - a mount
            {"name": "tmp", "mountPath": "/tmp"},  # noqa: S108 - a mount
        ],
    }
