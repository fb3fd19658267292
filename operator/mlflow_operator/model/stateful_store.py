"""What the two embedded stores have in common: one pod, one Service, one volume of their own."""

from dataclasses import dataclass

from mlflow_operator.kube import labels
from mlflow_operator.kube.objects import Object
from mlflow_operator.model import pod_template
from mlflow_operator.model.metadata import object_metadata
from mlflow_operator.model.server import PodSettings, ServerRef


@dataclass(frozen=True)
class Store:
    """One embedded store. `name` is that of its StatefulSet and Service, `claim` that of its volume.

    `port_name` and `port` are what its container and its Service offer; `grace` is how long, in seconds, it may
    take to stop; `volumes` are those beside its data (`data`) and its home.
    """

    name: str
    component: str
    claim: str
    port_name: str
    port: int
    user: int
    grace: int
    container: Object
    volumes: tuple[Object, ...] = ()


def objects(owner: ServerRef, store: Store, settings: PodSettings, *, running: bool) -> list[Object]:
    """StatefulSet and Service; no pod unless `running`."""
    return [_service(owner, store), _stateful_set(owner, store, settings, 1 if running else 0)]


def _service(owner: ServerRef, store: Store) -> Object:
    return {
        "apiVersion": "v1",
        "kind": "Service",
        "metadata": object_metadata(owner, store.name, store.component),
        "spec": {
            "type": "ClusterIP",
            "selector": labels.pods(owner.name, store.component),
            "ports": [
                {
                    "name": store.port_name,
                    "port": store.port,
                    "targetPort": store.port_name,
                    "protocol": "TCP",
                }
            ],
        },
    }


def _stateful_set(owner: ServerRef, store: Store, settings: PodSettings, replicas: int) -> Object:
    return {
        "apiVersion": "apps/v1",
        "kind": "StatefulSet",
        "metadata": object_metadata(owner, store.name, store.component),
        "spec": {
            "replicas": replicas,
            "serviceName": store.name,
            # with OrderedReady a pod that never became ready would never be replaced by a mended one
            "podManagementPolicy": "Parallel",
            "selector": {"matchLabels": labels.pods(owner.name, store.component)},
            "template": {
                "metadata": {"labels": labels.owned(owner.name, store.component)},
                "spec": {
                    **pod_template.common(store.user, settings),
                    "terminationGracePeriodSeconds": store.grace,
                    "containers": [_container(store)],
                    "volumes": [
                        {"name": "data", "persistentVolumeClaim": {"claimName": store.claim}},
                        *store.volumes,
                        pod_template.HOME_VOLUME,
                    ],
                },
            },
        },
    }


def _container(store: Store) -> Object:
    return {
        "imagePullPolicy": "IfNotPresent",
        "ports": [{"name": store.port_name, "containerPort": store.port}],
        "securityContext": pod_template.CONTAINER_SECURITY,
        "terminationMessagePolicy": "FallbackToLogsOnError",
        **store.container,
        "env": [*store.container["env"], *pod_template.home_env()],
        "volumeMounts": [*store.container["volumeMounts"], pod_template.HOME_MOUNT],
    }
