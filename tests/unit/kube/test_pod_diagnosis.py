"""What is wrong with a pod, in a sentence that names the way out."""

import pytest

from mlflow_operator.kube import labels
from mlflow_operator.kube.objects import Object
from mlflow_operator.kube.pod_diagnosis import of_pods
from mlflow_operator.status.conditions import Reason


def pod(
    state: Object,
    last: Object | None = None,
    conditions: list[Object] | None = None,
    component: str = labels.SERVER_POD,
) -> Object:
    """A pod with one container in that state."""
    return {
        "metadata": {"name": "a-1", "namespace": "team", "labels": labels.owned("a", component)},
        "status": {
            "conditions": conditions or [],
            "containerStatuses": [
                {"name": "mlflow", "image": "x:1", "ready": False, "state": state, "lastState": last or {}}
            ],
        },
    }


CASES = {
    "image": (
        pod({"waiting": {"reason": "ImagePullBackOff", "message": "not found"}}),
        Reason.IMAGE_PULL_FAILED,
        "x:1",
    ),
    "secret": (
        pod({"waiting": {"reason": "CreateContainerConfigError", "message": 'secret "s" not found'}}),
        Reason.SECRET_NOT_FOUND,
        'secret "s" not found',
    ),
    "memory": (
        pod({"waiting": {}}, {"terminated": {"exitCode": 137, "reason": "OOMKilled"}}),
        Reason.SERVER_CRASHING,
        "spec.workers",
    ),
    "memory of the database": (
        pod(
            {"waiting": {}},
            {"terminated": {"exitCode": 137, "reason": "OOMKilled"}},
            component=labels.DATABASE_POD,
        ),
        Reason.SERVER_CRASHING,
        "Raise spec.database.embedded.resources.limits.memory.",
    ),
    "a sentence without an end": (
        pod({"waiting": {"reason": "CreateContainerConfigError", "message": 'secret "s" not found'}}),
        Reason.SECRET_NOT_FOUND,
        '"s" not found. Create',
    ),
    "crash": (
        pod({"waiting": {}}, {"terminated": {"exitCode": 1, "message": "one\nboom\n"}}),
        Reason.SERVER_CRASHING,
        "boom",
    ),
    "exit code 0 proves nothing": (
        pod({"waiting": {}}, {"terminated": {"exitCode": 0, "message": "bye"}}),
        Reason.SERVER_CRASHING,
        "kubectl logs -n team a-1 -c mlflow --previous",
    ),
    "no room": (
        pod(
            {"waiting": {}},
            conditions=[{"type": "PodScheduled", "reason": "Unschedulable", "message": "Insufficient cpu."}],
        ),
        Reason.UNSCHEDULABLE,
        "Insufficient cpu",
    ),
    "no volume": (
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
def test_each_fault_gets_its_reason_and_a_way_out(case: str) -> None:
    """Users must not have to read pods themselves."""
    found, reason, says = CASES[case]
    finding = of_pods([found])
    assert finding
    assert finding.reason is reason
    assert says in finding.message


def test_a_pod_on_its_way_is_no_fault() -> None:
    """Starting is not crashing."""
    assert of_pods([pod({"waiting": {"reason": "ContainerCreating"}}), pod({"running": {}})]) is None


def test_a_pull_that_is_tried_again_is_no_news() -> None:
    """Kubelet goes to and fro between trying and waiting; that would be an Event each time."""
    why = "failed to resolve reference: not found"
    tries = pod({"waiting": {"reason": "ErrImagePull", "message": why}})
    waits = pod(
        {
            "waiting": {
                "reason": "ImagePullBackOff",
                "message": f'Back-off pulling image "x:1": ErrImagePull: {why}',
            }
        }
    )
    assert of_pods([tries]) == of_pods([waits])


def test_an_evicted_pod_is_history() -> None:
    """It stays listed for days, and its end says nothing of the pod that took its place."""
    evicted = pod({"terminated": {"exitCode": 137, "message": "boom"}})
    evicted["status"]["phase"] = "Failed"
    assert of_pods([evicted]) is None


def test_a_crash_that_repeats_is_told_once() -> None:
    """MLflow's lines begin with the time."""
    crashes = [
        pod({"waiting": {}}, {"terminated": {"exitCode": 1, "message": f"2026/11/21 14:0{n}:00 ERROR boom"}})
        for n in range(2)
    ]
    assert of_pods(crashes[:1]) == of_pods(crashes[1:])
