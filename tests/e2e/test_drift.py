"""Deleted StatefulSets of stores are recreated with their data. tests/integration tests all other drift."""

from functools import partial

from tests.e2e import timeouts
from tests.e2e.mlflow_workload import Workload
from tests.e2e.server import Server, eventually

GROUP = "shared"


def is_recreated(server: Server, name: str) -> bool:
    """Whether the StatefulSet exists and is not being deleted."""
    found = server.kube.get("StatefulSet", name)
    return found is not None and not found["metadata"].get("deletionTimestamp")


def test_data_survives_deletion_of_store_statefulsets(shared_server: Server) -> None:
    """Volumes and credentials outlive their StatefulSets."""
    workload = Workload(shared_server.url)
    data = workload.log_data("drift")
    old_pods = {component: shared_server.pod(component) for component in ("database", "artifact-store")}
    for name in (shared_server.names.postgres, shared_server.names.artifact_store):
        shared_server.kube.delete("StatefulSet", name)
        eventually(
            f"StatefulSet {name} is recreated",
            partial(is_recreated, shared_server, name),
            timeouts.REPAIR_SECONDS,
        )
    # The garbage collector deletes the old pods later than their StatefulSets.
    for component, old in old_pods.items():
        shared_server.wait_replaced(component, old)
    shared_server.wait_ready()
    workload.check_data(data)
