"""Pods of two containers, for no image has both Postgres' programs and a client of S3: one speaks to the store,
from the server's image, and one to the database. They meet in a folder in memory.
"""

from mlflow_operator.core import jobs, mlflow, pods, sizing
from mlflow_operator.core.objects import Object
from mlflow_operator.core.server import ObjectStore, Server

FOLDER = "/exchange"
_MOUNT: Object = {"name": "exchange", "mountPath": FOLDER}


def pod(server: Server, component: str, store: ObjectStore, containers: list[Object]) -> Object:
    """The pod's template; `containers` as `store_side` and `database_side` make them."""
    volumes = [
        *mlflow.database_volumes(server),
        *([pods.trust_volume(mlflow.ARTIFACTS_TRUST, store.ca)] if store.ca else []),
        # passwords lie there: in memory, for as long as the pod lives
        {"name": "exchange", "emptyDir": {"medium": "Memory", "sizeLimit": "16Mi"}},
    ]
    return jobs.pod(server, component, containers, volumes)


def store_side(server: Server, store: ObjectStore, script: str, env: list[Object]) -> Object:
    """Runs `script`, Python, with `env` and what the store and the owner ask for; to be named, and given resources."""
    trust = [pods.trust_mount(mlflow.ARTIFACTS_TRUST)] if store.ca else []
    return _container(server) | {
        "image": server.image,
        "imagePullPolicy": server.pull_policy,
        "command": ["python3", "-u", "-c", script],
        "env": pods.merged_env(env, server.env),
        "volumeMounts": [*mlflow.database_mounts(server), *trust, _MOUNT],
    }


def database_side(server: Server, image: str, script: str, folder: str) -> Object:
    """Runs `script`, plain sh, which finds the folder in the variable `folder`; to be named.

    The owner's variables and volumes are there, too, for libpq may need them: a client's certificate, say.
    """
    return _container(server) | {
        "image": image,
        "imagePullPolicy": "IfNotPresent",
        "command": ["sh", "-c", script],
        "env": pods.merged_env([*pods.home_env(), pods.value(folder, FOLDER)], server.env),
        "resources": sizing.backup(),
        "volumeMounts": [*mlflow.database_mounts(server), _MOUNT],
    }


def _container(server: Server) -> Object:
    return {
        "envFrom": list(server.env_from),
        "securityContext": pods.CONTAINER_SECURITY,
        "terminationMessagePolicy": "FallbackToLogsOnError",
    }
