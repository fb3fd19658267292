"""Jobs that run the image of a server: the migration, the one place where a schema moves (servers never migrate: of
several that try at once on an empty database all but one die), and the preflight, which asks before that."""

import hashlib
import json

from mlflow_operator import pod_scripts
from mlflow_operator.kube import labels
from mlflow_operator.kube.objects import Object
from mlflow_operator.model import deployment, mlflow_env, pod_template
from mlflow_operator.model import resources as sizing
from mlflow_operator.model.metadata import object_metadata
from mlflow_operator.model.server import Server

_MIGRATION_SECONDS = 6 * 3600
"""A migration of a large database takes hours; this only ends one that hangs."""

_PREFLIGHT_SECONDS = 1800
"""The image has to be pulled first, and its questions end by themselves after five minutes."""


def migration(
    server: Server, database_state: str, revision: str | None, attempt: int = 1, *, moving: bool = False
) -> Object:
    """One try to bring the schema to what `server.image` wants, from `revision` (None: there is no schema yet).

    `moving`: it is that of another database than the one the server is on.

    Named by the hash of what it depends on: the pod it runs and `database_state`, so that a database that was
    emptied or replaced gets a Job of its own, and the same work is never done twice. Another attempt at the same
    work has the same name: it can begin only when the one before it is gone.
    """
    template = _migration_pod(server, _store_key(moving))
    name = server.names.migration(_digest(server, template, database_state))
    notes = {labels.FROM_REVISION: revision or "", labels.ATTEMPT: str(attempt)}
    return job(object_metadata(server.owner, name, labels.MIGRATION_POD, notes), _MIGRATION_SECONDS, template)


def preflight(server: Server, database_identity: str, *, moving: bool = False) -> Object:
    """Asks `server.image`, in the environment its server will have, whether it can take over.

    `moving`: on another database than the one the server is on.

    Named as `migration` is, but for whatever revision the database stands at: the answer tells which it was.
    """
    template = _preflight_pod(server, _store_key(moving))
    name = server.names.preflight(_digest(server, template, database_identity))
    return job(
        object_metadata(server.owner, name, labels.PREFLIGHT_POD, {labels.ATTEMPT: "1"}),
        _PREFLIGHT_SECONDS,
        template,
    )


def _store_key(moving: bool) -> str:
    return mlflow_env.NEXT_STORE_KEY if moving else mlflow_env.BACKEND_STORE_KEY


def _digest(server: Server, template: Object, database_state: str) -> str:
    inputs = json.dumps([template, server.artifacts.store.name, database_state], sort_keys=True)
    return hashlib.sha256(inputs.encode()).hexdigest()[:8]


def job(meta: Object, seconds: int, template: Object) -> Object:
    """One try, of `seconds` at most; `meta` as `core.meta` makes it."""
    return {
        "apiVersion": "batch/v1",
        "kind": "Job",
        "metadata": meta,
        "spec": single_attempt(seconds, template),
    }


def single_attempt(seconds: int, template: Object) -> Object:
    """A Job's spec: the pod of `template` once, for `seconds` at most."""
    return {
        "backoffLimit": 0,
        "podReplacementPolicy": "Failed",
        # a node that is drained is no verdict: the pod is made again
        "podFailurePolicy": {
            "rules": [
                {
                    "action": "Ignore",
                    "onPodConditions": [{"type": "DisruptionTarget", "status": "True"}],
                }
            ]
        },
        "activeDeadlineSeconds": seconds,
        "template": template,
    }


def _migration_pod(server: Server, key: str) -> Object:
    container: Object = {
        "name": "migrate",
        "image": server.image,
        "imagePullPolicy": server.pull_policy,
        "command": ["python3", "-u", "-c", pod_scripts.MIGRATE],
        "env": pod_template.merged_env(mlflow_env.database_env(server, key), server.env),
        "envFrom": list(server.env_from),
        "resources": sizing.migration(),
        "securityContext": pod_template.CONTAINER_SECURITY,
        # the last lines become the condition's message, without leave to read pods' logs
        "terminationMessagePolicy": "FallbackToLogsOnError",
        "volumeMounts": mlflow_env.database_mounts(server),
    }
    return pod(server, labels.MIGRATION_POD, [container], mlflow_env.database_volumes(server))


def pod(server: Server, component: str, containers: list[Object], volumes: list[Object]) -> Object:
    """The template of a pod beside the server's that runs once, placed and allowed as its owner asks."""
    settings = server.pods
    spec: Object = {
        **pod_template.common(mlflow_env.USER, settings),
        "restartPolicy": "Never",
        "containers": containers,
        "volumes": volumes,
    }
    if settings.affinity:
        spec["affinity"] = settings.affinity
    if settings.service_account:
        spec["serviceAccountName"] = settings.service_account
    return {
        "metadata": {
            "labels": settings.labels | labels.owned(server.owner.name, component),
            "annotations": settings.annotations,
        },
        "spec": spec,
    }


def _preflight_pod(server: Server, key: str) -> Object:
    changed = {"name": "preflight", "command": ["python3", "-u", "-c", pod_scripts.PREFLIGHT]}
    return from_server_pod(server, labels.PREFLIGHT_POD, changed, mlflow_env.database_env(server, key))


def from_server_pod(server: Server, component: str, changed: Object, env: list[Object]) -> Object:
    """The server's own pod, its container `changed`: what a server reads, and what lets it in, is all there, and more
    `env` besides. It runs once."""
    template = deployment.deployment(server, "")["spec"]["template"]
    serving = template["spec"]
    server_only = ("command", "ports", "startupProbe", "readinessProbe", "livenessProbe", "lifecycle")
    container = {key: value for key, value in serving["containers"][0].items() if key not in server_only}
    spec = {
        key: value
        for key, value in serving.items()
        if key not in ("terminationGracePeriodSeconds", "topologySpreadConstraints")
    }
    asked = container | {
        **changed,
        "env": pod_template.merged_env(env, container["env"]),
        "resources": sizing.migration(),
    }
    return {
        "metadata": {
            "labels": server.pods.labels | labels.owned(server.owner.name, component),
            "annotations": server.pods.annotations,
        },
        "spec": spec | {"restartPolicy": "Never", "containers": [asked]},
    }
