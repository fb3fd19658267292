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
from collections.abc import Callable, Collection, Iterable, Sequence
from dataclasses import dataclass

from mlflow_operator.components.deletion.retained_event import DATA_KEPT, retained_objects
from mlflow_operator.kube import finalizer, json_patch, kinds, labels
from mlflow_operator.kube.client import Conflict, Forbidden, KubernetesClient, NotFound
from mlflow_operator.kube.events import Events
from mlflow_operator.kube.objects import Object

logger = logging.getLogger(__name__)

_MAX_ATTEMPTS = 5
"""Attempts for one resource if another client changes its finalizers at the same time."""


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

    `namespaces` empty: all namespaces, and the platforms. Operators that watch selected namespaces add no finalizer to
    platforms: that of a platform belongs to another operator. `operator` None: it is already stopped. Raises the errors
    of the API server.
    """
    if operator:
        await _stop_operator(cluster, operator, report)
    events = Events(cluster)
    servers = await _servers(cluster, namespaces)
    with_finalizer = [server for server in servers if finalizer.is_present(server)]
    for server in with_finalizer:
        await _release_server(cluster, events, server, report)
    if not namespaces:
        await _release_platforms(cluster, servers, report)
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


async def _release_platforms(
    cluster: KubernetesClient, servers: Iterable[Object], report: Callable[[str], None]
) -> None:
    """Remove the finalizer of every platform, and report which servers still use it.

    A platform that is being deleted disappears then, although servers use it: otherwise, it would wait forever, and so
    would the deletion of the CRD. Their data on its stores is kept.
    """
    try:
        platforms = await cluster.list(kinds.MLFLOWPLATFORM)
    except (Forbidden, NotFound):
        return  # Without the CRD or the permission, this operator added none.
    users: dict[str, list[str]] = {}
    for server in servers:
        recorded = (server.get("status") or {}).get("platform") or {}
        users.setdefault(str(recorded.get("name")), []).append(_full_name(server))
    for platform in platforms:
        if not finalizer.is_present(platform, labels.PLATFORM_FINALIZER):
            continue
        name = platform["metadata"]["name"]
        try:
            is_removed = await _remove_finalizer(cluster, platform, labels.PLATFORM_FINALIZER)
        except Forbidden as error:
            report(
                f"MLflowPlatform {name}: The finalizer is not removed, and deletion waits for an operator: {error}."
            )
            continue
        if is_removed:
            is_deleted = bool(platform["metadata"].get("deletionTimestamp"))
            message = _platform_message(sorted(users.get(name, ())), is_deleted=is_deleted)
            report(f"MLflowPlatform {name}: {message}")


def _platform_message(users: Sequence[str], *, is_deleted: bool) -> str:
    if not is_deleted:
        return (
            "The operator is being uninstalled. Until an operator runs again, deleting this resource does not wait for "
            "the servers that use it."
        )
    if not users:
        return "Its deletion no longer waits for an operator. No server uses it."
    return (
        f"Its deletion no longer waits for the servers that use it: {', '.join(users)}. They keep running with their "
        "data. Create it again with the same stores before you install an operator again."
    )


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


async def _release_server(
    cluster: KubernetesClient, events: Events, server: Object, report: Callable[[str], None]
) -> None:
    if not await _remove_finalizer(cluster, server, labels.FINALIZER):
        return
    retained = await retained_objects(server, cluster) or "nothing"
    message = (
        "The operator is being uninstalled. Until an operator runs again, spec.deletionPolicy Delete has the "
        f"effect of Retain: deleting this resource deletes none of its data. Kept: {retained}."
    )
    report(f"{_full_name(server)}: {message}")
    await events.publish(server, False, DATA_KEPT, message)


async def _remove_finalizer(cluster: KubernetesClient, resource: Object, name: str) -> bool:
    """Remove the finalizer `name`. False if the resource is deleted, or no longer has it."""
    observed = resource
    for _ in range(_MAX_ATTEMPTS):
        try:
            await finalizer.remove(observed, cluster, name)
        except NotFound:
            return False
        except Conflict:
            meta = resource["metadata"]
            current = await cluster.get(kinds.of(resource), meta.get("namespace"), meta["name"])
            if current is None or not finalizer.is_present(current, name):
                return False
            observed = current
            continue
        return True
    raise Conflict(f"{resource['kind']} {_full_name(resource)}: another client keeps changing its finalizers")


def _full_name(resource: Object) -> str:
    """The namespace, if it has one, and the name."""
    meta = resource["metadata"]
    return "/".join(part for part in (meta.get("namespace"), meta["name"]) if part)
