"""Manifest of the Job that prepares MLflow's accounts."""

import hashlib
import json

from mlflow_operator import pod_scripts
from mlflow_operator.kube import labels
from mlflow_operator.kube.objects import Object
from mlflow_operator.model import authentication, container_parts, jobs, mlflow_env
from mlflow_operator.model import resources as sizing
from mlflow_operator.model.metadata import object_metadata
from mlflow_operator.model.server import Server

CONTAINER = "authenticate"
_DEADLINE_SECONDS = 1800
"""Includes the image pull. The program needs seconds, unless it waits for a migration."""


def job(server: Server, database_identity: str, *, switching_database: bool = False) -> Object:
    """Job for the first attempt to migrate the tables with accounts and to create or reset the administrator.

    `switching_database`: prepare the accounts in the database that the server will be switched to. The name contains a
    hash of the pod template and the database, so that another image gets a new Job.
    """
    key = mlflow_env.NEXT_STORE_KEY if switching_database else mlflow_env.BACKEND_STORE_KEY
    template = _pod(server, key)
    inputs = json.dumps([template, database_identity], sort_keys=True)
    name = server.names.authentication(hashlib.sha256(inputs.encode()).hexdigest()[:8])
    meta = object_metadata(server.owner, name, labels.AUTHENTICATION_POD, {labels.ATTEMPT: "1"})
    return jobs.job(meta, _DEADLINE_SECONDS, template)


def _pod(server: Server, key: str) -> Object:
    env = [*mlflow_env.database_env(server, key), *authentication.job_env(server)]
    container: Object = {
        "name": CONTAINER,
        "image": server.image,
        "imagePullPolicy": server.pull_policy,
        "command": ["python3", "-u", "-c", pod_scripts.AUTHENTICATE],
        "env": container_parts.merged_env(env, server.env),
        "envFrom": list(server.env_from),
        "resources": jobs.resources(server, labels.AUTHENTICATION_POD, sizing.migration()),
        "securityContext": container_parts.CONTAINER_SECURITY,
        # The last log lines become the condition's message; the operator needs no permission to read logs.
        "terminationMessagePolicy": "FallbackToLogsOnError",
        "volumeMounts": mlflow_env.database_mounts(server),
    }
    return jobs.pod(server, labels.AUTHENTICATION_POD, [container], mlflow_env.database_volumes(server))
