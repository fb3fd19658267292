"""The migration Job: the one place where a schema moves. Servers never migrate: of several that try at once on
an empty database all but one die."""

import hashlib
import json

from mlflow_operator import payload
from mlflow_operator.core import labels, mlflow, pods, sizing
from mlflow_operator.core.meta import metadata
from mlflow_operator.core.objects import Object
from mlflow_operator.core.server import Server

_DEADLINE_SECONDS = 6 * 3600


def migration(
    server: Server, database_state: str, revision: str | None, attempt: int = 1, *, moving: bool = False
) -> Object:
    """One try to bring the schema to what `server.image` wants, from `revision` (None: there is no schema yet).

    `moving`: it is that of another database than the one the server is on.

    Named by the hash of what it depends on: the pod it runs and `database_state`, so that a database that was
    emptied or replaced gets a Job of its own, and the same work is never done twice. Another attempt at the same
    work has the same name: it can begin only when the one before it is gone.
    """
    template = _template(server, mlflow.NEXT_STORE_KEY if moving else mlflow.BACKEND_STORE_KEY)
    inputs = json.dumps([template, server.artifacts.store.name, database_state], sort_keys=True)
    digest = hashlib.sha256(inputs.encode()).hexdigest()[:8]
    return {
        "apiVersion": "batch/v1",
        "kind": "Job",
        "metadata": metadata(
            server.owner,
            server.names.migration(digest),
            labels.MIGRATION_POD,
            {labels.FROM_REVISION: revision or "", labels.ATTEMPT: str(attempt)},
        ),
        "spec": {
            "backoffLimit": 0,
            "podReplacementPolicy": "Failed",
            # a node that is drained is no verdict on the migration: its pod is made again
            "podFailurePolicy": {
                "rules": [
                    {
                        "action": "Ignore",
                        "onPodConditions": [{"type": "DisruptionTarget", "status": "True"}],
                    }
                ]
            },
            # a migration of a large database takes hours; this only ends one that hangs
            "activeDeadlineSeconds": _DEADLINE_SECONDS,
            "template": template,
        },
    }


def _template(server: Server, key: str) -> Object:
    settings = server.pods
    spec: Object = {
        **pods.common(mlflow.USER, settings),
        "restartPolicy": "Never",
        "containers": [
            {
                "name": "migrate",
                "image": server.image,
                "imagePullPolicy": server.pull_policy,
                "command": ["python3", "-u", "-c", payload.MIGRATE],
                "env": pods.merged_env(mlflow.database_env(server, key), server.env),
                "envFrom": list(server.env_from),
                "resources": sizing.migration(),
                "securityContext": pods.CONTAINER_SECURITY,
                # the last lines become the condition's message, without leave to read pods' logs
                "terminationMessagePolicy": "FallbackToLogsOnError",
                "volumeMounts": mlflow.database_mounts(server),
            }
        ],
        "volumes": mlflow.database_volumes(server),
    }
    if settings.affinity:
        spec["affinity"] = settings.affinity
    if settings.service_account:
        spec["serviceAccountName"] = settings.service_account
    return {
        "metadata": {
            "labels": settings.labels | labels.owned(server.owner.name, labels.MIGRATION_POD),
            "annotations": settings.annotations,
        },
        "spec": spec,
    }
