"""What is said of a server that is gone: which of its data stays, and how it is taken back.

With `deletionPolicy: Retain` nothing holds a server that is deleted, so its last state is known from the watch alone.
"""

from mlflow_operator.framework.dependencies import Dependencies
from mlflow_operator.kube import finalizer, kinds
from mlflow_operator.kube.client import KubernetesClient
from mlflow_operator.kube.kinds import Kind
from mlflow_operator.kube.objects import Object
from mlflow_operator.model import retained_data
from mlflow_operator.model.names import Names

KEPT = "DataKept"
"""Reason of the Event; no condition has it, for nobody is left to have one."""


async def emit_retained_event(gone: Object, out: Dependencies) -> None:
    """One Event about a server that was deleted, if it left anything.

    Not about one that our finalizer held: how it ended was said before it was let go.
    """
    if finalizer.is_present(gone):
        return
    place = await out.cluster.get(kinds.NAMESPACE, None, gone["metadata"]["namespace"])
    if place is None or place["metadata"].get("deletionTimestamp"):
        return  # then nothing in it is kept
    left = await retained_objects(gone, out.cluster)
    if left:
        said = (
            f"Deleted; its data is kept: {left}. An MLflowServer of the same name and storage in this namespace takes "
            "all of it back, with the same passwords."
        )
        await out.events.publish(gone, True, KEPT, said)


async def retained_objects(resource: Object, cluster: KubernetesClient) -> str:
    """All data of a server's that is there and that nobody is deleting, in words; empty for none."""
    namespace, name = resource["metadata"]["namespace"], resource["metadata"]["name"]
    wanted: list[tuple[Kind, str]] = [
        *retained_data.volumes(Names(name)),
        *retained_data.credentials(Names(name)),
    ]
    found = [await cluster.get(kind, namespace, called) for kind, called in wanted]
    objects = [
        obj
        for obj in found
        if obj and retained_data.is_data_of(name, obj) and not obj["metadata"].get("deletionTimestamp")
    ]
    words = (retained_data.as_text(objects), retained_data.outside(resource.get("status") or {}))
    return "; ".join(part for part in words if part)
