"""A node whose pods only pretend to run: the operator's own work on many servers, without their memory."""

import subprocess
from collections.abc import Iterator
from contextlib import contextmanager

from tests.e2e.kube import Kube, Object

from benchmarks.lab import until

NODE = "bench-pretending"
MARK = "kwok.x-k8s.io/node"
ROOM = {"cpu": "1000", "memory": "4Ti", "pods": "1000", "ephemeral-storage": "4Ti"}


@contextmanager
def pretending(kube: Kube) -> Iterator[None]:
    """The node is there, and kwok answers for its pods, for as long as the context lasts."""
    log = kube.settings.root / "out" / "bench" / "kwok.log"
    log.parent.mkdir(parents=True, exist_ok=True)
    kube.apply(node())
    argv = [
        str(kube.settings.bin / "kwok"),
        f"--kubeconfig={kube.settings.kubeconfig}",
        f"--manage-nodes-with-annotation-selector={MARK}=fake",
        "--node-lease-duration-seconds=40",
    ]
    with log.open("w") as out, subprocess.Popen(argv, env=kube.env, stdout=out, stderr=out) as process:
        try:
            until("the pretending node is ready", lambda: _ready(kube), 60)
            yield
        finally:
            process.terminate()
            kube.kubectl("delete", "node", NODE, "--ignore-not-found")


def node() -> Object:
    """Room for all, and tainted: what belongs on a real node stays there."""
    return {
        "apiVersion": "v1",
        "kind": "Node",
        "metadata": {
            "name": NODE,
            "annotations": {MARK: "fake"},
            "labels": {"type": "kwok", "kubernetes.io/hostname": NODE, "kubernetes.io/os": "linux"},
        },
        "spec": {"taints": [{"key": MARK, "value": "fake", "effect": "NoSchedule"}]},
        "status": {"allocatable": ROOM, "capacity": ROOM},
    }


def placement() -> Object:
    """The part of an MLflowServer's spec that puts its pods there."""
    toleration = {"key": MARK, "operator": "Exists", "effect": "NoSchedule"}
    return {"podTemplate": {"spec": {"nodeSelector": {"type": "kwok"}, "tolerations": [toleration]}}}


def _ready(kube: Kube) -> bool:
    conditions = (kube.need("Node", NODE).get("status") or {}).get("conditions") or []
    return any(c["type"] == "Ready" and c["status"] == "True" for c in conditions)
