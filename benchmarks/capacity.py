"""Requested and free resources of a node, and the commands that free resources. Pure functions."""

import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from kubernetes.utils.quantity import parse_quantity
from tests.e2e.kube import TEST_LABEL, Object

from benchmarks import BENCH_LABEL

MIB = 1024 * 1024
TERMINATED_PHASES = {"Succeeded", "Failed"}
SYSTEM_NAMESPACES = {"kube-system", "local-path-storage", "mlflow-operator"}
"""Namespaces of the cluster and of the operator, whose pods every benchmark needs."""


@dataclass(frozen=True)
class Resources:
    """CPU in millicores, and memory in bytes."""

    cpu: int = 0
    memory: int = 0

    @classmethod
    def of(cls, quantities: Mapping[str, str] | None) -> "Resources":
        """Parse the CPU and memory of a `requests` or `allocatable` map. Other resources are ignored."""
        values = quantities or {}
        return cls(
            math.ceil(parse_quantity(values.get("cpu", "0")) * 1000),
            math.ceil(parse_quantity(values.get("memory", "0"))),
        )

    def __add__(self, other: "Resources") -> "Resources":
        return Resources(self.cpu + other.cpu, self.memory + other.memory)

    def __sub__(self, other: "Resources") -> "Resources":
        return Resources(self.cpu - other.cpu, self.memory - other.memory)

    def __mul__(self, count: int) -> "Resources":
        return Resources(self.cpu * count, self.memory * count)

    def __or__(self, other: "Resources") -> "Resources":
        """Return the maximum of each resource."""
        return Resources(max(self.cpu, other.cpu), max(self.memory, other.memory))

    def __str__(self) -> str:
        parts = [f"{self.cpu}m CPU"] if self.cpu else []
        parts += [f"{self.memory / MIB:.0f} MiB memory"] if self.memory else []
        return " and ".join(parts) or "nothing"

    def short_of(self, needed: "Resources") -> list[str]:
        """Return the names of the resources that are smaller than needed: `cpu`, `memory` or both."""
        return [name for name in ("cpu", "memory") if getattr(self, name) < getattr(needed, name)]


def pod_requests(pod: Object) -> Resources:
    """Return the effective requests of a pod: those of its containers, or of an init container that requests more."""
    spec = pod.get("spec") or {}
    sidecars = peak = Resources()
    for container in spec.get("initContainers") or ():
        container_requests = _container_requests(container)
        peak |= sidecars + container_requests
        if container.get("restartPolicy") == "Always":
            sidecars += container_requests
    containers = sum(map(_container_requests, spec.get("containers") or ()), Resources())
    return (containers + sidecars | peak) + Resources.of(spec.get("overhead"))


def _container_requests(container: Object) -> Resources:
    return Resources.of((container.get("resources") or {}).get("requests"))


def requests_by_namespace(pods: Iterable[Object], node: str) -> dict[str, Resources]:
    """Return the requests of all pods on a node that have not terminated, by namespace."""
    totals: dict[str, Resources] = {}
    for pod in pods:
        if pod["spec"].get("nodeName") != node or (pod.get("status") or {}).get("phase") in TERMINATED_PHASES:
            continue
        namespace = str(pod["metadata"]["namespace"])
        totals[namespace] = totals.get(namespace, Resources()) + pod_requests(pod)
    return totals


@dataclass(frozen=True)
class Cluster:
    """The state that decides whether a pod fits: the node, and all pods, namespaces and MLflowServers."""

    node: Object
    pods: list[Object]
    namespaces: list[Object]
    servers: list[Object]

    @property
    def node_name(self) -> str:
        """Name of the node on which benchmarks run."""
        return str(self.node["metadata"]["name"])

    @property
    def allocatable(self) -> Resources:
        """Resources of the node that pods can request."""
        return Resources.of(self.node["status"]["allocatable"])

    @property
    def requests_by_namespace(self) -> dict[str, Resources]:
        """Requests on the node by namespace."""
        return requests_by_namespace(self.pods, self.node_name)

    @property
    def free(self) -> Resources:
        """Resources of the node that no pod has requested."""
        return self.allocatable - sum(self.requests_by_namespace.values(), Resources())


def summary(cluster: Cluster, max_namespaces: int = 5) -> str:
    """Describe the node's free resources, and the namespaces with the largest requests."""
    largest = sorted(
        ((name, found) for name, found in cluster.requests_by_namespace.items() if found != Resources()),
        key=lambda item: _largest_share(item[1], cluster.allocatable),
        reverse=True,
    )
    largest_text = "; ".join(f"{name}: {found}" for name, found in largest[:max_namespaces])
    return (
        f"Node {cluster.node_name} has {cluster.free} free of {cluster.allocatable}. "
        f"Largest requests by namespace: {largest_text}."
    )


def other_namespaces(cluster: Cluster) -> str:
    """Describe the requests in namespaces that do not belong to the cluster, the operator or benchmarks."""
    benchmark_namespaces = {
        _name(namespace)
        for namespace in cluster.namespaces
        if BENCH_LABEL in (namespace["metadata"].get("labels") or {})
    }
    others = {
        name: resources
        for name, resources in cluster.requests_by_namespace.items()
        if name not in SYSTEM_NAMESPACES | benchmark_namespaces
    }
    return "; ".join(f"{name}: {resources}" for name, resources in sorted(others.items()))


def _largest_share(part: Resources, whole: Resources) -> float:
    return max(part.cpu / max(whole.cpu, 1), part.memory / max(whole.memory, 1))


def commands_to_free(
    cluster: Cluster, missing: Resources, kubectl: str, own_namespaces: Iterable[str] = ()
) -> list[str]:
    """Return the fewest commands that free `missing`, largest first; empty if no commands free enough.

    They do not affect the namespaces of the system and of this run (`own_namespaces`).
    """
    excluded = SYSTEM_NAMESPACES | {*own_namespaces}
    candidates = {
        name: found for name, found in cluster.requests_by_namespace.items() if name not in excluded
    }
    chosen: list[str] = []
    freed = Resources()
    while names := freed.short_of(missing):
        resource = names[0]
        largest = max(candidates, key=lambda name: int(getattr(candidates[name], resource)), default=None)
        if largest is None or not getattr(candidates[largest], resource):
            return []
        freed += candidates.pop(largest)
        chosen += _commands_for_namespace(cluster, largest, kubectl)
    return chosen


def _commands_for_namespace(cluster: Cluster, namespace: str, kubectl: str) -> list[str]:
    labels = next(
        (obj["metadata"].get("labels") or {} for obj in cluster.namespaces if _name(obj) == namespace), {}
    )
    if TEST_LABEL in labels or BENCH_LABEL in labels:
        return [f"{kubectl} delete namespace {namespace}"]
    suspend = """--type=merge -p '{"spec":{"suspend":true}}'"""
    suspend_commands = [
        f"{kubectl} -n {namespace} patch mlflowserver {_name(server)} {suspend}"
        for server in cluster.servers
        if server["metadata"]["namespace"] == namespace and not server["spec"].get("suspend")
    ]
    return suspend_commands or [f"{kubectl} -n {namespace} scale deployments,statefulsets --all --replicas=0"]


def _name(obj: Object) -> str:
    return str(obj["metadata"]["name"])


def preflight(
    cluster: Cluster, needed: Mapping[str, Resources], kubectl: str, own_namespaces: Iterable[str] = ()
) -> dict[str, str]:
    """Return, for each figure whose pods do not fit on the node, the reason and the commands that free resources."""
    free = cluster.free
    return {
        figure: f"its pods request {resources}, but the node does not have enough free {', '.join(lacking)}. "
        f"{summary(cluster)}\n{advice(cluster, resources - free, kubectl, own_namespaces)}"
        for figure, resources in needed.items()
        if (lacking := free.short_of(resources))
    }


def advice(cluster: Cluster, missing: Resources, kubectl: str, own_namespaces: Iterable[str] = ()) -> str:
    """Describe how to free `missing`."""
    missing |= Resources()
    found = commands_to_free(cluster, missing, kubectl, own_namespaces)
    if not found:
        return f"No command frees {missing}: the node is too small for these pods."
    return "\n".join([f"To free {missing}, run:", *(f"  {command}" for command in found)])
