"""The Job that puts a backup into an empty database, and the mark by which it is known to have done so.

Its pod has two containers, for no image has both Postgres' programs and a client of S3. They meet in a folder in
memory.
"""

import hashlib
import json

from mlflow_operator import payload
from mlflow_operator.core import jobs, labels, mlflow, pods, sizing
from mlflow_operator.core.meta import metadata
from mlflow_operator.core.objects import Object
from mlflow_operator.core.server import Restore, Server

SECONDS = 24 * 3600
"""A large database takes hours, most of them for its indexes; this only ends one that hangs."""

FETCHES, WRITES = "restore", "pg-restore"
"""Names of the two containers."""

_EXCHANGE = "/exchange"
_MOUNT: Object = {"name": "exchange", "mountPath": _EXCHANGE}


def marker(restore: Restore) -> str:
    """The comment that the restored tables carry, `{id}` being the backup's. Where the store is reached may change."""
    return f"restored by mlflow-operator from backup {{id}}, asked for as {_asked(restore)}"


def done(restore: Restore, comment: str | None) -> bool:
    """Whether tables with this comment are those that `restore` asks for, whoever asked then."""
    return bool(comment) and str(comment).endswith(f", asked for as {_asked(restore)}")


def _asked(restore: Restore) -> str:
    asked = [restore.backup, restore.namespace, restore.server, restore.store.uri]
    return hashlib.sha256(json.dumps(asked).encode()).hexdigest()[:16]


def job(server: Server, restore: Restore, database_identity: str) -> Object:
    """One restore. Named by the hash of its pod and of the database, so that the same is not tried again and again."""
    template = _template(server, restore)
    inputs = json.dumps([template, database_identity], sort_keys=True)
    name = server.names.restore(hashlib.sha256(inputs.encode()).hexdigest()[:8])
    return jobs.job(metadata(server.owner, name, labels.RESTORE_POD), SECONDS, template)


def _template(server: Server, restore: Restore) -> Object:
    settings, ca = server.pods, restore.store.ca
    spec: Object = {
        **pods.common(mlflow.USER, settings),
        "restartPolicy": "Never",
        "containers": [_fetches(server, restore), _writes(server, restore)],
        "volumes": [
            *mlflow.database_volumes(server),
            *([pods.trust_volume(mlflow.ARTIFACTS_TRUST, ca)] if ca else []),
            # passwords lie there: in memory, for as long as the pod lives
            {"name": "exchange", "emptyDir": {"medium": "Memory", "sizeLimit": "16Mi"}},
        ],
    }
    if settings.affinity:
        spec["affinity"] = settings.affinity
    if settings.service_account:
        spec["serviceAccountName"] = settings.service_account
    return {
        "metadata": {
            "labels": settings.labels | labels.owned(server.owner.name, labels.RESTORE_POD),
            "annotations": settings.annotations,
        },
        "spec": spec,
    }


def _fetches(server: Server, restore: Restore) -> Object:
    ours = [
        *mlflow.database_env(server),
        *mlflow.s3_env(restore.store),
        pods.value("RESTORE_FOLDER", _EXCHANGE),
        pods.value("RESTORE_SOURCE", restore.store.uri),
        pods.value("RESTORE_NAMESPACE", restore.namespace),
        pods.value("RESTORE_SERVER", restore.server),
        pods.value("RESTORE_BACKUP", restore.backup),
        pods.value("RESTORE_MARKER", marker(restore)),
    ]
    trust = [pods.trust_mount(mlflow.ARTIFACTS_TRUST)] if restore.store.ca else []
    return _container(server) | {
        "name": FETCHES,
        "image": server.image,
        "imagePullPolicy": server.pull_policy,
        "command": ["python3", "-u", "-c", payload.RESTORE],
        "env": pods.merged_env(ours, server.env),
        "resources": sizing.migration(),
        "volumeMounts": [*mlflow.database_mounts(server), *trust, _MOUNT],
    }


def _writes(server: Server, restore: Restore) -> Object:
    """The owner's variables and volumes, too, for libpq may need them: a client's certificate, say."""
    ours = [*pods.home_env(), pods.value("RESTORE_FOLDER", _EXCHANGE)]
    return _container(server) | {
        "name": WRITES,
        "image": restore.image,
        "imagePullPolicy": "IfNotPresent",
        "command": ["sh", "-c", payload.PG_RESTORE],
        "env": pods.merged_env(ours, server.env),
        "resources": sizing.backup(),
        "volumeMounts": [*mlflow.database_mounts(server), _MOUNT],
    }


def _container(server: Server) -> Object:
    return {
        "envFrom": list(server.env_from),
        "securityContext": pods.CONTAINER_SECURITY,
        "terminationMessagePolicy": "FallbackToLogsOnError",
    }
