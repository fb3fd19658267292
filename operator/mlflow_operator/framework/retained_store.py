"""Whether data of an embedded store exists or is lost, as far as objects show it whose labels or owner are missing."""

from mlflow_operator.framework.component import ReconcileContext
from mlflow_operator.kube import kinds
from mlflow_operator.kube.apply import is_adoptable, label_command
from mlflow_operator.kube.kinds import Kind
from mlflow_operator.kube.objects import Object
from mlflow_operator.model.names import StoreNames


async def exists(context: ReconcileContext, kind: Kind, name: str) -> bool:
    """Whether an object of this name exists, with or without labels. Sends a request only if it is not observed."""
    if context.observed.get(kind, name):
        return True
    if context.is_absent(kind, name):
        return False
    return await context.deps.cluster.get(kind, context.server.owner.namespace, name) is not None


def restored_workloads(context: ReconcileContext, store: StoreNames) -> list[Object]:
    """The StatefulSet of the store and the Deployment, if they come from a cluster backup and are not adopted yet.

    The operator creates them after the data of the store. If one exists, the server is therefore not new, even if its
    status is lost.
    """
    names = ((kinds.STATEFULSET, store.stateful_set), (kinds.DEPLOYMENT, context.server.names.deployment))
    observed = filter(None, (context.observed.get(kind, name) for kind, name in names))
    return [obj for obj in observed if is_adoptable(obj, context.observed.resource)]


def restore_message(store: StoreNames, workloads: list[Object]) -> str:
    """Sentences about restored workloads without their data, and what to do."""
    return (
        f"{as_text(workloads)} exists without its data. This is normal while a backup of the cluster is restored. "
        f'Restore Secret "{store.secret}" and PersistentVolumeClaim "{store.volume}" with its volume, both with their '
        "labels."
    )


def as_text(workloads: list[Object]) -> str:
    """Kinds and names of workloads."""
    return " and ".join(f'{obj["kind"]} "{obj["metadata"]["name"]}"' for obj in workloads)


def unlabelled_volume_hint(context: ReconcileContext, store: StoreNames) -> str:
    """A sentence with a leading space if the existing volume lacks the labels of the server, else an empty string."""
    if context.observed.get(kinds.PVC, store.volume):
        return ""
    command = label_command([(kinds.PVC.kind, store.volume)], context.observed.resource)
    return (
        f" The volume does not have the labels of this MLflowServer. If it contains its data, run: {command}"
    )
