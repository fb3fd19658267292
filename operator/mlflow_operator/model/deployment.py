"""The server's Deployment and Service, and a PodDisruptionBudget if it has two or more replicas."""

from mlflow_operator import pod_scripts
from mlflow_operator.kube import labels, pod_references, requested_image
from mlflow_operator.kube.objects import Object
from mlflow_operator.kube.pod_references import Reference
from mlflow_operator.model import (
    authentication,
    container_parts,
    encryption,
    mlflow_env,
    plugins,
    pod_template,
    provisioning,
)
from mlflow_operator.model.metadata import object_metadata
from mlflow_operator.model.server import SecretKey, Server

_DRAIN_SECONDS = 5
"""Delay between the deletion of a pod and SIGTERM. The pod still serves: every kube-proxy must remove it first, and
clients must move their connections. New connections after SIGTERM are reset."""

CONTAINER_NAME = "mlflow"
"""Name of the server's container."""

_DEFAULT_SPREAD: Object = {
    "maxSkew": 1,
    "topologyKey": "kubernetes.io/hostname",
    "whenUnsatisfiable": "ScheduleAnyway",
}


def service(server: Server) -> Object:
    """The Service that clients connect to."""
    settings = server.service
    return {
        "apiVersion": "v1",
        "kind": "Service",
        "metadata": object_metadata(
            server.owner, server.names.service, labels.SERVER_POD, settings.annotations
        ),
        "spec": {
            "type": settings.type,
            "selector": labels.pod_selector(server.owner.name, labels.SERVER_POD),
            "ports": [{"name": "http", "port": settings.port, "targetPort": "http", "protocol": "TCP"}],
        },
    }


def disruption_budget(server: Server) -> Object | None:
    """Allow the eviction of one pod at a time. None for a single replica, where a budget would only block drains."""
    if server.replicas < 2:
        return None
    return {
        "apiVersion": "policy/v1",
        "kind": "PodDisruptionBudget",
        "metadata": object_metadata(server.owner, server.names.deployment, labels.SERVER_POD),
        "spec": {
            "maxUnavailable": 1,
            # By default a pod that is not ready can only be evicted while enough other pods are: a crash-looping server
            # would block the drain of its nodes for ever.
            "unhealthyPodEvictionPolicy": "AlwaysAllow",
            "selector": {"matchLabels": labels.pod_selector(server.owner.name, labels.SERVER_POD)},
        },
    }


def deployment(server: Server, inputs_digest: str) -> Object:
    """The server's Deployment.

    `inputs_digest` is the HMAC of all values that the pods read from Secrets and ConfigMaps: a change restarts the
    pods.
    """
    selector = labels.pod_selector(server.owner.name, labels.SERVER_POD)
    return {
        "apiVersion": "apps/v1",
        "kind": "Deployment",
        "metadata": object_metadata(server.owner, server.names.deployment, labels.SERVER_POD),
        "spec": {
            "replicas": server.replicas,
            "selector": {"matchLabels": selector},
            "strategy": {"type": "RollingUpdate", "rollingUpdate": {"maxSurge": 1, "maxUnavailable": 0}},
            "template": {
                "metadata": pod_template.pod_metadata(
                    server.pods,
                    server.owner.name,
                    labels.SERVER_POD,
                    {labels.INPUTS_DIGEST: inputs_digest} | requested_image.annotation(server.image),
                ),
                "spec": pod_spec(server),
            },
        },
    }


def image_of(observed: Object) -> str:
    """The image that was requested for the server's container in an existing Deployment."""
    return requested_image.of(observed["spec"]["template"], CONTAINER_NAME) or ""


def connection_demand(observed: Object) -> int:
    """Maximum number of database connections of the pods of an existing Deployment."""
    containers = observed["spec"]["template"]["spec"]["containers"]
    env = next((each.get("env") or () for each in containers if each["name"] == CONTAINER_NAME), ())
    values = {variable["name"]: variable.get("value") for variable in env}
    return provisioning.connection_limit(
        int(observed["spec"].get("replicas") or 0),
        provisioning.positive_int(values.get(mlflow_env.WORKERS_ENV), 1),
        job_execution=values.get(mlflow_env.JOB_EXECUTION_ENV) == "true",
        env=env,
    )


def references(server: Server) -> frozenset[Reference]:
    """The Secrets and ConfigMaps that the server's pods read."""
    store = server.artifacts.s3
    keys = (
        SecretKey(server.names.server_secret, mlflow_env.BACKEND_STORE_KEY, ""),
        *((store.access_key, store.secret_key, store.ca) if store else ()),
        server.database_ca,
        *encryption.secret_keys(server.encryption),
    )
    plugin_files = plugins.keys(server)
    reserved = {variable["name"] for variable in _operator_env(server)}
    user_env = [variable for variable in server.env if variable["name"] not in reserved]
    return frozenset(
        {
            *(Reference("Secret", key.name, key.key, optional=key.optional) for key in keys if key),
            *(
                Reference("ConfigMap", server.names.plugin_config_map, key, optional=False)
                for key in plugin_files
            ),
            *pod_references.of_settings(user_env, server.env_from, server.pods.volumes),
        }
    )


def variable_names(server: Server) -> set[str]:
    """Names of the environment variables of the server's container."""
    return {variable["name"] for variable in (*_operator_env(server), *server.env)}


def _operator_env(server: Server) -> list[Object]:
    env = [
        *mlflow_env.database_env(server),
        *mlflow_env.artifact_env(server),
        *mlflow_env.server_env(server),
        *encryption.env(server.encryption),
        *authentication.server_env(server),
    ]
    return container_parts.without_overridden(env, server.env)


def pod_spec(server: Server) -> Object:
    """Spec of the server's pods."""
    settings = server.pods
    # A topology spread constraint without a labelSelector matches no pods.
    selector = labels.pod_selector(server.owner.name, labels.SERVER_POD)
    default_selector = {"labelSelector": {"matchLabels": selector}}
    spread = [
        default_selector | constraint
        for constraint in settings.topology_spread_constraints or (_DEFAULT_SPREAD,)
    ]
    pod: Object = {
        **pod_template.common_spec(mlflow_env.RUN_AS_USER, settings),
        "terminationGracePeriodSeconds": _DRAIN_SECONDS + mlflow_env.GRACE_SECONDS + 10,
        "topologySpreadConstraints": spread,
        "containers": [_container(server)],
        "volumes": [*mlflow_env.database_volumes(server), *mlflow_env.artifact_volumes(server)],
    }
    if settings.affinity:
        pod["affinity"] = settings.affinity
    if settings.service_account:
        pod["serviceAccountName"] = settings.service_account
    return pod


def _command(server: Server) -> list[str]:
    name = plugins.app_name(server)
    application = ["--app-name", name] if name else []
    if not server.fast_path:
        return ["python3", "-c", pod_scripts.DUAL_STACK, "server", *application]
    # With job execution, MLflow starts further processes, and the launcher could only fall back to MLflow's command.
    module = plugins.DUAL_STACK_MODULE if server.job_execution else plugins.LAUNCHER_MODULE
    return ["python3", "-m", module, "server", *application]


def _pre_stop_command(server: Server) -> list[str]:
    wait = ["sleep", str(_DRAIN_SECONDS)]
    if not server.fast_path:
        return wait
    return ["sh", "-c", f'touch "$HOME/{plugins.DRAINING_FILE}"; exec {" ".join(wait)}']


def _container(server: Server) -> Object:
    return {
        "name": CONTAINER_NAME,
        "image": server.image,
        "imagePullPolicy": server.pull_policy,
        "command": _command(server),
        "ports": [{"name": "http", "containerPort": mlflow_env.PORT}],
        "env": container_parts.merged_env(_operator_env(server), server.env),
        "envFrom": list(server.env_from),
        "resources": server.resources,
        "securityContext": container_parts.CONTAINER_SECURITY,
        # /health responds only after MLflow is imported, which takes many seconds on a busy node.
        "startupProbe": container_parts.http_probe("/health", "http", 1, 300),
        "readinessProbe": container_parts.http_probe("/health", "http", 5, 3),
        "livenessProbe": container_parts.http_probe("/health", "http", 15, 8, 10),
        "lifecycle": {"preStop": {"exec": {"command": _pre_stop_command(server)}}},
        "terminationMessagePolicy": "FallbackToLogsOnError",
        "volumeMounts": [*mlflow_env.database_mounts(server), *mlflow_env.artifact_mounts(server)],
    }
