"""What owners decide about pods: `spec.podTemplate`, `spec.volumeMounts`.

Only members that the operator can honour beside its own security settings; the large types of Kubernetes'
own (affinity, volumes, security context) are passed on as they are.
"""

from enum import StrEnum
from typing import Annotated

from pydantic import ConfigDict, Field

from mlflow_operator.api.markers import Int32, Int64, ListAtomic, ListMap, Opaque
from mlflow_operator.api.model import Model
from mlflow_operator.api.references import LocalObjectReference
from mlflow_operator.api.rules import Rule, matches, quoted, text
from mlflow_operator.api.string_types import Annotations, LabelKey, Labels, LabelValue, ObjectName


class TolerationOperator(StrEnum):
    """How a toleration compares a taint's value."""

    EXISTS = "Exists"
    EQUAL = "Equal"


class TaintEffect(StrEnum):
    """What a taint does to pods."""

    NO_SCHEDULE = "NoSchedule"
    PREFER_NO_SCHEDULE = "PreferNoSchedule"
    NO_EXECUTE = "NoExecute"


class Toleration(Model):
    """A taint that pods put up with."""

    key: LabelKey | None = None
    """The taint's key. Absent, with operator Exists: every taint."""
    operator: TolerationOperator | None = None
    """Equal compares `value`, Exists does not. Absent: Equal."""
    value: LabelValue | None = None
    """The taint's value."""
    effect: TaintEffect | None = None
    """The taint's effect. Absent: all of them."""
    toleration_seconds: Int64 | None = None
    """How many seconds a pod stays on a node that got a NoExecute taint. Absent: for ever."""

    rules = (
        Rule(
            "!has(self.tolerationSeconds) || self.?effect.orValue('') == 'NoExecute'",
            "tolerationSeconds counts from a NoExecute taint: set effect to NoExecute, or remove tolerationSeconds",
            field=".tolerationSeconds",
            holds=lambda it: it.toleration_seconds is None or it.effect is TaintEffect.NO_EXECUTE,
        ),
        Rule(
            "self.?key.orValue('') != '' || self.?operator.orValue('Equal') == 'Exists'",
            "a toleration without a key is for every taint: set operator to Exists, or name the taint's key",
            field=".operator",
            holds=lambda it: bool(it.key) or it.operator is TolerationOperator.EXISTS,
        ),
        Rule(
            "self.?operator.orValue('Equal') != 'Exists' || self.?value.orValue('') == ''",
            "operator Exists takes any value of the taint: remove value, or set operator to Equal",
            field=".value",
            holds=lambda it: it.operator is not TolerationOperator.EXISTS or not it.value,
        ),
    )


class UnsatisfiableSpread(StrEnum):
    """What happens to a pod that would break a spread."""

    DO_NOT_SCHEDULE = "DoNotSchedule"
    SCHEDULE_ANYWAY = "ScheduleAnyway"


class SpreadPolicy(StrEnum):
    """Whether nodes a pod can't use count."""

    HONOR = "Honor"
    IGNORE = "Ignore"


class TopologySpreadConstraint(Model):
    """How the server's pods spread over nodes or zones."""

    max_skew: Annotated[Int32, Field(ge=1)]
    """How many pods more one place may have than another."""
    topology_key: LabelKey
    """Label of the nodes that tells places apart, such as `topology.kubernetes.io/zone`."""
    when_unsatisfiable: UnsatisfiableSpread
    """DoNotSchedule: such a pod waits. ScheduleAnyway: it goes to the least bad place."""
    label_selector: Opaque | None = None
    """Pods that count. Absent: the pods of this server."""
    min_domains: Annotated[Int32, Field(ge=1)] | None = None
    """How many places there must be at least; with DoNotSchedule only."""
    node_affinity_policy: SpreadPolicy | None = None
    """Whether nodes outside `affinity` and `nodeSelector` count. Absent: they do not."""
    node_taints_policy: SpreadPolicy | None = None
    """Whether nodes with taints that are not tolerated count. Absent: they do."""
    match_label_keys: Annotated[tuple[LabelKey, ...], Field(max_length=16), ListAtomic()] | None = None
    """Labels whose values narrow `labelSelector`."""

    rules = (
        Rule(
            "!has(self.minDomains) || self.whenUnsatisfiable == 'DoNotSchedule'",
            "minDomains makes pods wait: set whenUnsatisfiable to DoNotSchedule, or remove minDomains",
            field=".minDomains",
            holds=lambda it: (
                it.min_domains is None or it.when_unsatisfiable is UnsatisfiableSpread.DO_NOT_SCHEDULE
            ),
        ),
    )


RESERVED_VOLUMES = ("home", "plugins", "database-ca", "artifacts-ca")
"""Names of the operator's own volumes in a pod that runs MLflow."""

RESERVED_MOUNTS = ("/home/mlflow-operator", "/opt/mlflow-operator", "/etc/mlflow-operator")
"""Where they are mounted, or above."""


class Volume(Model):
    """A volume of the pod; beside its name everything that Kubernetes takes."""

    # The kind of volume is Kubernetes' own: kept though no field here names it.
    model_config = ConfigDict(extra="allow", json_schema_extra={"x-kubernetes-preserve-unknown-fields": True})

    name: Annotated[
        str,
        Field(max_length=63),
        matches(
            r"[a-z0-9]([a-z0-9-]*[a-z0-9])?",
            "is no name of a volume: use lower-case letters, digits and '-'",
        ),
        text(
            f"!(self in [{', '.join(map(quoted, RESERVED_VOLUMES))}])",
            "is the name of a volume of the operator's own: take another",
            lambda name: name not in RESERVED_VOLUMES,
        ),
    ]
    """Name that `spec.volumeMounts` uses."""


class VolumeMount(Model):
    """A volume in the file system of the server's container."""

    name: Annotated[str, Field(max_length=63)]
    """Name of the volume, from `spec.podTemplate.spec.volumes`."""
    mount_path: Annotated[
        str,
        Field(max_length=512),
        matches(r"/[^:]+", "is no place to mount at: write an absolute path without ':'"),
        text(
            " && ".join(f"!self.startsWith({quoted(path)})" for path in RESERVED_MOUNTS),
            "is a place where the operator mounts volumes of its own: take another",
            lambda path: not path.startswith(RESERVED_MOUNTS),
        ),
    ]
    """Where it is mounted."""
    sub_path: Annotated[str, Field(max_length=512)] | None = None
    """Folder or file in the volume that is mounted instead of its root."""
    read_only: bool | None = None
    """True: the server can't write to it."""


class PodMetadata(Model):
    """What pods carry beside the operator's own labels."""

    labels: Labels = Field(default_factory=dict)
    """Labels of the server's pods. The operator's own win."""
    annotations: Annotations = Field(default_factory=dict)
    """Annotations of the server's pods."""


class PodSpec(Model):
    """How pods are placed and who they are."""

    node_selector: Labels = Field(default_factory=dict)
    """Labels that a node must have for any pod of this server."""
    tolerations: Annotated[tuple[Toleration, ...], Field(max_length=32), ListAtomic()] = ()
    """Taints that every pod of this server puts up with."""
    affinity: Opaque = Field(default_factory=dict)
    """Where the server's pods prefer or need to be, beside which nodes and pods; as in any pod."""
    topology_spread_constraints: Annotated[
        tuple[TopologySpreadConstraint, ...],
        Field(max_length=16),
        ListMap("topologyKey", "whenUnsatisfiable"),
    ] = ()
    """How the server's pods spread. Absent: over nodes, as well as it goes."""
    priority_class_name: ObjectName | None = None
    """Priority class of every pod of this server."""
    service_account_name: ObjectName | None = None
    """Service account of the pods that run MLflow, for workload identity. Absent: the namespace's default."""
    image_pull_secrets: Annotated[
        tuple[LocalObjectReference, ...], Field(max_length=16), ListMap("name")
    ] = ()
    """Secrets with credentials for image registries, used by every pod of this server."""
    security_context: Opaque = Field(default_factory=dict)
    """Security context of the pods, laid over the operator's own: user, group, fsGroup."""
    volumes: Annotated[tuple[Volume, ...], Field(max_length=32), ListMap("name")] = ()
    """Volumes for `spec.volumeMounts`."""


class PodTemplate(Model):
    """Settings of the pods."""

    metadata: PodMetadata = PodMetadata()
    """Labels and annotations."""
    spec: PodSpec = PodSpec()
    """Placement, identity and volumes."""
