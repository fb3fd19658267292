"""Scheduler messages are reduced to the reasons and the requested resources, independent of node counts."""

import pytest

from mlflow_operator.kube.objects import Object
from mlflow_operator.kube.scheduling import describe

POD: Object = {
    "spec": {
        "containers": [
            {"resources": {"requests": {"cpu": "250m", "memory": "100Gi"}}},
            {"resources": {"requests": {"memory": "64Mi"}}},
            {},
        ]
    }
}

DESCRIPTIONS = {
    "0/1 nodes are available: 1 Insufficient memory. preemption: 0/1 nodes are available: 1 No preemption victims "
    "found for incoming pod.": "Insufficient memory (requested: 100Gi + 64Mi)",
    "0/7 nodes are available: 3 Insufficient cpu, 4 node(s) had untolerated taint {a.b/c: d}. no new claims to "
    "deallocate, preemption: not eligible.": "Insufficient cpu (requested: 250m), had untolerated taint {a.b/c: d}",
    "0/2 nodes are available: 2 Insufficient nvidia.com/gpu.": "Insufficient nvidia.com/gpu",
    "0/1 nodes are available: 1 node(s) were unschedulable.": "were unschedulable",
    "no nodes available to schedule pods": "no nodes available to schedule pods",
    "": "no reason given",
}


@pytest.mark.parametrize("message", DESCRIPTIONS)
def test_reasons_include_requested_resources(message: str) -> None:
    """Node counts and preemption results are left out."""
    assert describe(POD, message) == DESCRIPTIONS[message]


def test_description_does_not_depend_on_number_of_nodes() -> None:
    """With a cluster autoscaler every added or removed node would cause a status write."""
    small_cluster = "0/3 nodes are available: 1 Insufficient cpu, 2 Insufficient memory."
    large_cluster = "0/9 nodes are available: 4 Insufficient memory, 5 Insufficient cpu."
    assert describe(POD, small_cluster) == describe(POD, large_cluster)
