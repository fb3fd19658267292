"""A node whose pods are simulated by kwok: measures the operator with many servers, without the memory of pods."""

import subprocess
from collections.abc import Iterator
from contextlib import contextmanager

from tests.e2e.kube import Kube, Object
from tests.integration import kwok

from benchmarks.waits import Waits

NODE_NAME = "bench-pretending"
BUILD_COMMAND = "python3 -m tests.cluster test-tools"


@contextmanager
def simulated_node(waits: Waits) -> Iterator[None]:
    """Create the node, and run kwok, which simulates its pods, for the duration of the context."""
    kube = waits.kube
    program = kube.settings.bin / "kwok"
    if not program.exists():
        raise RuntimeError(f"{program} does not exist. To build it, run: {BUILD_COMMAND}")
    log = kube.settings.root / "out" / "bench" / "kwok.log"
    log.parent.mkdir(parents=True, exist_ok=True)
    kube.apply(node())
    argv = [str(program), *kwok.arguments(log.with_suffix(".yaml"), kube.settings.kubeconfig)]
    with log.open("w") as out, subprocess.Popen(argv, env=kube.env, stdout=out, stderr=out) as process:
        try:
            waits.wait_for("the simulated node is ready", lambda: _ready(kube), 60)
            yield
        finally:
            process.terminate()
            kube.kubectl("delete", "node", NODE_NAME, "--ignore-not-found")


def node() -> Object:
    """Return the node with a taint, so that no other pods are scheduled on it."""
    taint = {"key": kwok.ANNOTATION, "value": "fake", "effect": "NoSchedule"}
    return kwok.node(NODE_NAME, {"type": "kwok"}) | {"spec": {"taints": [taint]}}


def placement() -> Object:
    """Return the part of an MLflowServer's spec that schedules its pods on the simulated node."""
    toleration = {"key": kwok.ANNOTATION, "operator": "Exists", "effect": "NoSchedule"}
    return {"podTemplate": {"spec": {"nodeSelector": {"type": "kwok"}, "tolerations": [toleration]}}}


def _ready(kube: Kube) -> bool:
    conditions = (kube.require("Node", NODE_NAME).get("status") or {}).get("conditions") or []
    return any(c["type"] == "Ready" and c["status"] == "True" for c in conditions)
