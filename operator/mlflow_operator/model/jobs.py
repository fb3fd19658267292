"""Jobs that run the image of a server: the schema migration, and the preflight check before it.

Only the migration Job migrates the schema, never a server: of several servers that migrate an empty database at the
same time, all but one crash.
"""

import hashlib
import json
from dataclasses import replace

from mlflow_operator import pod_scripts
from mlflow_operator.kube import labels, requested_image
from mlflow_operator.kube.objects import Object
from mlflow_operator.model import (
    authentication,
    container_parts,
    deployment,
    encryption,
    mlflow_env,
    pod_template,
)
from mlflow_operator.model import resources as sizing
from mlflow_operator.model.metadata import object_metadata
from mlflow_operator.model.server import Server

_MIGRATION_DEADLINE_SECONDS = 6 * 3600
"""A migration of a large database takes hours. The deadline only ends a migration that hangs."""

_PREFLIGHT_DEADLINE_SECONDS = 1800
"""Includes the image pull. The checks themselves end after five minutes."""


def migration(
    server: Server,
    database_state: str,
    revision: str | None,
    *,
    switching_database: bool = False,
) -> Object:
    """Job for the first attempt to migrate the schema to the revision of `server.image`.

    `revision` is the current one (None: no schema yet). `switching_database`: migrate the database that the server will
    be switched to, not its current one.

    The name contains a hash of the inputs: the pod template and `database_state`. A database that was emptied or
    replaced therefore gets a new Job, and the same migration never runs twice. Another attempt has the same name, so it
    cannot start before the Job of the previous attempt is deleted.
    """
    template = _migration_pod(server, store_key(switching_database))
    name = server.names.migration(_digest(server, template, database_state))
    annotations = {labels.FROM_REVISION: revision or "", labels.ATTEMPT: "1"}
    return job(
        object_metadata(server.owner, name, labels.MIGRATION_POD, annotations),
        _MIGRATION_DEADLINE_SECONDS,
        template,
    )


def preflight(server: Server, database_identity: str, *, switching_database: bool = False) -> Object:
    """Job that checks, in the environment of the server, whether `server.image` can run on the database.

    `switching_database`: check the database that the server will be switched to, not its current one.

    The name is built like that of `migration`, but does not depend on the revision: the result contains the revision.
    """
    template = _preflight_pod(server, store_key(switching_database))
    name = server.names.preflight(_digest(server, template, database_identity))
    return job(
        object_metadata(server.owner, name, labels.PREFLIGHT_POD, {labels.ATTEMPT: "1"}),
        _PREFLIGHT_DEADLINE_SECONDS,
        template,
    )


def store_key(switching_database: bool) -> str:
    """Key of the connection URI of the current database, or of the one that the server will be switched to."""
    return mlflow_env.NEXT_STORE_KEY if switching_database else mlflow_env.BACKEND_STORE_KEY


def _digest(server: Server, template: Object, database_state: str) -> str:
    return name_digest(template, server.artifacts.store.name, database_state)


def name_digest(*inputs: object) -> str:
    """Digest of the inputs of a Job, for its name: other inputs get another Job."""
    return _sha256(inputs)[:8]


def template_digest(template: Object) -> str:
    """Digest of a pod template, for the annotation of a Job."""
    return _sha256(template)[:16]


def _sha256(inputs: object) -> str:
    return hashlib.sha256(json.dumps(inputs, sort_keys=True).encode()).hexdigest()


def job(meta: Object, deadline_seconds: int, template: Object) -> Object:
    """A Job with one attempt of at most `deadline_seconds`. `meta` is the result of `object_metadata`."""
    return {
        "apiVersion": "batch/v1",
        "kind": "Job",
        "metadata": meta,
        "spec": single_attempt(deadline_seconds, template),
    }


def single_attempt(deadline_seconds: int, template: Object) -> Object:
    """Spec of a Job that runs the pod of `template` once, for at most `deadline_seconds`."""
    return {
        "backoffLimit": 0,
        "podReplacementPolicy": "Failed",
        # A pod that is evicted by a node drain does not count as a failure: it is recreated.
        "podFailurePolicy": {
            "rules": [
                {
                    "action": "Ignore",
                    "onPodConditions": [{"type": "DisruptionTarget", "status": "True"}],
                }
            ]
        },
        "activeDeadlineSeconds": deadline_seconds,
        "template": template,
    }


def resources(server: Server, component: str, default: Object) -> Object:
    """Resources of one container of a Job's pod: those of the spec, else `default` adapted to those of the server."""
    return server.pods.component(component).resources or sizing.derived(default, server.explicit_resources)


def _migration_pod(server: Server, key: str) -> Object:
    env = [*mlflow_env.database_env(server, key), *authentication.job_env(server)]
    container = database_container(server, labels.MIGRATION_POD, pod_scripts.MIGRATE, env)
    return pod(server, labels.MIGRATION_POD, [container], mlflow_env.database_volumes(server))


def database_container(server: Server, component: str, program: str, env: list[Object]) -> Object:
    """Container that runs a Python program in the image of the server, with mounts for TLS to the database.

    The variables of the user are added to `env`.
    """
    (name,) = labels.JOB_CONTAINERS[component]
    return {
        "name": name,
        "image": server.image,
        "imagePullPolicy": server.pull_policy,
        "command": ["python3", "-u", "-c", program],
        "env": container_parts.merged_env(env, server.env),
        "envFrom": list(server.env_from),
        "resources": resources(server, component, sizing.migration()),
        "securityContext": container_parts.CONTAINER_SECURITY,
        # The last log lines become the condition's message; the operator needs no permission to read logs.
        "terminationMessagePolicy": "FallbackToLogsOnError",
        "volumeMounts": mlflow_env.database_mounts(server),
    }


def pod(server: Server, component: str, containers: list[Object], volumes: list[Object]) -> Object:
    """Template of a pod that runs once, with the user's scheduling and service account."""
    settings = server.pods
    spec: Object = {
        **pod_template.common_spec(mlflow_env.RUN_AS_USER, settings),
        "restartPolicy": "Never",
        "containers": containers,
        "volumes": volumes,
    }
    if settings.affinity:
        spec["affinity"] = settings.affinity
    if settings.service_account:
        spec["serviceAccountName"] = settings.service_account
    return {
        "metadata": pod_template.pod_metadata(
            settings, server.owner.name, component, requested_image.annotation(containers[0]["image"])
        ),
        "spec": spec,
    }


def _preflight_pod(server: Server, key: str) -> Object:
    overrides = {"name": "preflight", "command": ["python3", "-u", "-c", pod_scripts.PREFLIGHT]}
    # The checks need no encryption keys, and a change of the keys must not repeat them.
    without_keys = replace(server, encryption=encryption.without_variables(server.encryption))
    return from_server_pod(
        without_keys, labels.PREFLIGHT_POD, overrides, mlflow_env.database_env(server, key)
    )


def from_server_pod(server: Server, component: str, overrides: Object, env: list[Object]) -> Object:
    """Template of a pod that runs once with the inputs of the server's pod: volumes, environment and identity.

    `overrides` replaces fields of the container; `env` is added to its environment.
    """
    server_spec = deployment.pod_spec(server)
    server_only = ("command", "ports", "startupProbe", "readinessProbe", "livenessProbe", "lifecycle")
    container = {key: value for key, value in server_spec["containers"][0].items() if key not in server_only}
    spec = {
        key: value
        for key, value in server_spec.items()
        if key not in ("terminationGracePeriodSeconds", "topologySpreadConstraints")
    }
    new_container = container | {
        **overrides,
        "env": container_parts.merged_env(env, container["env"]),
        "resources": resources(server, component, sizing.migration()),
    }
    return {
        "metadata": pod_template.pod_metadata(
            server.pods, server.owner.name, component, requested_image.annotation(server.image)
        ),
        "spec": spec | {"restartPolicy": "Never", "containers": [new_container]},
    }
