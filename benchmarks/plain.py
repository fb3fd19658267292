"""Manifests that users would apply without the operator, for the baselines of the figures. Pure functions."""

import copy
import json
from collections.abc import Mapping, Sequence

from tests.e2e import external_stores
from tests.e2e.external_stores import secret
from tests.e2e.kube import Object
from tests.e2e.server import COMPONENT, SERVER_LABEL

PORT = 5000
URI_VARIABLE = "MLFLOW_BACKEND_STORE_URI"
CONFIG_FOLDER, AUTH_CONFIG = "/config", "basic_auth.ini"
HOME: Object = {"name": "home", "emptyDir": {}}
HOME_MOUNT: Object = {"name": "home", "mountPath": "/home/plain"}
HOME_ENV = [{"name": "HOME", "value": "/home/plain"}, {"name": "TMPDIR", "value": "/home/plain"}]


def add_init_containers(rendered: Sequence[Object], postgres_image: str, head: str) -> list[Object]:
    """Add init containers to rendered manifests, so that all can be applied at once: the migration waits for Postgres,
    and the server waits for the migration."""
    objects = copy.deepcopy([*rendered])
    for obj in objects:
        if obj["kind"] not in {"Job", "Deployment"}:
            continue
        pod = obj["spec"]["template"]["spec"]
        container = pod["containers"][0]
        # psql only accepts the URI without SQLAlchemy's driver
        shell = 'uri="postgresql://${MLFLOW_BACKEND_STORE_URI#*://}"; '
        wait_command = (
            'until pg_isready -q -d "$uri"; do sleep 0.2; done'
            if obj["kind"] == "Job"
            else f'until psql "$uri" -Atc "select version_num from alembic_version" | grep -qx {head}; '
            "do sleep 0.2; done"
        )
        uri = next(e for e in container["env"] if e["name"] == "MLFLOW_BACKEND_STORE_URI")
        pod["initContainers"] = [
            {
                "name": "wait",
                "image": postgres_image,
                "command": ["sh", "-c", shell + wait_command],
                "env": [uri],
                "securityContext": container["securityContext"],
            }
        ]
    return objects


def server_node_port(name: str) -> Object:
    """Return a NodePort Service for a server's pods: `spec: {}` has none, and the client runs outside the cluster."""
    return {
        "apiVersion": "v1",
        "kind": "Service",
        "metadata": {"name": "door"},
        "spec": {
            "type": "NodePort",
            "selector": {SERVER_LABEL: name, COMPONENT: "server"},
            "ports": [{"port": PORT, "targetPort": PORT}],
        },
    }


def migration_job(image: str, uri: str, name: str = "migration") -> Object:
    """Return a Job that runs `mlflow db upgrade`."""
    return job_manifest(
        name, image, ["sh", "-c", f'exec mlflow db upgrade "${URI_VARIABLE}"'], {URI_VARIABLE: uri}
    )


def job_manifest(name: str, image: str, command: list[str], values: Mapping[str, str]) -> Object:
    """Return a Job that runs a command with these environment variables."""
    env = [*HOME_ENV, *({"name": key, "value": value} for key, value in values.items())]
    return {
        "apiVersion": "batch/v1",
        "kind": "Job",
        "metadata": {"name": name},
        "spec": {"backoffLimit": 0, "template": _template(name, image, command, env, {}, restart=False)},
    }


def minimal_deployment(
    image: str, uri: str, env: Sequence[Object], name: str = "bare", workers: int = 2
) -> Object:
    """Return a minimal Deployment: no job execution, and a readiness probe."""
    server_env = [
        {"name": URI_VARIABLE, "value": uri},
        {"name": "MLFLOW_HOST", "value": "0.0.0.0"},
        {"name": "MLFLOW_WORKERS", "value": str(workers)},
        {"name": "MLFLOW_SERVER_ENABLE_JOB_EXECUTION", "value": "false"},
    ]
    probe = {"readinessProbe": {"httpGet": {"path": "/health", "port": PORT}, "periodSeconds": 1}}
    return _deployment(
        name, 1, _template(name, image, ["mlflow", "server"], [*HOME_ENV, *server_env, *env], probe)
    )


def tutorial_deployment(image: str, uri: str, env: Sequence[Object], resources: Object) -> Object:
    """Return the Deployment of a popular tutorial: two replicas, default workers, a plain `postgresql://` URI.

    Job execution is disabled, because with it the pods are OOMKilled before they are ready.
    """
    command = [
        "mlflow", "server", "--backend-store-uri", uri, "--host", "0.0.0.0", "--port", str(PORT),
        "--allowed-hosts", "*",
    ]  # fmt: skip
    jobs = [{"name": "MLFLOW_SERVER_ENABLE_JOB_EXECUTION", "value": "false"}]
    probe = {
        "resources": resources,
        "readinessProbe": {
            "httpGet": {"path": "/health", "port": PORT},
            "periodSeconds": 2,
            "timeoutSeconds": 5,
        },
    }
    template = _template("tutorial", image, command, [*HOME_ENV, *jobs, *env], probe)
    return _deployment("tutorial", 2, template)


def basic_auth_deployment(
    name: str, image: str, env: Sequence[Object], resources: Object, workers: int
) -> Object:
    """Return a Deployment of MLflow's own basic authentication, configured by `basic_auth_secret` of the same name.

    The readiness probe is patient: while passwords are hashed, MLflow answers it only after seconds.
    """
    server_env: list[Object] = [
        {"name": URI_VARIABLE, "valueFrom": {"secretKeyRef": {"name": name, "key": "uri"}}},
        {"name": "MLFLOW_HOST", "value": "0.0.0.0"},
        {"name": "MLFLOW_WORKERS", "value": str(workers)},
        {"name": "MLFLOW_SERVER_ENABLE_JOB_EXECUTION", "value": "false"},
        {"name": "MLFLOW_AUTH_CONFIG_PATH", "value": f"{CONFIG_FOLDER}/{AUTH_CONFIG}"},
        {
            "name": "MLFLOW_FLASK_SERVER_SECRET_KEY",
            "valueFrom": {"secretKeyRef": {"name": name, "key": "session-key"}},
        },
    ]
    fields: Object = {
        "resources": resources,
        "readinessProbe": {
            "httpGet": {"path": "/health", "port": PORT},
            "periodSeconds": 2,
            "timeoutSeconds": 30,
            "failureThreshold": 10,
        },
        "volumeMounts": [HOME_MOUNT, {"name": "config", "mountPath": CONFIG_FOLDER, "readOnly": True}],
    }
    command = ["mlflow", "server", "--app-name", "basic-auth", "--allowed-hosts", "*"]
    template = _template(name, image, command, [*HOME_ENV, *server_env, *env], fields)
    template["spec"]["volumes"].append({"name": "config", "secret": {"secretName": name}})
    return _deployment(name, 1, template)


def basic_auth_secret(name: str, uri: str, username: str, password: str) -> Object:
    """Return the Secret with the configuration of `basic_auth_deployment`, whose administrator MLflow creates."""
    settings = {
        "default_permission": "NO_PERMISSIONS",
        "database_uri": uri,
        "admin_username": username,
        "admin_password": password,
    }
    # MLflow reads the file with interpolation, in which % begins a reference.
    lines = [f"{key} = {value.replace('%', '%%')}" for key, value in settings.items()]
    config = "\n".join(["[mlflow]", *lines, ""])
    return secret(name, **{AUTH_CONFIG: config, "uri": uri, "session-key": "session-key-of-benchmarks"})


def node_port(name: str) -> Object:
    """Return a NodePort Service for a plain Deployment."""
    return {
        "apiVersion": "v1",
        "kind": "Service",
        "metadata": {"name": name},
        "spec": {
            "type": "NodePort",
            "selector": {"app": name},
            "ports": [{"port": PORT, "targetPort": PORT}],
        },
    }


def _deployment(name: str, replicas: int, template: Object) -> Object:
    return {
        "apiVersion": "apps/v1",
        "kind": "Deployment",
        "metadata": {"name": name},
        "spec": {"replicas": replicas, "selector": {"matchLabels": {"app": name}}, "template": template},
    }


def _template(
    name: str,
    image: str,
    command: list[str],
    env: list[Object],
    container_fields: Object,
    *,
    restart: bool = True,
) -> Object:
    template: Object = {
        "metadata": {"labels": {"app": name}},
        "spec": {
            "securityContext": {"runAsUser": 10001, "runAsGroup": 10001, "fsGroup": 10001},
            "enableServiceLinks": False,
            "terminationGracePeriodSeconds": 5,
            "containers": [
                {
                    "name": "mlflow",
                    "image": image,
                    "command": command,
                    "env": env,
                    "securityContext": external_stores.RESTRICTED_SECURITY_CONTEXT,
                    "volumeMounts": [HOME_MOUNT],
                    **container_fields,
                }
            ],
            "volumes": [HOME],
        },
    }
    if not restart:
        template["spec"]["restartPolicy"] = "Never"
    result: Object = json.loads(json.dumps(template))
    return result
