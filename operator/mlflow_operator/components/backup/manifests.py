"""Backups of the database: a CronJob, and the one that is made before the tables move."""

import hashlib
import json

from mlflow_operator import pod_scripts
from mlflow_operator.kube import labels
from mlflow_operator.kube.objects import Object
from mlflow_operator.model import cronjobs, dump_pod, jobs, mlflow_env, pod_template
from mlflow_operator.model import resources as sizing
from mlflow_operator.model.cronjobs import Timing
from mlflow_operator.model.metadata import object_metadata
from mlflow_operator.model.server import Backup, Server

SECONDS = 24 * 3600
"""How long a backup may take; the payload takes what is older and unfinished for abandoned."""

STORES, DUMPS = "backup", "pg-dump"
"""Names of the two containers."""


def cronjob(server: Server, backup: Backup) -> Object:
    """Makes backups by the schedule; paused while the server is suspended, for then the database may be, too."""
    meta = object_metadata(server.owner, server.names.backup, labels.BACKUP_POD)
    timing = Timing(backup.schedule, backup.time_zone, server.suspended)
    return cronjobs.cronjob(meta, timing, SECONDS, template(server, backup))


def before_migration(
    server: Server, backup: Backup, target: str, database_state: str, *, moving: bool = False
) -> Object:
    """One backup before the image `target` moves the tables; `server` is as it runs until then.

    `moving`: of another database than the one that the server is on. Named by the hash of what it is for, so that it is
    made once.
    """
    inputs = json.dumps([target, database_state, backup.store.uri])
    name = server.names.backup_before(hashlib.sha256(inputs.encode()).hexdigest()[:8])
    meta = object_metadata(server.owner, name, labels.BACKUP_POD, {labels.ATTEMPT: "1"})
    return jobs.job(meta, SECONDS, template(server, backup, moving=moving))


def template(server: Server, backup: Backup, *, moving: bool = False) -> Object:
    """The pod."""
    containers = [_stores(server, backup, moving), _dumps(server, backup)]
    return dump_pod.pod(server, labels.BACKUP_POD, backup.store, containers)


def _stores(server: Server, backup: Backup, moving: bool) -> Object:
    key = mlflow_env.NEXT_STORE_KEY if moving else mlflow_env.BACKEND_STORE_KEY
    ours = [
        *mlflow_env.database_env(server, key),
        *mlflow_env.s3_env(backup.store),
        pod_template.value("BACKUP_FOLDER", dump_pod.FOLDER),
        pod_template.value("BACKUP_DESTINATION", backup.store.uri),
        pod_template.value("BACKUP_NAMESPACE", server.owner.namespace),
        pod_template.value("BACKUP_SERVER", server.owner.name),
        pod_template.value("BACKUP_MAX_COUNT", str(backup.max_count)),
        pod_template.value("BACKUP_MAX_AGE_SECONDS", str(backup.max_age_seconds)),
    ]
    if backup.separate_bucket:
        # what the owner wishes for uploads is about the artifact store: its keys to encrypt with, say
        ours.append(pod_template.value("MLFLOW_S3_UPLOAD_EXTRA_ARGS", ""))
    container = dump_pod.s3_container(server, backup.store, pod_scripts.BACKUP, ours)
    return container | {"name": STORES, "resources": sizing.backup()}


def _dumps(server: Server, backup: Backup) -> Object:
    return dump_pod.postgres_container(server, backup.image, pod_scripts.PG_DUMP, "BACKUP_FOLDER") | {
        "name": DUMPS
    }
