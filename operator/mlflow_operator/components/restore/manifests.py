"""The Job that puts a backup into an empty database, and the mark by which it is known to have done so."""

import hashlib
import json
import re

from mlflow_operator import pod_scripts
from mlflow_operator.kube import labels
from mlflow_operator.kube.objects import Object
from mlflow_operator.model import dump_pod, jobs, mlflow_env, pod_template
from mlflow_operator.model import resources as sizing
from mlflow_operator.model.metadata import object_metadata
from mlflow_operator.model.server import Restore, Server

SECONDS = 24 * 3600
"""A large database takes hours, most of them for its indexes; this only ends one that hangs."""

FETCHES, WRITES = "restore", "pg-restore"
"""Names of the two containers."""


_MARK = "restored by mlflow-operator from backup "
_MARKED = re.compile(rf"{_MARK}(?P<id>[\w.-]{{1,64}}), asked for as \w+")


def marker(restore: Restore) -> str:
    """The comment that the restored tables carry, `{id}` being the backup's. Where the store is reached may change."""
    return f"{_MARK}{{id}}, asked for as {_asked(restore)}"


def done(restore: Restore, comment: str | None) -> bool:
    """Whether tables with this comment are those that `restore` asks for, whoever asked then."""
    return bool(comment) and str(comment).endswith(f", asked for as {_asked(restore)}")


def source(comment: str | None) -> str | None:
    """Id of the backup from which tables with this comment come; None where they come from none."""
    found = _MARKED.match(comment or "")
    return found["id"] if found else None


def _asked(restore: Restore) -> str:
    asked = [restore.backup, restore.namespace, restore.server, restore.store.uri]
    return hashlib.sha256(json.dumps(asked).encode()).hexdigest()[:16]


def job(server: Server, restore: Restore, database_identity: str) -> Object:
    """One restore. Named by the hash of its pod and of the database, so that the same is not tried again and again."""
    template = _template(server, restore)
    inputs = json.dumps([template, database_identity], sort_keys=True)
    name = server.names.restore(hashlib.sha256(inputs.encode()).hexdigest()[:8])
    return jobs.job(object_metadata(server.owner, name, labels.RESTORE_POD), SECONDS, template)


def _template(server: Server, restore: Restore) -> Object:
    containers = [_fetches(server, restore), _writes(server, restore)]
    return dump_pod.pod(server, labels.RESTORE_POD, restore.store, containers)


def _fetches(server: Server, restore: Restore) -> Object:
    ours = [
        *mlflow_env.database_env(server),
        *mlflow_env.s3_env(restore.store),
        pod_template.value("RESTORE_FOLDER", dump_pod.FOLDER),
        pod_template.value("RESTORE_SOURCE", restore.store.uri),
        pod_template.value("RESTORE_NAMESPACE", restore.namespace),
        pod_template.value("RESTORE_SERVER", restore.server),
        pod_template.value("RESTORE_BACKUP", restore.backup),
        pod_template.value("RESTORE_MARKER", marker(restore)),
    ]
    container = dump_pod.s3_container(server, restore.store, pod_scripts.RESTORE, ours)
    return container | {"name": FETCHES, "resources": sizing.migration()}


def _writes(server: Server, restore: Restore) -> Object:
    return dump_pod.postgres_container(server, restore.image, pod_scripts.PG_RESTORE, "RESTORE_FOLDER") | {
        "name": WRITES
    }
