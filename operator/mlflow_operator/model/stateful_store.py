"""Common manifests of the two embedded stores: a StatefulSet with one pod, one Service, one PersistentVolumeClaim."""

from dataclasses import dataclass

from mlflow_operator.kube import labels
from mlflow_operator.kube.objects import Object
from mlflow_operator.model import container_parts, pod_template
from mlflow_operator.model.metadata import object_metadata
from mlflow_operator.model.pod_template import PodSettings
from mlflow_operator.model.server import ServerRef


@dataclass(frozen=True)
class Store:
    """One embedded store.

    `name` is the name of its StatefulSet and Service; `claim_name` is its PersistentVolumeClaim. `port_name` and `port`
    are those of the container and the Service. `volumes` are those in addition to its data (`data`) and its home
    directory.
    """

    name: str
    component: str
    claim_name: str
    port_name: str
    port: int
    run_as_user: int
    grace_seconds: int
    container: Object
    volumes: tuple[Object, ...] = ()


def objects(owner: ServerRef, store: Store, settings: PodSettings, *, running: bool) -> list[Object]:
    """StatefulSet and Service; `running` False means 0 replicas."""
    return [_service(owner, store), _stateful_set(owner, store, settings, 1 if running else 0)]


def _service(owner: ServerRef, store: Store) -> Object:
    return {
        "apiVersion": "v1",
        "kind": "Service",
        "metadata": object_metadata(owner, store.name, store.component),
        "spec": {
            "type": "ClusterIP",
            "selector": labels.pod_selector(owner.name, store.component),
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
            # With OrderedReady, a corrected template would never replace a pod that never became ready.
            "podManagementPolicy": "Parallel",
            "selector": {"matchLabels": labels.pod_selector(owner.name, store.component)},
            "template": {
                "metadata": _pod_metadata(owner, store, settings),
                "spec": {
                    **pod_template.common_spec(store.run_as_user, settings),
                    "terminationGracePeriodSeconds": store.grace_seconds,
                    "containers": [_container(store)],
                    "volumes": [
                        {"name": "data", "persistentVolumeClaim": {"claimName": store.claim_name}},
                        *store.volumes,
                        container_parts.HOME_VOLUME,
                    ],
                },
            },
        },
    }


def _pod_metadata(owner: ServerRef, store: Store, settings: PodSettings) -> Object:
    metadata = pod_template.pod_metadata(settings, owner.name, store.component)
    # Without annotations the template is the same as before they could be set, so that no store is restarted.
    return {key: value for key, value in metadata.items() if value}


def _container(store: Store) -> Object:
    return {
        "imagePullPolicy": "IfNotPresent",
        "ports": [{"name": store.port_name, "containerPort": store.port}],
        "securityContext": container_parts.CONTAINER_SECURITY,
        "terminationMessagePolicy": "FallbackToLogsOnError",
        **store.container,
        "env": [*store.container["env"], *container_parts.home_env()],
        "volumeMounts": [*store.container["volumeMounts"], container_parts.HOME_MOUNT],
    }
