"""Manifest of the Job that prepares MLflow's accounts."""

from mlflow_operator import pod_scripts
from mlflow_operator.kube import labels
from mlflow_operator.kube.objects import Object
from mlflow_operator.model import authentication, jobs, mlflow_env
from mlflow_operator.model.metadata import object_metadata
from mlflow_operator.model.server import Server

_DEADLINE_SECONDS = 1800
"""Includes the image pull. The program needs seconds, unless it waits for a migration."""


def job(server: Server, database_identity: str, *, switching_database: bool = False) -> Object:
    """Job for the first attempt to migrate the tables with accounts and to create or reset the administrator.

    `switching_database`: prepare the accounts in the database that the server will be switched to. The name contains a
    hash of the pod template and the database, so that another image gets a new Job.
    """
    env = [
        *mlflow_env.database_env(server, jobs.store_key(switching_database)),
        *authentication.job_env(server),
    ]
    container = jobs.database_container(server, labels.AUTHENTICATION_POD, pod_scripts.AUTHENTICATE, env)
    volumes = mlflow_env.database_volumes(server)
    template = jobs.pod(server, labels.AUTHENTICATION_POD, [container], volumes)
    name = server.names.authentication(jobs.name_digest(template, database_identity))
    meta = object_metadata(server.owner, name, labels.AUTHENTICATION_POD, {labels.ATTEMPT: "1"})
    return jobs.job(meta, _DEADLINE_SECONDS, template)
