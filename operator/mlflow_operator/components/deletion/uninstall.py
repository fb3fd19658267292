"""Removal of all finalizers before the operator is uninstalled, so that no deletion waits for an operator that is gone.

The operator is stopped first, because it would add its finalizers again. Without the finalizer `deletionPolicy: Delete`
has the effect of Retain; an Event on each server and the output of the command report that.

Owns: the removal of the finalizer of every server, with an Event DataKept, and of every platform; the replicas of the
operator's Deployment.
Needs: nothing from other components.
Provides: `remove_all_finalizers` for the command `mlflow-operator remove-finalizers`.
"""

import asyncio
import logging
from collections.abc import Callable, Collection
from dataclasses import dataclass

from mlflow_operator.components.deletion.retained_event import DATA_KEPT, retained_objects
from mlflow_operator.kube import finalizer, json_patch, kinds, labels
from mlflow_operator.kube.client import Conflict, Forbidden, KubernetesClient, NotFound
from mlflow_operator.kube.events import Events
from mlflow_operator.kube.objects import Object

logger = logging.getLogger(__name__)

_MAX_ATTEMPTS = 5
"""Attempts for one server if another client changes its finalizers at the same time."""


@dataclass(frozen=True)
class OperatorDeployment:
    """The operator's own Deployment.

    `shutdown_timeout_seconds`: time for its pods to terminate. It exceeds their grace period of 30 s.
    """

    namespace: str
    name: str
    shutdown_timeout_seconds: float = 45.0
    poll_interval_seconds: float = 1.0


async def remove_all_finalizers(
    cluster: KubernetesClient,
    namespaces: Collection[str],
    operator: OperatorDeployment | None,
    report: Callable[[str], None],
) -> None:
    """Stop the operator, remove its finalizer from every server, and report for each server which data is kept.

    `namespaces` empty: all namespaces. `operator` None: it is already stopped. Raises the errors of the API server.
    """
    if operator:
        await _stop_operator(cluster, operator, report)
    events = Events(cluster)
    with_finalizer = [
        server for server in await _servers(cluster, namespaces) if finalizer.is_present(server)
    ]
    for server in with_finalizer:
        await _remove_finalizer(cluster, events, server, report)
    await _release_platforms(cluster)
    if not with_finalizer:
        report("No server has the operator's finalizer. Servers, volumes and Secrets are not changed.")


async def _servers(cluster: KubernetesClient, namespaces: Collection[str]) -> list[Object]:
    servers: list[Object] = []
    for namespace in namespaces or (None,):
        try:
            servers += await cluster.list(kinds.MLFLOWSERVER, namespace)
        except NotFound:
            continue  # The CRD is deleted, and every server with it.
    return servers


async def _release_platforms(cluster: KubernetesClient) -> None:
    """Remove the finalizers of platforms, which operators that watch all namespaces add."""
    try:
        platforms = await cluster.list(kinds.MLFLOWPLATFORM)
        for platform in platforms:
            if finalizer.is_present(platform, labels.PLATFORM_FINALIZER):
                await finalizer.remove(platform, cluster, labels.PLATFORM_FINALIZER)
    except (Forbidden, NotFound):
        return  # Without the CRD or the permission, this operator added none.


async def _stop_operator(
    cluster: KubernetesClient, operator: OperatorDeployment, report: Callable[[str], None]
) -> None:
    deployment = await cluster.get(kinds.DEPLOYMENT, operator.namespace, operator.name)
    if deployment is None:
        return
    replicas_patch = json_patch.replace("/spec/replicas", 0)
    await cluster.json_patch(kinds.DEPLOYMENT, operator.namespace, operator.name, [replicas_patch])
    selector = ",".join(
        f"{key}={value}" for key, value in deployment["spec"]["selector"]["matchLabels"].items()
    )
    deadline = asyncio.get_running_loop().time() + operator.shutdown_timeout_seconds
    while await cluster.list(kinds.POD, operator.namespace, selector):
        if asyncio.get_running_loop().time() > deadline:
            report(
                f"The operator's pods did not terminate within {operator.shutdown_timeout_seconds:.0f} s. Continuing."
            )
            return
        await asyncio.sleep(operator.poll_interval_seconds)
    report("The operator is stopped.")


async def _remove_finalizer(
    cluster: KubernetesClient, events: Events, server: Object, report: Callable[[str], None]
) -> None:
    namespace, name = server["metadata"]["namespace"], server["metadata"]["name"]
    for _ in range(_MAX_ATTEMPTS):
        try:
            await finalizer.remove(server, cluster)
        except NotFound:
            return
        except Conflict:
            observed = await cluster.get(kinds.MLFLOWSERVER, namespace, name)
            if observed is None or not finalizer.is_present(observed):
                return
            server = observed
            continue
        retained = await retained_objects(server, cluster) or "nothing"
        message = (
            "The operator is being uninstalled. Until an operator runs again, spec.deletionPolicy Delete has the "
            f"effect of Retain: deleting this resource deletes none of its data. Kept: {retained}."
        )
        report(f"{namespace}/{name}: {message}")
        await events.publish(server, False, DATA_KEPT, message)
        return
    raise Conflict(f"MLflowServer {namespace}/{name}: another client keeps changing its finalizers")
