"""Before the operator is uninstalled: nothing may wait for one that never comes back.

The operator is stopped first, or it would put its finalizers on again; then each is taken off. So `deletionPolicy:
Delete` becomes Retain, and that is said, on each server and to whoever uninstalls.
"""

import asyncio
import logging
from collections.abc import Callable, Collection
from dataclasses import dataclass

from mlflow_operator.components.deletion.retained_event import KEPT, retained_objects
from mlflow_operator.kube import finalizer, kinds
from mlflow_operator.kube.client import Conflict, KubernetesClient, NotFound
from mlflow_operator.kube.events import Events
from mlflow_operator.kube.objects import Object

logger = logging.getLogger(__name__)

_TRIES = 5
"""For one server whose finalizers somebody else changes at the same moment."""

_LOOK_SECONDS = 1.0


@dataclass(frozen=True)
class Deployed:
    """The operator's own Deployment. `seconds`: how long its pods may take to end; they are given 30."""

    namespace: str
    name: str
    seconds: float = 45.0


async def remove_all_finalizers(
    cluster: KubernetesClient,
    namespaces: Collection[str],
    operator: Deployed | None,
    say: Callable[[str], None],
) -> None:
    """Stops the operator, takes every finalizer of ours off, and says of each server what stays.

    `namespaces` empty: all. `operator` None: it is stopped already. Raises what the API server answers.
    """
    if operator:
        await _stop(cluster, operator, say)
    events = Events(cluster)
    held = [server for server in await _servers(cluster, namespaces) if finalizer.is_present(server)]
    for server in held:
        await _release(cluster, events, server, say)
    if not held:
        say("No server is held: nothing needs to be let go. Servers, volumes and Secrets stay as they are.")


async def _servers(cluster: KubernetesClient, namespaces: Collection[str]) -> list[Object]:
    found: list[Object] = []
    for namespace in namespaces or (None,):
        try:
            found += await cluster.list(kinds.MLFLOWSERVER, namespace)
        except NotFound:
            continue  # the definition is gone, and every server with it
    return found


async def _stop(cluster: KubernetesClient, operator: Deployed, say: Callable[[str], None]) -> None:
    live = await cluster.get(kinds.DEPLOYMENT, operator.namespace, operator.name)
    if live is None:
        return
    none = {"op": "replace", "path": "/spec/replicas", "value": 0}
    await cluster.json_patch(kinds.DEPLOYMENT, operator.namespace, operator.name, [none])
    chosen = ",".join(f"{key}={value}" for key, value in live["spec"]["selector"]["matchLabels"].items())
    deadline = asyncio.get_running_loop().time() + operator.seconds
    while await cluster.list(kinds.POD, operator.namespace, chosen):
        if asyncio.get_running_loop().time() > deadline:
            say(f"The operator's pods did not end within {operator.seconds:.0f} s; going on all the same.")
            return
        await asyncio.sleep(_LOOK_SECONDS)
    say("The operator is stopped.")


async def _release(
    cluster: KubernetesClient, events: Events, server: Object, say: Callable[[str], None]
) -> None:
    namespace, name = server["metadata"]["namespace"], server["metadata"]["name"]
    for _ in range(_TRIES):
        try:
            await cluster.json_patch(kinds.MLFLOWSERVER, namespace, name, finalizer.remove(server))
        except NotFound:
            return
        except Conflict:
            live = await cluster.get(kinds.MLFLOWSERVER, namespace, name)
            if live is None or not finalizer.is_present(live):
                return
            server = live
            continue
        left = await retained_objects(server, cluster) or "nothing"
        said = (
            "The operator is being uninstalled, so spec.deletionPolicy Delete counts as Retain until one runs again: "
            f"deleting this resource deletes none of its data. Kept: {left}."
        )
        say(f"{namespace}/{name}: {said}")
        await events.publish(server, False, KEPT, said)
        return
    raise Conflict(f"MLflowServer {namespace}/{name}: somebody keeps changing its finalizers")
