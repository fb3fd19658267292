"""Manifests of the backup CronJob and of the Job that backs up the database before a schema migration."""

import hashlib
import json

from mlflow_operator import pod_scripts
from mlflow_operator.kube import labels
from mlflow_operator.kube.objects import Object
from mlflow_operator.model import container_parts, cronjobs, dump_pod, encryption, jobs, mlflow_env
from mlflow_operator.model import resources as sizing
from mlflow_operator.model.cronjobs import CronSchedule
from mlflow_operator.model.metadata import object_metadata
from mlflow_operator.model.server import Backup, Server

TIMEOUT_SECONDS = 24 * 3600
"""Maximum duration of a backup. The script treats an older unfinished backup as abandoned."""

S3_CONTAINER, POSTGRES_CONTAINER = "backup", "pg-dump"
"""Names of the two containers."""


def cronjob(server: Server, backup: Backup) -> Object:
    """CronJob of the scheduled backups. It is suspended while the server is, because the database may be down, too."""
    meta = object_metadata(server.owner, server.names.backup, labels.BACKUP_POD)
    schedule = CronSchedule(backup.schedule, backup.time_zone, server.suspended)
    return cronjobs.cronjob(meta, schedule, TIMEOUT_SECONDS, template(server, backup))


def pre_migration_job(
    server: Server,
    backup: Backup,
    target_image: str,
    database_state: str,
    *,
    switching_database: bool = False,
) -> Object:
    """Job that makes one backup before `target_image` migrates the schema. `server` is the server as it runs now.

    `switching_database`: the backup is of a database that the server does not use yet. The name holds the hash of the
    target, the database state and the destination, so that the backup is made once.
    """
    inputs = json.dumps([target_image, database_state, backup.store.uri])
    name = server.names.pre_migration_backup(hashlib.sha256(inputs.encode()).hexdigest()[:8])
    pod = template(server, backup, switching_database=switching_database)
    annotations = {labels.ATTEMPT: "1", labels.TEMPLATE_DIGEST: jobs.template_digest(pod)}
    meta = object_metadata(server.owner, name, labels.BACKUP_POD, annotations)
    return jobs.job(meta, TIMEOUT_SECONDS, pod)


def template(server: Server, backup: Backup, *, switching_database: bool = False) -> Object:
    """Pod template with both containers."""
    containers = [_s3_container(server, backup, switching_database), _postgres_container(server, backup)]
    return dump_pod.pod(server, labels.BACKUP_POD, backup.store, containers)


def _s3_container(server: Server, backup: Backup, switching_database: bool) -> Object:
    key = mlflow_env.NEXT_STORE_KEY if switching_database else mlflow_env.BACKEND_STORE_KEY
    env = [
        *mlflow_env.database_env(server, key),
        *mlflow_env.s3_env(backup.store),
        *mlflow_env.upload_env(backup.store),
        container_parts.env_value("BACKUP_FOLDER", dump_pod.EXCHANGE_DIR),
        container_parts.env_value("BACKUP_DESTINATION", backup.store.uri),
        container_parts.env_value("BACKUP_NAMESPACE", server.owner.namespace),
        container_parts.env_value("BACKUP_SERVER", server.owner.name),
        container_parts.env_value("BACKUP_MAX_COUNT", str(backup.max_count)),
        container_parts.env_value("BACKUP_MAX_AGE_SECONDS", str(backup.max_age_seconds)),
    ]
    if backup.separate_bucket and not backup.store.upload_arguments:
        # The user's upload arguments apply to the artifact store: its encryption keys, for example.
        env.append(container_parts.env_value(mlflow_env.UPLOAD_ARGUMENTS_ENV, ""))
    env += encryption.env(server.encryption)
    container = dump_pod.s3_container(server, backup.store, pod_scripts.BACKUP, env)
    resources = jobs.resources(server, labels.BACKUP_POD, sizing.backup())
    return container | {"name": S3_CONTAINER, "resources": resources}


def _postgres_container(server: Server, backup: Backup) -> Object:
    container = dump_pod.postgres_container(
        server, labels.BACKUP_POD, backup.image, pod_scripts.PG_DUMP, "BACKUP_FOLDER"
    )
    return container | {"name": POSTGRES_CONTAINER}
