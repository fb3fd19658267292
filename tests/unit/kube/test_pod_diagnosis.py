"""The diagnosis of a pod contains the cause and the remedy."""

import pytest

from mlflow_operator.kube import labels
from mlflow_operator.kube.objects import Object
from mlflow_operator.kube.pod_diagnosis import diagnose
from mlflow_operator.status.conditions import Reason


def pod(
    state: Object,
    last: Object | None = None,
    conditions: list[Object] | None = None,
    component: str = labels.SERVER_POD,
) -> Object:
    """Return a pod with one container in this state."""
    return {
        "metadata": {"name": "a-1", "namespace": "team", "labels": labels.for_component("a", component)},
        "status": {
            "conditions": conditions or [],
            "containerStatuses": [
                {"name": "mlflow", "image": "x:1", "ready": False, "state": state, "lastState": last or {}}
            ],
        },
    }


def pod_on_lost_node(owner: str, *, deleted: bool = False, **spec: object) -> Object:
    """Return a pod as it stays after its node is lost: the node controller only changes the condition Ready."""
    lost = pod(
        {"running": {}},
        conditions=[
            {"type": "Initialized", "status": "True"},
            {"type": "ContainersReady", "status": "True"},
            {"type": "Ready", "status": "False"},
        ],
    )
    lost["metadata"]["ownerReferences"] = [{"kind": owner, "name": "a"}]
    if deleted:
        lost["metadata"]["deletionTimestamp"] = "2026-01-01T00:00:00Z"
    lost["status"]["containerStatuses"][0]["ready"] = True
    return lost | {"spec": {"nodeName": "node-1", **spec}}


CASES = {
    "lost node, server": (
        pod_on_lost_node("ReplicaSet"),
        Reason.NODE_UNREACHABLE,
        "kubectl delete pod -n team a-1",
    ),
    "lost node, store": (
        pod_on_lost_node("StatefulSet", deleted=True),
        Reason.NODE_UNREACHABLE,
        "kubectl taint node node-1 node.kubernetes.io/out-of-service=nodeshutdown:NoExecute",
    ),
    "lost node, job": (
        pod_on_lost_node("Job", deleted=True),
        Reason.NODE_UNREACHABLE,
        'Node "node-1" does not respond',
    ),
    "image pull": (
        pod({"waiting": {"reason": "ImagePullBackOff", "message": "not found"}}),
        Reason.IMAGE_PULL_FAILED,
        "x:1",
    ),
    "missing secret": (
        pod({"waiting": {"reason": "CreateContainerConfigError", "message": 'secret "s" not found'}}),
        Reason.SECRET_NOT_FOUND,
        'secret "s" not found',
    ),
    "missing config map": (
        pod({"waiting": {"reason": "CreateContainerConfigError", "message": 'configmap "c" not found'}}),
        Reason.SECRET_NOT_FOUND,
        'configmap "c" not found. Create the missing object',
    ),
    "missing key": (
        pod(
            {
                "waiting": {
                    "reason": "CreateContainerConfigError",
                    "message": "couldn't find key k in Secret team/s",
                }
            }
        ),
        Reason.SECRET_KEY_MISSING,
        "couldn't find key k in Secret team/s. Add the key",
    ),
    "image runs as root": (
        pod(
            {
                "waiting": {
                    "reason": "CreateContainerConfigError",
                    "message": (
                        "container has runAsNonRoot and image will run as root "
                        '(pod: "a-1_team(5d6c)", container: mlflow)'
                    ),
                }
            }
        ),
        Reason.OPERATION_REFUSED,
        "cannot be created: container has runAsNonRoot and image will run as root. Fix",
    ),
    "out of memory, server": (
        pod({"waiting": {}}, {"terminated": {"exitCode": 137, "reason": "OOMKilled"}}),
        Reason.SERVER_CRASHING,
        "spec.workers",
    ),
    "out of memory, database": (
        pod(
            {"waiting": {}},
            {"terminated": {"exitCode": 137, "reason": "OOMKilled"}},
            component=labels.DATABASE_POD,
        ),
        Reason.SERVER_CRASHING,
        "Raise spec.database.embedded.resources.limits.memory.",
    ),
    "message without a period": (
        pod({"waiting": {"reason": "CreateContainerConfigError", "message": 'secret "s" not found'}}),
        Reason.SECRET_NOT_FOUND,
        '"s" not found. Create',
    ),
    "crash": (
        pod({"waiting": {}}, {"terminated": {"exitCode": 1, "message": "one\nboom\n"}}),
        Reason.SERVER_CRASHING,
        "boom",
    ),
    "exit code 0": (
        pod({"waiting": {}}, {"terminated": {"exitCode": 0, "message": "bye"}}),
        Reason.SERVER_CRASHING,
        "kubectl logs -n team a-1 -c mlflow --previous",
    ),
    "insufficient cpu": (
        pod(
            {"waiting": {}},
            conditions=[{"type": "PodScheduled", "reason": "Unschedulable", "message": "Insufficient cpu."}],
        ),
        Reason.UNSCHEDULABLE,
        "Insufficient cpu",
    ),
    "image for another architecture": (
        pod(
            {"waiting": {}},
            {"terminated": {"exitCode": 255, "message": "exec /usr/local/bin/mlflow: exec format error"}},
        ),
        Reason.SERVER_CRASHING,
        "x:1 has no variant for the CPU architecture of its node",
    ),
    "release without a -full image": (
        {
            **pod({}),
            "status": {
                "containerStatuses": [
                    {
                        "name": "mlflow",
                        "image": "ghcr.io/mlflow/mlflow:v2.10.0-full",
                        "state": {"waiting": {"reason": "ErrImagePull", "message": "not found"}},
                    }
                ]
            },
        },
        Reason.IMAGE_PULL_FAILED,
        "releases before 3.9 have no image with the tag -full",
    ),
    "no variant in the registry": (
        pod(
            {"waiting": {"reason": "ErrImagePull", "message": "no match for platform in manifest: not found"}}
        ),
        Reason.IMAGE_PULL_FAILED,
        "kubernetes.io/arch",
    ),
    "volume that ignores fsGroup": (
        pod(
            {"waiting": {}},
            {"terminated": {"exitCode": 1, "message": "mkdir: cannot create directory: Permission denied"}},
            component=labels.DATABASE_POD,
        ),
        Reason.SERVER_CRASHING,
        "spec.database.embedded.storage.storageClassName",
    ),
    "volume in another zone": (
        pod(
            {"waiting": {}},
            conditions=[
                {
                    "type": "PodScheduled",
                    "reason": "Unschedulable",
                    "message": "0/2 nodes are available: 2 node(s) had volume node affinity conflict.",
                }
            ],
        ),
        Reason.UNSCHEDULABLE,
        "so that the pod can run where the volume is",
    ),
    "unbound volume": (
        pod(
            {"waiting": {}},
            conditions=[
                {
                    "type": "PodScheduled",
                    "reason": "Unschedulable",
                    "message": "0/1 nodes are available: pod has unbound immediate PersistentVolumeClaims.",
                }
            ],
        ),
        Reason.VOLUME_PENDING,
        "kubectl describe pvc -n team",
    ),
}


@pytest.mark.parametrize("case", CASES)
def test_failure_has_reason_and_remedy(case: str) -> None:
    """Users must not need to inspect the pods themselves."""
    diagnosed_pod, reason, expected_text = CASES[case]
    diagnosis = diagnose([diagnosed_pod])
    assert diagnosis
    assert diagnosis.reason is reason
    assert expected_text in diagnosis.message


def test_replaced_pod_on_a_lost_node_is_ignored() -> None:
    """A ReplicaSet does not wait for it: only the replacement is relevant."""
    assert diagnose([pod_on_lost_node("ReplicaSet", deleted=True)]) is None


def test_readiness_gate_is_not_a_lost_node() -> None:
    """A load balancer controller sets the pod's condition, for example, after the containers are ready."""
    gated = pod_on_lost_node("ReplicaSet", readinessGates=[{"conditionType": "target-health"}])
    assert diagnose([gated]) is None


def test_starting_pod_is_not_a_failure() -> None:

    assert diagnose([pod({"waiting": {"reason": "ContainerCreating"}}), pod({"running": {}})]) is None


def test_message_is_the_same_during_image_pull_backoff() -> None:
    """The kubelet alternates between ErrImagePull and ImagePullBackOff. Each change would be an Event."""
    cause = "failed to resolve reference: not found"
    pulling = pod({"waiting": {"reason": "ErrImagePull", "message": cause}})
    backing_off = pod(
        {
            "waiting": {
                "reason": "ImagePullBackOff",
                "message": f'Back-off pulling image "x:1": ErrImagePull: {cause}',
            }
        }
    )
    assert diagnose([pulling]) == diagnose([backing_off])


def test_evicted_pod_is_ignored() -> None:
    """An evicted pod stays listed for days, and its termination is not relevant for its replacement."""
    evicted = pod({"terminated": {"exitCode": 137, "message": "boom"}})
    evicted["status"]["phase"] = "Failed"
    assert diagnose([evicted]) is None


def test_message_is_the_same_for_repeated_crashes() -> None:
    """MLflow's log lines start with a timestamp."""
    crashes = [
        pod({"waiting": {}}, {"terminated": {"exitCode": 1, "message": f"2026/11/21 14:0{n}:00 ERROR boom"}})
        for n in range(2)
    ]
    assert diagnose(crashes[:1]) == diagnose(crashes[1:])
