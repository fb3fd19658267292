"""Faults injected on the cluster's node: killed processes and dropped packets."""

import json
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager

from tests.e2e import operator_release, timeouts
from tests.e2e.kube import CommandError, Kube, Object
from tests.e2e.server import eventually, is_ready, restart_count

CONTROL_PLANE_NAMESPACE = "kube-system"


def kill(kube: Kube, pod: Object) -> None:
    """Send SIGKILL to the process of the pod's only container, from outside the container."""
    container = pod["status"]["containerStatuses"][0]["containerID"].removeprefix("containerd://")
    kube.node_command("ctr", "-n", "k8s.io", "tasks", "kill", "--signal", "SIGKILL", container)


def leader_identity(kube: Kube) -> str:
    """Return the holder of the Lease: the pod's name and a random part per process. Empty if there is no holder."""
    lease = kube.in_namespace(operator_release.NAMESPACE).require("Lease", operator_release.RELEASE)
    return str(lease["spec"].get("holderIdentity") or "")


def leader_pod(kube: Kube) -> Object | None:
    """Return the operator's pod that holds the Lease, or None."""
    holder = leader_identity(kube).partition("_")[0]
    return next((pod for pod in operator_release.pods(kube) if pod["metadata"]["name"] == holder), None)


def restart_api_server(kube: Kube) -> None:
    """Kill the API server with SIGKILL; waits until it has restarted and all pods of the control plane are ready."""
    control_plane = kube.in_namespace(CONTROL_PLANE_NAMESPACE)

    def pods() -> list[Object]:
        # kubectl, because each call opens a new connection
        try:
            output = control_plane.kubectl("get", "pods", "-o", "json", within=20)
        except (CommandError, subprocess.TimeoutExpired):
            return []
        return list(json.loads(output)["items"])

    def api_server_pod(found: list[Object]) -> Object | None:
        return next(
            (pod for pod in found if pod["metadata"]["labels"].get("component") == "kube-apiserver"), None
        )

    def is_restarted() -> bool:
        found = pods()
        new = api_server_pod(found)
        return (
            new is not None
            and restart_count(new) > restart_count(old)
            and all(is_ready(pod) for pod in found)
        )

    old: Object = eventually(
        "the API server's pod exists", lambda: api_server_pod(pods()), timeouts.STATUS_SECONDS
    )
    kill(kube, old)
    eventually(
        "the API server has restarted and the control plane is ready", is_restarted, timeouts.ROLLOUT_SECONDS
    )


class NetworkPartition:
    """Drops packets between a pod and the API server on the node, in both directions."""

    def __init__(self, kube: Kube, pod: Object) -> None:
        self._kube = kube
        address = pod["status"]["podIP"]
        # In the raw table, before NAT: requests to the Service's port and to the real port, and responses.
        self._rules = (
            ("PREROUTING", "-s", address, "-p", "tcp", "--dport", "443", "-j", "DROP"),
            ("PREROUTING", "-s", address, "-p", "tcp", "--dport", "6443", "-j", "DROP"),
            ("OUTPUT", "-d", address, "-p", "tcp", "--sport", "6443", "-j", "DROP"),
        )

    def start(self) -> None:
        """Start dropping packets."""
        for rule in self._rules:
            self._iptables("-I", *rule)

    def stop(self) -> None:
        """Stop dropping packets."""
        for rule in self._rules:
            self._iptables("-D", *rule)

    def dropped_packets(self) -> int:
        """Return the number of packets dropped so far."""
        lines = self._iptables("-vnxL").splitlines()
        return sum(int(line.split()[0]) for line in lines if "DROP" in line)

    def _iptables(self, *arguments: str) -> str:
        return self._kube.node_command("iptables", "-t", "raw", *arguments)


@contextmanager
def network_partition(kube: Kube, pod: Object) -> Iterator[NetworkPartition]:
    """Drop all packets between `pod` and the API server inside the context."""
    partition = NetworkPartition(kube, pod)
    partition.start()
    try:
        yield partition
    finally:
        partition.stop()
