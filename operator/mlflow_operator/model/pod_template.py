"""`spec.podTemplate`: its settings, and the parts of pod specs that follow from them.

Every pod meets the restricted Pod Security Standard. A new field for all pods needs changes here and
in `api.pods` only; `model.deployment` and `model.jobs` use the fields for pods that run MLflow.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field

from mlflow_operator.api.model import Model
from mlflow_operator.api.pods import ComponentPods, PodComponent, PodTemplate
from mlflow_operator.kube import labels
from mlflow_operator.kube.objects import Object

_COMPONENTS = {
    PodComponent.SERVER: labels.SERVER_POD,
    PodComponent.DATABASE: labels.DATABASE_POD,
    PodComponent.ARTIFACT_STORE: labels.ARTIFACT_STORE_POD,
    PodComponent.PREFLIGHT: labels.PREFLIGHT_POD,
    PodComponent.MIGRATION: labels.MIGRATION_POD,
    PodComponent.BACKUP: labels.BACKUP_POD,
    PodComponent.RESTORE: labels.RESTORE_POD,
    PodComponent.GARBAGE_COLLECTION: labels.GARBAGE_COLLECTION_POD,
    PodComponent.ENCRYPTION: labels.REWRAP_POD,
    PodComponent.AUTHENTICATION: labels.AUTHENTICATION_POD,
}


@dataclass(frozen=True)
class ComponentSettings:
    """`spec.podTemplate.components[]`. `resources` is empty if they are not set."""

    labels: Mapping[str, str] = field(default_factory=dict)
    annotations: Mapping[str, str] = field(default_factory=dict)
    resources: Object = field(default_factory=dict)


@dataclass(frozen=True)
class PodSettings:
    """`spec.podTemplate`: the pod settings of the user.

    `service_account`, `affinity`, `topology_spread_constraints`, `volumes`, `labels` and `annotations` apply to pods
    that run MLflow. `components` has settings for the pods of single components, by the value of their label. The other
    settings apply to every pod of the server, so that a cluster with taints or an image mirror needs them in one place
    only.
    """

    labels: dict[str, str]
    annotations: dict[str, str]
    node_selector: dict[str, str]
    tolerations: tuple[Object, ...]
    affinity: Object
    topology_spread_constraints: tuple[Object, ...]
    priority_class: str | None
    service_account: str | None
    image_pull_secrets: tuple[Object, ...]
    security_context: Object
    volumes: tuple[Object, ...]
    components: Mapping[str, ComponentSettings]

    def component(self, component: str) -> ComponentSettings:
        """Settings of the pods of one component."""
        return self.components.get(component) or ComponentSettings()


def resolve(template: PodTemplate) -> PodSettings:
    """Return the settings of `spec.podTemplate`."""
    spec = template.spec
    return PodSettings(
        labels=dict(template.metadata.labels),
        annotations=dict(template.metadata.annotations),
        node_selector=dict(spec.node_selector),
        tolerations=manifests(spec.tolerations),
        affinity=spec.affinity or {},
        topology_spread_constraints=manifests(spec.topology_spread_constraints),
        priority_class=spec.priority_class_name,
        service_account=spec.service_account_name,
        image_pull_secrets=manifests(spec.image_pull_secrets),
        security_context=spec.security_context.manifest(),
        volumes=manifests(spec.volumes),
        components={_COMPONENTS[component.name]: _component(component) for component in template.components},
    )


def _component(component: ComponentPods) -> ComponentSettings:
    resources = component.resources.manifest() if component.resources else {}
    return ComponentSettings(
        dict(component.metadata.labels),
        dict(component.metadata.annotations),
        {key: value for key, value in resources.items() if value},
    )


def pod_metadata(
    settings: PodSettings, server: str, component: str, annotations: Mapping[str, str] | None = None
) -> Object:
    """Metadata of a pod template. The operator's labels and `annotations` take precedence."""
    own = settings.component(component)
    runs_mlflow = component not in (labels.DATABASE_POD, labels.ARTIFACT_STORE_POD)
    common_labels, common_annotations = (settings.labels, settings.annotations) if runs_mlflow else ({}, {})
    return {
        "labels": {**common_labels, **own.labels, **labels.for_component(server, component)},
        "annotations": {**common_annotations, **own.annotations, **(annotations or {})},
    }


def manifests(parts: Iterable[Model] | None) -> tuple[Object, ...]:
    """Return models in their JSON form."""
    return tuple(part.manifest() for part in parts or ())


def pod_security_context(user: int, settings: PodSettings) -> Object:
    """Security context of the pod. Each field that the spec sets takes precedence; its model accepts no field or value
    that the restricted Pod Security Standard does not allow.

    `user` is a default only: images without a USER would run as root and be refused. On OpenShift, name a user
    of the namespace's range in `podTemplate.spec.securityContext`.
    """
    return {
        "runAsNonRoot": True,
        "runAsUser": user,
        "runAsGroup": user,
        "fsGroup": user,
        "fsGroupChangePolicy": "OnRootMismatch",
        "seccompProfile": {"type": "RuntimeDefault"},
    } | settings.security_context


def placement(settings: PodSettings) -> Object:
    """Scheduling fields and image pull secrets of every pod."""
    fields: Object = {
        "nodeSelector": settings.node_selector,
        "tolerations": list(settings.tolerations),
        "imagePullSecrets": list(settings.image_pull_secrets),
    }
    if settings.priority_class:
        fields["priorityClassName"] = settings.priority_class
    return {key: value for key, value in fields.items() if value}


def common_spec(user: int, settings: PodSettings) -> Object:
    """Fields that are the same in every pod spec."""
    return {
        "automountServiceAccountToken": False,
        "enableServiceLinks": False,
        "securityContext": pod_security_context(user, settings),
        **placement(settings),
    }
