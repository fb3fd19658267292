"""Manifest of the restore Job, and the table comment (marker) that identifies a restored database."""

import hashlib
import json
import re

from mlflow_operator import pod_scripts
from mlflow_operator.kube import labels
from mlflow_operator.kube.objects import Object
from mlflow_operator.model import container_parts, dump_pod, jobs, mlflow_env
from mlflow_operator.model import resources as sizing
from mlflow_operator.model.metadata import object_metadata
from mlflow_operator.model.server import Restore, Server

TIMEOUT_SECONDS = 24 * 3600
"""A large database takes hours, most of them to build indexes. The timeout only ends a Job that hangs."""

S3_CONTAINER, POSTGRES_CONTAINER = "restore", "pg-restore"
"""Names of the two containers."""


_MARKER_PREFIX = "restored by mlflow-operator from backup "
_MARKER_PATTERN = re.compile(rf"{_MARKER_PREFIX}(?P<id>[\w.-]{{1,64}}), request \w+")


def marker(restore: Restore) -> str:
    """Comment on the restored tables, with `{id}` in the place of the backup's ID.

    It does not depend on the endpoint of the store, which may change.
    """
    return f"{_MARKER_PREFIX}{{id}}, request {_request_hash(restore)}"


def is_restored(restore: Restore, comment: str | None) -> bool:
    """Whether tables with this comment are the result of `restore`, even if another server requested it."""
    return bool(comment) and str(comment).endswith(f", request {_request_hash(restore)}")


def source_backup_id(comment: str | None) -> str | None:
    """ID of the backup that tables with this comment were restored from; None if they were not restored."""
    found = _MARKER_PATTERN.match(comment or "")
    return found["id"] if found else None


def _request_hash(restore: Restore) -> str:
    request = [restore.backup, restore.namespace, restore.server, restore.store.uri]
    return hashlib.sha256(json.dumps(request).encode()).hexdigest()[:16]


def job(server: Server, restore: Restore, database_identity: str) -> Object:
    """Restore Job. Its name holds a hash of the pod template and the database, so that one restore is not repeated."""
    template = _template(server, restore)
    inputs = json.dumps([template, database_identity], sort_keys=True)
    name = server.names.restore(hashlib.sha256(inputs.encode()).hexdigest()[:8])
    return jobs.job(object_metadata(server.owner, name, labels.RESTORE_POD), TIMEOUT_SECONDS, template)


def _template(server: Server, restore: Restore) -> Object:
    containers = [_s3_container(server, restore), _postgres_container(server, restore)]
    return dump_pod.pod(server, labels.RESTORE_POD, restore.store, containers)


def _s3_container(server: Server, restore: Restore) -> Object:
    env = [
        *mlflow_env.database_env(server),
        *mlflow_env.s3_env(restore.store),
        container_parts.env_value("RESTORE_FOLDER", dump_pod.EXCHANGE_DIR),
        container_parts.env_value("RESTORE_SOURCE", restore.store.uri),
        container_parts.env_value("RESTORE_NAMESPACE", restore.namespace),
        container_parts.env_value("RESTORE_SERVER", restore.server),
        container_parts.env_value("RESTORE_BACKUP", restore.backup),
        container_parts.env_value("RESTORE_MARKER", marker(restore)),
    ]
    if restore.ignores_missing_keys:
        env.append(container_parts.env_value("RESTORE_MISSING_KEYS", "Ignore"))
    # Without variables for the current keys: they change while the server starts, which would replace a running Job.
    container = dump_pod.s3_container(server, restore.store, pod_scripts.RESTORE, env)
    resources = jobs.resources(server, labels.RESTORE_POD, sizing.migration())
    return container | {"name": S3_CONTAINER, "resources": resources}


def _postgres_container(server: Server, restore: Restore) -> Object:
    container = dump_pod.postgres_container(
        server, labels.RESTORE_POD, restore.image, pod_scripts.PG_RESTORE, "RESTORE_FOLDER"
    )
    return container | {"name": POSTGRES_CONTAINER}
