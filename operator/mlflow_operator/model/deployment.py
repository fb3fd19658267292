"""The server: Deployment, Service, and a PodDisruptionBudget from two replicas on."""

from mlflow_operator.kube import labels
from mlflow_operator.kube.objects import Object
from mlflow_operator.model import mlflow_env, plugins, pod_template
from mlflow_operator.model.metadata import object_metadata
from mlflow_operator.model.server import Server

_DRAIN_SECONDS = 5
"""How long a pod that is going still answers: until every kube-proxy has heard of it, and clients have taken their
connections elsewhere. New connections after SIGTERM are reset."""


_SPREAD: Object = {
    "maxSkew": 1,
    "topologyKey": "kubernetes.io/hostname",
    "whenUnsatisfiable": "ScheduleAnyway",
}


def service(server: Server) -> Object:
    """What clients connect to."""
    wanted = server.service
    return {
        "apiVersion": "v1",
        "kind": "Service",
        "metadata": object_metadata(
            server.owner, server.names.service, labels.SERVER_POD, wanted.annotations
        ),
        "spec": {
            "type": wanted.type,
            "selector": labels.pods(server.owner.name, labels.SERVER_POD),
            "ports": [{"name": "http", "port": wanted.port, "targetPort": "http", "protocol": "TCP"}],
        },
    }


def disruption_budget(server: Server) -> Object | None:
    """One pod at a time may be drained; with a single replica a budget would only block drains."""
    if server.replicas < 2:
        return None
    return {
        "apiVersion": "policy/v1",
        "kind": "PodDisruptionBudget",
        "metadata": object_metadata(server.owner, server.names.deployment, labels.SERVER_POD),
        "spec": {
            "maxUnavailable": 1,
            "selector": {"matchLabels": labels.pods(server.owner.name, labels.SERVER_POD)},
        },
    }


def deployment(server: Server, inputs: str) -> Object:
    """The pods. `inputs` is the HMAC of every value they read from elsewhere: a new one rolls them."""
    selector = labels.pods(server.owner.name, labels.SERVER_POD)
    return {
        "apiVersion": "apps/v1",
        "kind": "Deployment",
        "metadata": object_metadata(server.owner, server.names.deployment, labels.SERVER_POD),
        "spec": {
            "replicas": server.replicas,
            "selector": {"matchLabels": selector},
            "strategy": {"type": "RollingUpdate", "rollingUpdate": {"maxSurge": 1, "maxUnavailable": 0}},
            "template": {
                "metadata": {
                    "labels": server.pods.labels | labels.owned(server.owner.name, labels.SERVER_POD),
                    "annotations": server.pods.annotations | {labels.INPUTS: inputs},
                },
                "spec": _pod(server, selector),
            },
        },
    }


def _pod(server: Server, selector: dict[str, str]) -> Object:
    settings = server.pods
    # a constraint without a selector counts no pod at all
    ours = {"labelSelector": {"matchLabels": selector}}
    spread = [ours | constraint for constraint in settings.spread or (_SPREAD,)]
    pod: Object = {
        **pod_template.common(mlflow_env.USER, settings),
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
    if not server.fast_path:
        return ["mlflow", "server"]
    return ["python3", "-m", plugins.LAUNCHER, "server", "--app-name", plugins.DIRECT_APP]


def _drain(server: Server) -> list[str]:
    wait = ["sleep", str(_DRAIN_SECONDS)]
    if not server.fast_path:
        return wait
    return ["sh", "-c", f'touch "$HOME/{plugins.DRAINING}"; exec {" ".join(wait)}']


def _container(server: Server) -> Object:
    ours = [
        *mlflow_env.database_env(server),
        *mlflow_env.artifact_env(server),
        *mlflow_env.server_env(server),
    ]
    return {
        "name": "mlflow",
        "image": server.image,
        "imagePullPolicy": server.pull_policy,
        "command": _command(server),
        "ports": [{"name": "http", "containerPort": mlflow_env.PORT}],
        "env": pod_template.merged_env(ours, server.env),
        "envFrom": list(server.env_from),
        "resources": server.resources,
        "securityContext": pod_template.CONTAINER_SECURITY,
        # MLflow is imported until it answers; on a busy node that takes many seconds
        "startupProbe": pod_template.http_probe("/health", "http", 1, 300),
        "readinessProbe": pod_template.http_probe("/health", "http", 5, 3),
        "livenessProbe": pod_template.http_probe("/health", "http", 15, 8, 10),
        "lifecycle": {"preStop": {"exec": {"command": _drain(server)}}},
        "terminationMessagePolicy": "FallbackToLogsOnError",
        "volumeMounts": [*mlflow_env.database_mounts(server), *mlflow_env.artifact_mounts(server)],
    }
