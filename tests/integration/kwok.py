"""kwok simulates the kubelet of one node: pods are Running and Ready at once, and deleted pods are gone at once."""

from collections.abc import Collection, Mapping
from pathlib import Path

import yaml

from mlflow_operator.kube.objects import Object
from tests.apiserver.processes import Process, find

NODE = "simulated"
ANNOTATION = "kwok.x-k8s.io/node"

UNAVAILABLE_IMAGES = (
    "mirror.test:5000/team/mlflow:typo",
    "mirror.test:5000/team/mlflow:v3.17.2-full",
    "mirror.test:5000/team/postgres:17",
)
"""Images that the simulated node cannot pull."""

_NODE_READY = """
conditions:
- type: Ready
  status: "True"
  reason: Simulated
  message: simulated by kwok
  lastHeartbeatTime: {{ Now | Quote }}
  lastTransitionTime: {{ Now | Quote }}
addresses:
- type: InternalIP
  address: {{ NodeIP | Quote }}
"""
_POD_RUNNING = """
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
_IMAGE_PULL_FAILED = """
phase: Pending
startTime: {{ Now | Quote }}
conditions:
- type: Ready
  status: "False"
  reason: ContainersNotReady
  lastTransitionTime: {{ Now | Quote }}
containerStatuses:
{{ range .spec.containers }}
- name: {{ .name | Quote }}
  image: {{ .image | Quote }}
  imageID: ""
  ready: false
  started: false
  restartCount: 0
  state: {waiting: {reason: ImagePullBackOff, message: "not found"}}
{{ end }}
"""
"""Status of a node and of pods, as templates of kwok."""

_CAPACITY = {"cpu": "1000", "memory": "4Ti", "pods": "1000", "ephemeral-storage": "4Ti"}


def start(kubeconfig: Path, folder: Path) -> Process:
    """Start kwok for the simulated node."""
    config = folder / "kwok.yaml"
    argv = [find("kwok"), *arguments(config, kubeconfig, UNAVAILABLE_IMAGES)]
    return Process("kwok", argv, folder / "kwok.log")


def arguments(config: Path, kubeconfig: Path, unavailable_images: Collection[str] = ()) -> list[str]:
    """Return kwok's command-line arguments. Writes its configuration to `config`."""
    config.write_text(yaml.safe_dump_all(_stages(unavailable_images)))
    return [
        f"--config={config}",
        f"--kubeconfig={kubeconfig}",
        f"--manage-nodes-with-annotation-selector={ANNOTATION}=fake",
        "--node-lease-duration-seconds=40",
    ]


def node(name: str = NODE, labels: Mapping[str, str] | None = None) -> Object:
    """Return a simulated node with capacity for all pods."""
    return {
        "apiVersion": "v1",
        "kind": "Node",
        "metadata": {
            "name": name,
            "annotations": {ANNOTATION: "fake"},
            "labels": {"kubernetes.io/hostname": name, "kubernetes.io/os": "linux", **(labels or {})},
        },
        "status": {"allocatable": _CAPACITY, "capacity": _CAPACITY},
    }


def _stages(unavailable_images: Collection[str]) -> list[Object]:
    ready = '.status.conditions.[] | select( .type == "Ready" ) | .status'
    waiting = ".status.containerStatuses.[].state.waiting.reason"
    image, deletion = ".spec.containers.[].image", ".metadata.deletionTimestamp"
    exists = _expression(deletion, "DoesNotExist")
    running = [exists, _expression(ready, "NotIn", "True")]
    stages = [
        _stage("node-ready", "Node", [_expression(ready, "NotIn", "True")], {"statusTemplate": _NODE_READY}),
        # The Job controller's finalizer would keep the pod until the Job controller has counted it.
        _stage(
            "pod-gone",
            "Pod",
            [_expression(deletion, "Exists")],
            {"finalizers": {"empty": True}, "delete": True},
        ),
    ]
    if unavailable_images:
        running.append(_expression(image, "NotIn", *unavailable_images))
        failing = [
            exists,
            _expression(waiting, "DoesNotExist"),
            _expression(image, "In", *unavailable_images),
        ]
        stages.append(_stage("image-pull-failed", "Pod", failing, {"statusTemplate": _IMAGE_PULL_FAILED}))
    return [*stages, _stage("pod-running", "Pod", running, {"statusTemplate": _POD_RUNNING})]


def _stage(name: str, kind: str, where: list[Object], then: Object) -> Object:
    return {
        "apiVersion": "kwok.x-k8s.io/v1alpha1",
        "kind": "Stage",
        "metadata": {"name": name},
        "spec": {
            "resourceRef": {"apiGroup": "v1", "kind": kind},
            "selector": {"matchExpressions": where},
            "next": then,
        },
    }


def _expression(key: str, operator: str, *values: str) -> Object:
    found: Object = {"key": key, "operator": operator}
    return found | ({"values": list(values)} if values else {})
