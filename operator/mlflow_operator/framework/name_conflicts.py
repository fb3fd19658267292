"""Find all objects with names that an MLflowServer requires and that do not belong to it.

Only after the first conflict: the additional requests are not necessary otherwise.
"""

import asyncio

from mlflow_operator.framework.observe import ObservedState
from mlflow_operator.kube.apply import NameConflict, conflict_message, find_conflict
from mlflow_operator.kube.client import Forbidden, KubernetesClient
from mlflow_operator.kube.kinds import Kind
from mlflow_operator.model import owned_objects
from mlflow_operator.model.server import Server


async def message(
    server: Server, observed: ObservedState, cluster: KubernetesClient, first: NameConflict
) -> str:
    """One message about `first` and all other conflicts, so that a user does not find them one after the other."""

    async def conflict(kind: Kind, name: str, data: bool) -> NameConflict | None:
        obj = observed.get(kind, name)
        try:
            obj = obj or await cluster.get(kind, server.owner.namespace, name)
        except Forbidden:
            return None  # With a custom role, the message may name fewer objects.
        return find_conflict(obj, observed.resource, data=data) if obj else None

    found = await asyncio.gather(
        *(conflict(kind, name, False) for kind, name in owned_objects.disposable(server)),
        *(conflict(kind, name, True) for kind, name in owned_objects.data(server)),
    )
    return conflict_message([first, *filter(None, found)], observed.resource)
