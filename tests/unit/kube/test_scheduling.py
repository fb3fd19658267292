"""Why no node takes a pod: which resource is short, how much was asked for, and the same words at each try."""

import pytest

from mlflow_operator.kube.objects import Object
from mlflow_operator.kube.scheduling import sentence

POD: Object = {
    "spec": {
        "containers": [
            {"resources": {"requests": {"cpu": "250m", "memory": "100Gi"}}},
            {"resources": {"requests": {"memory": "64Mi"}}},
            {},
        ]
    }
}

SAID = {
    "0/1 nodes are available: 1 Insufficient memory. preemption: 0/1 nodes are available: 1 No preemption victims "
    "found for incoming pod.": "Insufficient memory (it asks for 100Gi + 64Mi)",
    "0/7 nodes are available: 3 Insufficient cpu, 4 node(s) had untolerated taint {a.b/c: d}. no new claims to "
    "deallocate, preemption: not eligible.": "Insufficient cpu (it asks for 250m), had untolerated taint {a.b/c: d}",
    "0/2 nodes are available: 2 Insufficient nvidia.com/gpu.": "Insufficient nvidia.com/gpu",
    "0/1 nodes are available: 1 node(s) were unschedulable.": "were unschedulable",
    "no nodes available to schedule pods": "no nodes available to schedule pods",
    "": "no reason given",
}


@pytest.mark.parametrize("said", SAID)
def test_each_obstacle_is_named_with_what_the_pod_asks_for(said: str) -> None:
    """And nothing of how many nodes there were, or of preemption."""
    assert sentence(POD, said) == SAID[said]


def test_nodes_that_come_and_go_are_no_news() -> None:
    """A cluster that scales by itself would write a status with each of them."""
    few = "0/3 nodes are available: 1 Insufficient cpu, 2 Insufficient memory."
    many = "0/9 nodes are available: 4 Insufficient memory, 5 Insufficient cpu."
    assert sentence(POD, few) == sentence(POD, many)
