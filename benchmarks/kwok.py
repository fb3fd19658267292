"""A node whose pods are simulated by kwok: the operator's work on many servers, without the memory of their pods.

Uses features of kwok 0.7 only.
"""

import subprocess
from collections.abc import Iterator
from contextlib import contextmanager

import yaml
from tests.e2e.kube import Kube, Object

from benchmarks.waits import Waits

NODE = "bench-pretending"
BUILD = "python3 -m tests.cluster test-tools"
MARK = "kwok.x-k8s.io/node"
STAGE_API = "kwok.x-k8s.io/v1alpha1"
READY = """
conditions:
- type: Ready
  status: "True"
  reason: Pretending
  message: kwok keeps it
  lastHeartbeatTime: {{ Now | Quote }}
  lastTransitionTime: {{ Now | Quote }}
addresses:
- type: InternalIP
  address: {{ NodeIP | Quote }}
"""
RUNNING = """
phase: Running
startTime: {{ Now | Quote }}
podIP: {{ PodIPWith .spec.nodeName false .metadata.uid .metadata.name .metadata.namespace | Quote }}
conditions:
{{ range $kind := list "Initialized" "ContainersReady" "Ready" }}
- type: {{ $kind }}
  status: "True"
  lastTransitionTime: {{ Now | Quote }}
{{ end }}
containerStatuses:
{{ range .spec.containers }}
- name: {{ .name | Quote }}
  image: {{ .image | Quote }}
  imageID: ""
  ready: true
  started: true
  restartCount: 0
  state: {running: {startedAt: {{ Now | Quote }}}}
{{ end }}
"""
"""Templates of the status of a node and a pod, in kwok's syntax."""

ROOM = {"cpu": "1000", "memory": "4Ti", "pods": "1000", "ephemeral-storage": "4Ti"}


@contextmanager
def pretending(waits: Waits) -> Iterator[None]:
    """Creates the node, and runs kwok, which simulates its pods, for as long as the context lasts."""
    kube = waits.kube
    program = kube.settings.bin / "kwok"
    if not program.exists():
        raise RuntimeError(f"{program} does not exist. To build it, run: {BUILD}")
    log = kube.settings.root / "out" / "bench" / "kwok.log"
    log.parent.mkdir(parents=True, exist_ok=True)
    config = log.with_suffix(".yaml")
    config.write_text(yaml.safe_dump_all(stages()))
    kube.apply(node())
    argv = [
        str(program),
        f"--config={config}",
        f"--kubeconfig={kube.settings.kubeconfig}",
        f"--manage-nodes-with-annotation-selector={MARK}=fake",
        "--node-lease-duration-seconds=40",
    ]
    with log.open("w") as out, subprocess.Popen(argv, env=kube.env, stdout=out, stderr=out) as process:
        try:
            waits.until("the simulated node is ready", lambda: _ready(kube), 60)
            yield
        finally:
            process.terminate()
            kube.kubectl("delete", "node", NODE, "--ignore-not-found")


def node() -> Object:
    """The node: large enough for all pods, and tainted, so that no other pods are scheduled on it."""
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


def stages() -> list[Object]:
    """Stages of the node and its pods: Ready and Running at once, and removed at once when they are deleted."""
    going = ".metadata.deletionTimestamp"
    ready = '.status.conditions.[] | select( .type == "Ready" ) | .status'
    return [
        _stage("node-ready", "Node", [_where(ready, "NotIn", "True")], {"statusTemplate": READY}),
        _stage(
            "pod-running",
            "Pod",
            [_where(going, "DoesNotExist"), _where(ready, "NotIn", "True")],
            {"statusTemplate": RUNNING},
        ),
        # pods of Jobs have a finalizer
        _stage("pod-gone", "Pod", [_where(going, "Exists")], {"finalizers": {"empty": True}, "delete": True}),
    ]


def _stage(name: str, kind: str, where: list[Object], then: Object) -> Object:
    return {
        "apiVersion": STAGE_API,
        "kind": "Stage",
        "metadata": {"name": name},
        "spec": {
            "resourceRef": {"apiGroup": "v1", "kind": kind},
            "selector": {"matchExpressions": where},
            "next": then,
        },
    }


def _where(key: str, operator: str, *values: str) -> Object:
    found: Object = {"key": key, "operator": operator}
    return found | ({"values": list(values)} if values else {})


def placement() -> Object:
    """The part of an MLflowServer's spec by which its pods are scheduled on the simulated node."""
    toleration = {"key": MARK, "operator": "Exists", "effect": "NoSchedule"}
    return {"podTemplate": {"spec": {"nodeSelector": {"type": "kwok"}, "tolerations": [toleration]}}}


def _ready(kube: Kube) -> bool:
    conditions = (kube.need("Node", NODE).get("status") or {}).get("conditions") or []
    return any(c["type"] == "Ready" and c["status"] == "True" for c in conditions)
