"""The embedded database: one Postgres on a volume of its own."""

from mlflow_operator.core import labels, pods
from mlflow_operator.core.meta import metadata
from mlflow_operator.core.objects import Object
from mlflow_operator.core.server import EmbeddedDatabase, Owner, PodSettings, SecretKey
from mlflow_operator.core.volumes import claim

_USER = 999  # `postgres` in the official image
_DATA = "/var/lib/postgresql/data"


def objects(
    owner: Owner, database: EmbeddedDatabase, settings: PodSettings, *, running: bool
) -> list[Object]:
    """StatefulSet and Service; no pod unless `running`.

    The volume and the credentials are data, made by `data` and `credentials`.
    """
    return [_service(owner, database), _stateful_set(owner, database, settings, 1 if running else 0)]


def data(owner: Owner, database: EmbeddedDatabase) -> Object:
    """The volume's claim."""
    return claim(owner, owner.names.postgres_data, labels.DATABASE_POD, database.volume)


def _service(owner: Owner, database: EmbeddedDatabase) -> Object:
    return {
        "apiVersion": "v1",
        "kind": "Service",
        "metadata": metadata(owner, owner.names.postgres, labels.DATABASE_POD),
        "spec": {
            "type": "ClusterIP",
            "selector": labels.pods(owner.name, labels.DATABASE_POD),
            "ports": [
                {"name": "postgres", "port": database.port, "targetPort": "postgres", "protocol": "TCP"}
            ],
        },
    }


def _stateful_set(owner: Owner, database: EmbeddedDatabase, settings: PodSettings, replicas: int) -> Object:
    names = owner.names
    password = SecretKey(names.database_secret, "password", "")
    ready = ["pg_isready", "-q", "-h", "127.0.0.1", "-U", database.username, "-d", database.database]
    return {
        "apiVersion": "apps/v1",
        "kind": "StatefulSet",
        "metadata": metadata(owner, names.postgres, labels.DATABASE_POD),
        "spec": {
            "replicas": replicas,
            "serviceName": names.postgres,
            # with OrderedReady a pod that never became ready would never be replaced by a mended one
            "podManagementPolicy": "Parallel",
            "selector": {"matchLabels": labels.pods(owner.name, labels.DATABASE_POD)},
            "template": {
                "metadata": {"labels": labels.owned(owner.name, labels.DATABASE_POD)},
                "spec": {
                    **pods.common(_USER, settings),
                    # a fast shutdown ends within it and leaves nothing to recover
                    "terminationGracePeriodSeconds": 60,
                    "containers": [
                        {
                            "name": "postgres",
                            "image": database.image,
                            "imagePullPolicy": "IfNotPresent",
                            "ports": [{"name": "postgres", "containerPort": database.port}],
                            "env": [
                                pods.value("PGDATA", f"{_DATA}/pgdata"),
                                pods.value("POSTGRES_USER", database.username),
                                pods.value("POSTGRES_DB", database.database),
                                # MLflow needs UTF8: with the C locale alone initdb would choose SQL_ASCII
                                pods.value("POSTGRES_INITDB_ARGS", "--encoding=UTF8 --locale=C.UTF-8"),
                                pods.from_secret("POSTGRES_PASSWORD", password),
                                *pods.home_env(),
                            ],
                            "resources": database.resources,
                            "securityContext": pods.CONTAINER_SECURITY,
                            "startupProbe": {
                                "exec": {"command": ready},
                                "periodSeconds": 1,
                                # crash recovery after a lost node can take long; killing it starts it again
                                "failureThreshold": 600,
                                "timeoutSeconds": 5,
                            },
                            "readinessProbe": {
                                "exec": {"command": ready},
                                "periodSeconds": 5,
                                "failureThreshold": 3,
                                "timeoutSeconds": 5,
                            },
                            "terminationMessagePolicy": "FallbackToLogsOnError",
                            "volumeMounts": [
                                {"name": "data", "mountPath": _DATA},
                                {"name": "run", "mountPath": "/var/run/postgresql"},
                                {"name": "shared-memory", "mountPath": "/dev/shm"},  # noqa: S108 - a mount
                                {"name": "tmp", "mountPath": "/tmp"},  # noqa: S108 - a mount
                                pods.HOME_MOUNT,
                            ],
                        }
                    ],
                    "volumes": [
                        {"name": "data", "persistentVolumeClaim": {"claimName": names.postgres_data}},
                        {"name": "run", "emptyDir": {}},
                        # parallel queries share memory here; the runtime's default of 64 MiB is too little
                        {"name": "shared-memory", "emptyDir": {"medium": "Memory", "sizeLimit": "256Mi"}},
                        {"name": "tmp", "emptyDir": {}},
                        pods.HOME_VOLUME,
                    ],
                },
            },
        },
    }
