"""Pods with two containers for backup and restore, because no image contains both the Postgres programs and an S3
client.

One container, from the server's image, accesses the store, the other one the database. They exchange data in a
directory in memory.
"""

from mlflow_operator.kube.objects import Object
from mlflow_operator.model import container_parts, encryption, jobs, mlflow_env
from mlflow_operator.model import resources as sizing
from mlflow_operator.model.server import ObjectStore, Server

EXCHANGE_DIR = "/exchange"
_MOUNT: Object = {"name": "exchange", "mountPath": EXCHANGE_DIR}


def pod(server: Server, component: str, store: ObjectStore, containers: list[Object]) -> Object:
    """The pod template. `containers` are results of `s3_container` and `postgres_container`."""
    volumes = [
        *mlflow_env.database_volumes(server),
        *([container_parts.ca_volume(mlflow_env.ARTIFACTS_CA_VOLUME, store.ca)] if store.ca else []),
        # It contains passwords: it is kept in memory, and only while the pod exists.
        {"name": "exchange", "emptyDir": {"medium": "Memory", "sizeLimit": "16Mi"}},
        *encryption.keyring_volumes(server),
    ]
    return jobs.pod(server, component, containers, volumes)


def s3_container(server: Server, store: ObjectStore, script: str, env: list[Object]) -> Object:
    """A container that runs the Python code `script` with `env` and the user's variables and volumes.

    It gets the encryption keys of the server: the manifest of a backup identifies those that a restore needs. The
    caller sets its name and resources.
    """
    ca_mounts = [container_parts.ca_mount(mlflow_env.ARTIFACTS_CA_VOLUME)] if store.ca else []
    return _container(server) | {
        "image": server.image,
        "imagePullPolicy": server.pull_policy,
        "command": ["python3", "-u", "-c", script],
        "env": container_parts.merged_env([*env, encryption.keyring_env(server)], server.env),
        "volumeMounts": [
            *mlflow_env.database_mounts(server),
            *ca_mounts,
            _MOUNT,
            *encryption.keyring_mounts(server),
        ],
    }


def postgres_container(server: Server, component: str, image: str, script: str, dir_variable: str) -> Object:
    """A container that runs the POSIX sh code `script`, in a pod of `component`. The caller sets its name.

    The variable `dir_variable` contains the exchange directory. The user's variables and volumes are included because
    libpq may need them, for example a client certificate.
    """
    return _container(server) | {
        "image": image,
        "imagePullPolicy": "IfNotPresent",
        "command": ["sh", "-c", script],
        "env": container_parts.merged_env(
            [*container_parts.home_env(), container_parts.env_value(dir_variable, EXCHANGE_DIR)], server.env
        ),
        "resources": jobs.resources(server, component, sizing.backup()),
        "volumeMounts": [*mlflow_env.database_mounts(server), _MOUNT],
    }


def _container(server: Server) -> Object:
    return {
        "envFrom": list(server.env_from),
        "securityContext": container_parts.CONTAINER_SECURITY,
        "terminationMessagePolicy": "FallbackToLogsOnError",
    }
