"""Pods of two containers, for no image has both Postgres' programs and a client of S3: one speaks to the store,
from the server's image, and one to the database. They meet in a folder in memory.
"""

from mlflow_operator.kube.objects import Object
from mlflow_operator.model import jobs, mlflow_env, pod_template
from mlflow_operator.model import resources as sizing
from mlflow_operator.model.server import ObjectStore, Server

FOLDER = "/exchange"
_MOUNT: Object = {"name": "exchange", "mountPath": FOLDER}


def pod(server: Server, component: str, store: ObjectStore, containers: list[Object]) -> Object:
    """The pod's template; `containers` as `store_side` and `database_side` make them."""
    volumes = [
        *mlflow_env.database_volumes(server),
        *([pod_template.trust_volume(mlflow_env.ARTIFACTS_TRUST, store.ca)] if store.ca else []),
        # passwords lie there: in memory, for as long as the pod lives
        {"name": "exchange", "emptyDir": {"medium": "Memory", "sizeLimit": "16Mi"}},
    ]
    return jobs.pod(server, component, containers, volumes)


def s3_container(server: Server, store: ObjectStore, script: str, env: list[Object]) -> Object:
    """Runs `script`, Python, with `env` and what the store and the owner ask for; to be named, and given resources."""
    trust = [pod_template.trust_mount(mlflow_env.ARTIFACTS_TRUST)] if store.ca else []
    return _container(server) | {
        "image": server.image,
        "imagePullPolicy": server.pull_policy,
        "command": ["python3", "-u", "-c", script],
        "env": pod_template.merged_env(env, server.env),
        "volumeMounts": [*mlflow_env.database_mounts(server), *trust, _MOUNT],
    }


def postgres_container(server: Server, image: str, script: str, folder: str) -> Object:
    """Runs `script`, plain sh, which finds the folder in the variable `folder`; to be named.

    The owner's variables and volumes are there, too, for libpq may need them: a client's certificate, say.
    """
    return _container(server) | {
        "image": image,
        "imagePullPolicy": "IfNotPresent",
        "command": ["sh", "-c", script],
        "env": pod_template.merged_env(
            [*pod_template.home_env(), pod_template.value(folder, FOLDER)], server.env
        ),
        "resources": sizing.backup(),
        "volumeMounts": [*mlflow_env.database_mounts(server), _MOUNT],
    }


def _container(server: Server) -> Object:
    return {
        "envFrom": list(server.env_from),
        "securityContext": pod_template.CONTAINER_SECURITY,
        "terminationMessagePolicy": "FallbackToLogsOnError",
    }
