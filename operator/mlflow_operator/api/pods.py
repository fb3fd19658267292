"""Settings of the pods: `spec.podTemplate`, `spec.volumeMounts`.

Only fields that the operator can combine with its own security settings are supported. Large Kubernetes types
(affinity, sources of volumes) are copied to the pod without changes.
"""

from enum import StrEnum
from typing import Annotated

from pydantic import Field

from mlflow_operator.api.markers import Int32, Int64, ListAtomic, ListMap, Opaque
from mlflow_operator.api.model import Model
from mlflow_operator.api.quantities import Resources
from mlflow_operator.api.references import LocalObjectReference
from mlflow_operator.api.rules import Rule, cel_string, matches, string_rule
from mlflow_operator.api.security_context import SecurityContext
from mlflow_operator.api.string_types import Annotations, LabelKey, Labels, LabelValue, ObjectName
from mlflow_operator.api.volumes import Volume


class TolerationOperator(StrEnum):
    """How a toleration matches the value of a taint."""

    EXISTS = "Exists"
    EQUAL = "Equal"


class TaintEffect(StrEnum):
    """Effect of a taint on pods."""

    NO_SCHEDULE = "NoSchedule"
    PREFER_NO_SCHEDULE = "PreferNoSchedule"
    NO_EXECUTE = "NoExecute"


class Toleration(Model):
    """Toleration of a taint."""

    key: LabelKey | None = None
    """Key of the taint. If not set, operator must be Exists, and all taints match."""
    operator: TolerationOperator | None = None
    """How the toleration matches the taint. Equal: the values must be equal. Exists: any value matches. Defaults to
    Equal.
    """
    value: LabelValue | None = None
    """Value of the taint."""
    effect: TaintEffect | None = None
    """Effect of the taint. If not set, all effects match."""
    toleration_seconds: Annotated[Int64 | None, Field(examples=[300])] = None
    """Number of seconds that a pod stays on a node after a NoExecute taint was added. If not set, the pod is not
    evicted.
    """

    rules = (
        Rule(
            "!has(self.tolerationSeconds) || self.?effect.orValue('') == 'NoExecute'",
            "tolerationSeconds requires effect NoExecute: set effect to NoExecute, or remove tolerationSeconds",
            field=".tolerationSeconds",
            holds=lambda toleration: (
                toleration.toleration_seconds is None or toleration.effect is TaintEffect.NO_EXECUTE
            ),
        ),
        Rule(
            "self.?key.orValue('') != '' || self.?operator.orValue('Equal') == 'Exists'",
            "a toleration without key requires operator Exists: set operator to Exists, or set key",
            field=".operator",
            holds=lambda toleration: bool(toleration.key) or toleration.operator is TolerationOperator.EXISTS,
        ),
        Rule(
            "self.?operator.orValue('Equal') != 'Exists' || self.?value.orValue('') == ''",
            "value must not be set with operator Exists, which matches any value: remove value, or set operator "
            "to Equal",
            field=".value",
            holds=lambda toleration: (
                toleration.operator is not TolerationOperator.EXISTS or not toleration.value
            ),
        ),
    )


class UnsatisfiableConstraintAction(StrEnum):
    """What the scheduler does with a pod that violates the constraint."""

    DO_NOT_SCHEDULE = "DoNotSchedule"
    SCHEDULE_ANYWAY = "ScheduleAnyway"


class NodeInclusionPolicy(StrEnum):
    """Whether nodes that a pod cannot use are excluded."""

    HONOR = "Honor"
    IGNORE = "Ignore"


class TopologySpreadConstraint(Model):
    """Distribution of the server pods across topology domains, such as nodes or zones."""

    max_skew: Annotated[Int32, Field(ge=1)]
    """Maximum difference in the number of pods between topology domains."""
    topology_key: LabelKey
    """Node label that defines the topology domains, such as `topology.kubernetes.io/zone`."""
    when_unsatisfiable: UnsatisfiableConstraintAction
    """What the scheduler does with a pod that violates the constraint. DoNotSchedule: the pod stays pending.
    ScheduleAnyway: the pod is scheduled, preferably to a node that reduces the skew.
    """
    label_selector: Annotated[
        Opaque | None, Field(examples=[{"matchLabels": {"mlflow-operator.dev/server": "tracking"}}])
    ] = None
    """Selector of the pods that are counted. Defaults to the pods of this server."""
    min_domains: Annotated[Int32, Field(ge=1), Field(examples=[2])] | None = None
    """Minimum number of topology domains. Requires `whenUnsatisfiable` DoNotSchedule."""
    node_affinity_policy: NodeInclusionPolicy | None = None
    """Whether to count nodes that do not match `affinity` and `nodeSelector`. Honor: they are not counted. Ignore: they
    are counted. Defaults to Honor.
    """
    node_taints_policy: NodeInclusionPolicy | None = None
    """Whether to count nodes with taints that are not tolerated. Honor: they are not counted. Ignore: they are
    counted. Defaults to Ignore.
    """
    match_label_keys: (
        Annotated[
            tuple[LabelKey, ...], Field(max_length=16), ListAtomic(), Field(examples=[["pod-template-hash"]])
        ]
        | None
    ) = None
    """Keys of pod labels whose values are added to `labelSelector`."""

    rules = (
        Rule(
            "!has(self.minDomains) || self.whenUnsatisfiable == 'DoNotSchedule'",
            "minDomains requires whenUnsatisfiable DoNotSchedule: set whenUnsatisfiable to DoNotSchedule, or remove "
            "minDomains",
            field=".minDomains",
            holds=lambda constraint: (
                constraint.min_domains is None
                or constraint.when_unsatisfiable is UnsatisfiableConstraintAction.DO_NOT_SCHEDULE
            ),
        ),
    )


RESERVED_MOUNT_PATHS = ("/home/mlflow-operator", "/opt/mlflow-operator", "/etc/mlflow-operator")
"""Mount paths of the volumes that the operator adds to pods that run MLflow, or their parent directories."""


class VolumeMount(Model):
    """Mount of a volume in the server container."""

    name: Annotated[str, Field(max_length=63)]
    """Name of a volume in `spec.podTemplate.spec.volumes`."""
    mount_path: Annotated[
        str,
        Field(max_length=512),
        matches(r"/[^:]+", "is not a valid mount path: use an absolute path without ':'"),
        string_rule(
            " && ".join(f"!self.startsWith({cel_string(path)})" for path in RESERVED_MOUNT_PATHS),
            "is a mount path that the operator uses: use another path",
            lambda path: not path.startswith(RESERVED_MOUNT_PATHS),
        ),
    ]
    """Path in the container at which the volume is mounted."""
    sub_path: Annotated[str, Field(max_length=512), Field(examples=["ca.crt"])] | None = None
    """Path in the volume to mount. Defaults to the root of the volume."""
    read_only: bool | None = None
    """Whether the volume is mounted read-only. Defaults to false."""


_APPARMOR_ANNOTATIONS = "container.apparmor.security.beta.kubernetes.io/"
"""Prefix of the annotations that choose an AppArmor profile. The API server still copies them to the containers."""


class PodMetadata(Model):
    """Labels and annotations of pods."""

    labels: Labels = Field(default_factory=dict, examples=[{"example.com/cost-center": "42"}])
    """Labels of the pods. Labels that the operator sets take precedence."""
    annotations: Annotations = Field(
        default_factory=dict, examples=[{"cluster-autoscaler.kubernetes.io/safe-to-evict": "true"}]
    )
    """Annotations of the pods."""

    rules = (
        Rule(
            "!has(self.annotations) || self.annotations.all(name, "
            f"!name.startsWith({cel_string(_APPARMOR_ANNOTATIONS)}) || self.annotations[name] != 'unconfined')",
            "annotations must not select the AppArmor profile unconfined: remove the annotation, or use "
            "appArmorProfile in spec.podTemplate.spec.securityContext for another profile",
            field=".annotations",
            holds=lambda metadata: (
                not any(
                    name.startswith(_APPARMOR_ANNOTATIONS) and value == "unconfined"
                    for name, value in metadata.annotations.items()
                )
            ),
        ),
    )


_AFFINITY = {
    "nodeAffinity": {
        "requiredDuringSchedulingIgnoredDuringExecution": {
            "nodeSelectorTerms": [
                {"matchExpressions": [{"key": "dedicated", "operator": "In", "values": ["mlflow"]}]}
            ]
        }
    }
}


class PodSpec(Model):
    """Scheduling, identity and volumes of the pods."""

    node_selector: Labels = Field(default_factory=dict)
    """Labels that a node must have to run pods of this server."""
    tolerations: Annotated[tuple[Toleration, ...], Field(max_length=32), ListAtomic()] = ()
    """Tolerations for all pods of this server."""
    affinity: Opaque = Field(default_factory=dict, examples=[_AFFINITY])
    """Node affinity, pod affinity and pod anti-affinity of the server pods."""
    topology_spread_constraints: Annotated[
        tuple[TopologySpreadConstraint, ...],
        Field(max_length=16),
        ListMap("topologyKey", "whenUnsatisfiable"),
    ] = ()
    """Distribution of the server pods across topology domains. Defaults to a constraint for nodes with
    `whenUnsatisfiable` ScheduleAnyway.
    """
    priority_class_name: ObjectName | None = None
    """Priority class of all pods of this server."""
    service_account_name: ObjectName | None = None
    """Service account of the pods that run MLflow, for workload identity. Defaults to the service account `default`."""
    image_pull_secrets: Annotated[
        tuple[LocalObjectReference, ...], Field(max_length=16), ListMap("name")
    ] = ()
    """Secrets with registry credentials, for all pods of this server."""
    security_context: SecurityContext = SecurityContext()
    """Security context of the pods, such as user, group and fsGroup. Its fields take precedence over the values that
    the operator sets, and cannot undo the restricted Pod Security Standard.
    """
    volumes: Annotated[tuple[Volume, ...], Field(max_length=32), ListMap("name")] = ()
    """Volumes to which `spec.volumeMounts` can refer."""


class PodComponent(StrEnum):
    """Component of a server that has pods of its own."""

    SERVER = "Server"
    DATABASE = "Database"
    ARTIFACT_STORE = "ArtifactStore"
    PREFLIGHT = "Preflight"
    MIGRATION = "Migration"
    BACKUP = "Backup"
    RESTORE = "Restore"
    GARBAGE_COLLECTION = "GarbageCollection"
    ENCRYPTION = "Encryption"
    AUTHENTICATION = "Authentication"


_OWN_RESOURCES = (PodComponent.SERVER, PodComponent.DATABASE, PodComponent.ARTIFACT_STORE)


class ComponentPods(Model):
    """Settings of the pods of one component."""

    name: PodComponent
    """Component. Server: the server. Database, ArtifactStore: the embedded stores. The others are Jobs."""
    metadata: PodMetadata = PodMetadata()
    """Labels and annotations of the pods of this component. They take precedence over `podTemplate.metadata`."""
    resources: Resources | None = None
    """Compute resources of each container of a Job. Defaults to values that are derived from `spec.resources`, so that
    the Jobs fit into the same ResourceQuota and LimitRange as the server.
    """

    rules = (
        Rule(
            "!has(self.resources) || !(self.name in ['Server', 'Database', 'ArtifactStore'])",
            "resources of Server, Database and ArtifactStore have their own fields: set spec.resources, "
            "spec.database.embedded.resources or spec.artifacts.embedded.resources",
            field=".resources",
            holds=lambda component: component.resources is None or component.name not in _OWN_RESOURCES,
        ),
    )


class PodTemplate(Model):
    """Template for the pods of the server."""

    metadata: PodMetadata = PodMetadata()
    """Labels and annotations of all pods that run MLflow: those of the server and of its Jobs."""
    spec: PodSpec = PodSpec()
    """Scheduling, identity and volumes of the pods."""
    components: Annotated[
        tuple[ComponentPods, ...], Field(max_length=len(PodComponent)), ListMap("name")
    ] = ()
    """Labels, annotations and resources for the pods of single components, such as backups."""
