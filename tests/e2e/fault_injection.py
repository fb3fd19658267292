"""Trouble made for real on the cluster's node: processes that are killed, packets that do not arrive."""

import json
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager

from tests.e2e import operator_release, timeouts
from tests.e2e.kube import CommandError, Kube, Object
from tests.e2e.server import eventually, is_ready, restarts

CONTROL_PLANE = "kube-system"


def kill(kube: Kube, pod: Object) -> None:
    """SIGKILL to the one container's process, from outside of the container."""
    container = pod["status"]["containerStatuses"][0]["containerID"].removeprefix("containerd://")
    kube.node_command("ctr", "-n", "k8s.io", "tasks", "kill", "--signal", "SIGKILL", container)


def leader(kube: Kube) -> Object | None:
    """The operator's pod that holds the lease; None while nobody does."""
    lease = kube.within(operator_release.NAMESPACE).need("Lease", operator_release.RELEASE)
    holder = str(lease["spec"].get("holderIdentity") or "").partition("_")[0]
    return next((pod for pod in operator_release.pods(kube) if pod["metadata"]["name"] == holder), None)


def restart_api_server(kube: Kube) -> None:
    """SIGKILL to the API server; waits until another process answers and the control plane is whole again."""
    plane = kube.within(CONTROL_PLANE)

    def pods() -> list[Object]:
        # kubectl, for each call makes a connection of its own
        try:
            found: list[Object] = json.loads(plane.kubectl("get", "pods", "-o", "json", within=20))["items"]
        except (CommandError, subprocess.TimeoutExpired):
            return []
        return found

    def server(found: list[Object]) -> Object | None:
        return next(
            (pod for pod in found if pod["metadata"]["labels"].get("component") == "kube-apiserver"), None
        )

    def again() -> bool:
        found = pods()
        now = server(found)
        return now is not None and restarts(now) > restarts(old) and all(is_ready(pod) for pod in found)

    old: Object = eventually("the API server's pod is seen", lambda: server(pods()), timeouts.SETTLED)
    kill(kube, old)
    eventually("the API server and all of the control plane are back", again, timeouts.ROLLED)


class Cut:
    """Packets between a pod and the API server are dropped on the node, in both directions."""

    def __init__(self, kube: Kube, pod: Object) -> None:
        self._kube = kube
        address = pod["status"]["podIP"]
        # before anything is rewritten: the Service's port on the way there, the real one too, and that on the way back
        self._rules = (
            ("PREROUTING", "-s", address, "-p", "tcp", "--dport", "443", "-j", "DROP"),
            ("PREROUTING", "-s", address, "-p", "tcp", "--dport", "6443", "-j", "DROP"),
            ("OUTPUT", "-d", address, "-p", "tcp", "--sport", "6443", "-j", "DROP"),
        )

    def make(self) -> None:
        """From now on nothing passes."""
        for rule in self._rules:
            self._iptables("-I", *rule)

    def mend(self) -> None:
        """From now on everything passes."""
        for rule in self._rules:
            self._iptables("-D", *rule)

    def dropped(self) -> int:
        """How many packets did not pass so far."""
        lines = self._iptables("-vnxL").splitlines()
        return sum(int(line.split()[0]) for line in lines if "DROP" in line)

    def _iptables(self, *arguments: str) -> str:
        return self._kube.node_command("iptables", "-t", "raw", *arguments)


@contextmanager
def cut_off(kube: Kube, pod: Object) -> Iterator[Cut]:
    """No packet passes between `pod` and the API server while inside."""
    cut = Cut(kube, pod)
    cut.make()
    try:
        yield cut
    finally:
        cut.mend()
