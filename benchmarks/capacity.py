"""Requested and free resources of a node, and which command frees some of them. Pure."""

import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from kubernetes.utils.quantity import parse_quantity
from tests.e2e.kube import TEST_LABEL, Object

from benchmarks import BENCH_LABEL

MIB = 1024 * 1024
TERMINATED = {"Succeeded", "Failed"}
SYSTEM_NAMESPACES = {"kube-system", "local-path-storage", "mlflow-operator"}
"""Namespaces of the cluster and of the operator: no benchmark runs without their pods."""


@dataclass(frozen=True)
class Resources:
    """CPU in thousandths of a core, and memory in bytes."""

    cpu: int = 0
    memory: int = 0

    @classmethod
    def of(cls, quantities: Mapping[str, str] | None) -> "Resources":
        """The CPU and memory of a `requests` or `allocatable` map; other resources are ignored."""
        found = quantities or {}
        return cls(
            math.ceil(parse_quantity(found.get("cpu", "0")) * 1000),
            math.ceil(parse_quantity(found.get("memory", "0"))),
        )

    def __add__(self, other: "Resources") -> "Resources":
        return Resources(self.cpu + other.cpu, self.memory + other.memory)

    def __sub__(self, other: "Resources") -> "Resources":
        return Resources(self.cpu - other.cpu, self.memory - other.memory)

    def __mul__(self, count: int) -> "Resources":
        return Resources(self.cpu * count, self.memory * count)

    def __or__(self, other: "Resources") -> "Resources":
        """The larger of both, for each resource."""
        return Resources(max(self.cpu, other.cpu), max(self.memory, other.memory))

    def __str__(self) -> str:
        parts = [f"{self.cpu}m CPU"] if self.cpu else []
        parts += [f"{self.memory / MIB:.0f} MiB memory"] if self.memory else []
        return " and ".join(parts) or "nothing"

    def short_of(self, needed: "Resources") -> list[str]:
        """The resources of which there is less than needed: `cpu`, `memory` or both."""
        return [name for name in ("cpu", "memory") if getattr(self, name) < getattr(needed, name)]


def requests(pod: Object) -> Resources:
    """Resources that the scheduler reserves for a pod: those of its containers, or of an init container that requests
    more."""
    spec = pod.get("spec") or {}
    sidecars = peak = Resources()
    for container in spec.get("initContainers") or ():
        own = _requests(container)
        peak |= sidecars + own
        if container.get("restartPolicy") == "Always":
            sidecars += own
    containers = sum(map(_requests, spec.get("containers") or ()), Resources())
    return (containers + sidecars | peak) + Resources.of(spec.get("overhead"))


def _requests(container: Object) -> Resources:
    return Resources.of((container.get("resources") or {}).get("requests"))


def reserved(pods: Iterable[Object], node: str) -> dict[str, Resources]:
    """Requests of all pods on a node that have not terminated, by namespace."""
    found: dict[str, Resources] = {}
    for pod in pods:
        if pod["spec"].get("nodeName") != node or (pod.get("status") or {}).get("phase") in TERMINATED:
            continue
        namespace = str(pod["metadata"]["namespace"])
        found[namespace] = found.get(namespace, Resources()) + requests(pod)
    return found


@dataclass(frozen=True)
class Cluster:
    """What decides whether a pod fits: the node, and all pods, namespaces and MLflowServers."""

    node: Object
    pods: list[Object]
    namespaces: list[Object]
    servers: list[Object]

    @property
    def node_name(self) -> str:
        """The node on which benchmarks run."""
        return str(self.node["metadata"]["name"])

    @property
    def allocatable(self) -> Resources:
        """Resources of the node that pods can request."""
        return Resources.of(self.node["status"]["allocatable"])

    @property
    def reserved(self) -> dict[str, Resources]:
        """Requests on the node by namespace."""
        return reserved(self.pods, self.node_name)

    @property
    def free(self) -> Resources:
        """Resources of the node that no pod has requested."""
        return self.allocatable - sum(self.reserved.values(), Resources())


def summary(cluster: Cluster, most: int = 5) -> str:
    """The node's free requests, and the namespaces with the largest requests."""
    largest = sorted(
        ((name, found) for name, found in cluster.reserved.items() if found != Resources()),
        key=lambda item: _share(item[1], cluster.allocatable),
        reverse=True,
    )
    listed = "; ".join(f"{name}: {found}" for name, found in largest[:most])
    return (
        f"Node {cluster.node_name} has {cluster.free} free of {cluster.allocatable}. "
        f"Largest requests by namespace: {listed}."
    )


def others(cluster: Cluster) -> str:
    """Namespaces with requests that belong neither to the cluster, the operator nor a benchmark; empty without any."""
    labelled = {
        _name(each) for each in cluster.namespaces if BENCH_LABEL in (each["metadata"].get("labels") or {})
    }
    found = {
        name: each for name, each in cluster.reserved.items() if name not in SYSTEM_NAMESPACES | labelled
    }
    return "; ".join(f"{name}: {each}" for name, each in sorted(found.items()))


def _share(found: Resources, whole: Resources) -> float:
    return max(found.cpu / max(whole.cpu, 1), found.memory / max(whole.memory, 1))


def commands(cluster: Cluster, missing: Resources, kubectl: str, own: Iterable[str] = ()) -> list[str]:
    """The fewest commands that free `missing`, those that free most first; empty if no commands free enough.

    Namespaces of the system and `own`, the namespaces of this run, are left alone.
    """
    kept = SYSTEM_NAMESPACES | {*own}
    candidates = {name: found for name, found in cluster.reserved.items() if name not in kept}
    chosen: list[str] = []
    freed = Resources()
    while names := freed.short_of(missing):
        wanted = names[0]
        largest = max(candidates, key=lambda name: int(getattr(candidates[name], wanted)), default=None)
        if largest is None or not getattr(candidates[largest], wanted):
            return []
        freed += candidates.pop(largest)
        chosen += _commands(cluster, largest, kubectl)
    return chosen


def _commands(cluster: Cluster, namespace: str, kubectl: str) -> list[str]:
    labels = next(
        (each["metadata"].get("labels") or {} for each in cluster.namespaces if _name(each) == namespace), {}
    )
    if TEST_LABEL in labels or BENCH_LABEL in labels:
        return [f"{kubectl} delete namespace {namespace}"]
    suspend = """--type=merge -p '{"spec":{"suspend":true}}'"""
    found = [
        f"{kubectl} -n {namespace} patch mlflowserver {_name(server)} {suspend}"
        for server in cluster.servers
        if server["metadata"]["namespace"] == namespace and not server["spec"].get("suspend")
    ]
    return found or [f"{kubectl} -n {namespace} scale deployments,statefulsets --all --replicas=0"]


def _name(obj: Object) -> str:
    return str(obj["metadata"]["name"])


def preflight(
    cluster: Cluster, needed: Mapping[str, Resources], kubectl: str, own: Iterable[str] = ()
) -> dict[str, str]:
    """For each figure whose pods do not fit on the node: the reason, and the commands that make room."""
    free = cluster.free
    return {
        figure: f"its pods request {resources}, and {', '.join(short)} is short. "
        f"{summary(cluster)}\n{advice(cluster, resources - free, kubectl, own)}"
        for figure, resources in needed.items()
        if (short := free.short_of(resources))
    }


def advice(cluster: Cluster, missing: Resources, kubectl: str, own: Iterable[str] = ()) -> str:
    """What to do so that `missing` becomes free."""
    missing |= Resources()
    found = commands(cluster, missing, kubectl, own)
    if not found:
        return f"No command frees {missing}: the node is too small for these pods."
    return "\n".join([f"To free {missing}, run:", *(f"  {command}" for command in found)])
