"""Stores that somebody deletes come back with everything in them. tests/integration has all other drift."""

from functools import partial

from tests.e2e import timeouts
from tests.e2e.mlflow_workload import Scientist
from tests.e2e.server import Server, eventually

GROUP = "shared"


def recreated(server: Server, name: str) -> bool:
    """Whether the StatefulSet exists and is not being deleted."""
    found = server.kube.get("StatefulSet", name)
    return found is not None and not found["metadata"].get("deletionTimestamp")


def test_work_is_still_there_after_all_of_it(shared: Server) -> None:
    """Volumes and credentials outlive the StatefulSets that use them."""
    scientist = Scientist(shared.url)
    work = scientist.work("drift")
    stores = ("database", "artifact-store")
    for name in (shared.names.postgres, shared.names.artifact_store):
        shared.kube.delete("StatefulSet", name)
        eventually(f"StatefulSet {name} is recreated", partial(recreated, shared, name), timeouts.REPAIRED)
    eventually("both stores run again", lambda: all(map(shared.pods, stores)), timeouts.ROLLED)
    shared.ready()
    scientist.finds(work)
