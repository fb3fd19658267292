"""A node whose pods are simulated by kwok: the operator's work on many servers, without the memory of their pods."""

import subprocess
from collections.abc import Iterator
from contextlib import contextmanager

from tests.e2e.kube import Kube, Object
from tests.integration import kwok

from benchmarks.waits import Waits

NODE = "bench-pretending"
BUILD = "python3 -m tests.cluster test-tools"


@contextmanager
def pretending(waits: Waits) -> Iterator[None]:
    """Creates the node, and runs kwok, which simulates its pods, for as long as the context lasts."""
    kube = waits.kube
    program = kube.settings.bin / "kwok"
    if not program.exists():
        raise RuntimeError(f"{program} does not exist. To build it, run: {BUILD}")
    log = kube.settings.root / "out" / "bench" / "kwok.log"
    log.parent.mkdir(parents=True, exist_ok=True)
    kube.apply(node())
    argv = [str(program), *kwok.arguments(log.with_suffix(".yaml"), kube.settings.kubeconfig)]
    with log.open("w") as out, subprocess.Popen(argv, env=kube.env, stdout=out, stderr=out) as process:
        try:
            waits.until("the simulated node is ready", lambda: _ready(kube), 60)
            yield
        finally:
            process.terminate()
            kube.kubectl("delete", "node", NODE, "--ignore-not-found")


def node() -> Object:
    """The node, tainted, so that no other pods are scheduled on it."""
    taint = {"key": kwok.ANNOTATION, "value": "fake", "effect": "NoSchedule"}
    return kwok.node(NODE, {"type": "kwok"}) | {"spec": {"taints": [taint]}}


def placement() -> Object:
    """The part of an MLflowServer's spec by which its pods are scheduled on the simulated node."""
    toleration = {"key": kwok.ANNOTATION, "operator": "Exists", "effect": "NoSchedule"}
    return {"podTemplate": {"spec": {"nodeSelector": {"type": "kwok"}, "tolerations": [toleration]}}}


def _ready(kube: Kube) -> bool:
    conditions = (kube.need("Node", NODE).get("status") or {}).get("conditions") or []
    return any(c["type"] == "Ready" and c["status"] == "True" for c in conditions)
