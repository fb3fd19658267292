"""Stop the pods of a server and delete its data in phases, up to the first phase that is not complete.

The deletion can be interrupted at any point; the next call resumes it.
"""

import logging
from dataclasses import replace

from mlflow_operator import api
from mlflow_operator.components.deletion import remote
from mlflow_operator.framework import platform_choice
from mlflow_operator.framework.component import ReconcileContext
from mlflow_operator.framework.dependencies import Dependencies
from mlflow_operator.framework.observe import INITIAL_MEMORY_BYTES, ObservedState, Reader, observe
from mlflow_operator.kube import json_patch, kinds, labels, pod_diagnosis
from mlflow_operator.kube.apply import belongs_to, is_adoptable
from mlflow_operator.kube.client import NotFound
from mlflow_operator.kube.objects import Object
from mlflow_operator.model import owned_objects, retained_data
from mlflow_operator.model.platform_choice import check_location
from mlflow_operator.model.resolve import cluster_defaults, resolve
from mlflow_operator.model.retained_data import RemovalProgress
from mlflow_operator.model.server import Server

logger = logging.getLogger(__name__)


async def teardown(resource: Object, deps: Dependencies) -> RemovalProgress:
    """Run the phases up to the first one that is not complete.

    The pods are stopped first, so that they no longer write. Then the operator deletes the provisioned database and its
    role, the artifacts, the Secrets, and the volumes of the embedded stores. It never deletes what was not created for
    this server, such as an external database or a bucket of another owner.

    Raises InvalidResource if the resource cannot be parsed, ReconcileError if an external system cannot be used.
    """
    server = await _resolve_server(resource, deps)
    async with deps.memory.reserve(server.owner.namespace, INITIAL_MEMORY_BYTES) as memory:
        observed = await _adopt(await observe(resource, deps.cluster, memory), server, deps)
        reader = Reader(deps.cluster, server.owner.namespace, observed.owned, memory)
        return await _run_phases(ReconcileContext(observed, server, reader, deps))


async def _run_phases(context: ReconcileContext) -> RemovalProgress:
    progress = RemovalProgress()
    for phase in (
        _stop_servers,
        remote.delete_database,
        remote.delete_artifacts,
        _stop_stores,
        _delete_secrets,
        _delete_volumes,
    ):
        progress.waiting_for = await phase(context, progress)
        if progress.waiting_for:
            break
    return progress


async def _adopt(observed: ObservedState, server: Server, deps: Dependencies) -> ObservedState:
    """Adopt objects of a server that was restored from a backup of the cluster and deleted before its first reconcile.

    Otherwise, its pods would keep running, and the objects would remain.
    """
    owned = dict(observed.owned)
    for kind, name in owned_objects.all_disposable(server.names):
        obj = observed.get(kind, name)
        if obj and is_adoptable(obj, observed.resource) and not obj["metadata"].get("deletionTimestamp"):
            owned[kind.kind, name] = await deps.applier.adopt(obj, observed.resource)
    return replace(observed, owned=owned)


async def _resolve_server(resource: Object, deps: Dependencies) -> Server:
    parsed = api.parse(resource)
    platform = await platform_choice.recorded(parsed, deps)
    server = resolve(parsed, cluster_defaults(deps.images, deps.cluster_domain, None), platform)
    # Nothing can be found, and so deleted, in another place.
    check_location(server, resource.get("status") or {})
    return server


async def _stop_servers(context: ReconcileContext, _: RemovalProgress) -> str | None:
    for deployment in context.observed.list(kinds.DEPLOYMENT):
        await _scale_to_zero(context, deployment)
    for cronjob in context.observed.list(kinds.CRONJOB):
        if belongs_to(cronjob, context.observed.resource, data=False):
            await _delete(context, cronjob)  # Kubernetes deletes its Jobs by their ownerReferences.
    for job in context.observed.list(kinds.JOB):
        is_own = belongs_to(job, context.observed.resource, data=False) or is_adoptable(
            job, context.observed.resource
        )
        if is_own and not job["metadata"].get("deletionTimestamp"):
            await context.deps.cluster.delete(job)
    components = (labels.SERVER_POD, *labels.JOB_PODS)
    return next(filter(None, (_remaining_pod(context, component) for component in components)), None)


async def _stop_stores(context: ReconcileContext, _: RemovalProgress) -> str | None:
    for stateful_set in context.observed.list(kinds.STATEFULSET):
        await _scale_to_zero(context, stateful_set)
    return _remaining_pod(context, labels.DATABASE_POD) or _remaining_pod(context, labels.ARTIFACT_STORE_POD)


async def _delete_secrets(context: ReconcileContext, progress: RemovalProgress) -> str | None:
    keys = context.server.names.encryption_secret
    for kind, name in retained_data.credentials(context.server.names):
        secret = context.observed.get(kind, name)
        if name != keys or not progress.keeps_database:
            await _delete(context, secret)
        elif secret:
            # Nothing else decrypts the gateway and webhook secrets in the database.
            progress.retained.append(f'the encryption keys of that database in Secret "{name}"')
    return None


async def _delete_volumes(context: ReconcileContext, _: RemovalProgress) -> str | None:
    claims = [
        claim
        for kind, name in retained_data.volumes(context.server.names)
        if (claim := context.observed.get(kind, name))
    ]
    for claim in claims:
        await _delete(context, claim)
    # Kubernetes keeps a claim while any pod uses it, including pods that do not belong to this server.
    claim_names = " and ".join(sorted(f'"{claim["metadata"]["name"]}"' for claim in claims))
    return (
        f"PersistentVolumeClaim {claim_names} to be deleted: it is kept while any pod uses it"
        if claim_names
        else None
    )


async def _scale_to_zero(context: ReconcileContext, workload: Object) -> None:
    is_terminating = workload["metadata"].get("deletionTimestamp")
    if (
        is_terminating
        or not workload["spec"].get("replicas")
        or not belongs_to(workload, context.observed.resource, data=False)
    ):
        return
    meta, replicas_patch = workload["metadata"], json_patch.replace("/spec/replicas", 0)
    try:
        await context.deps.cluster.json_patch(
            kinds.of(workload), meta["namespace"], meta["name"], [replicas_patch]
        )
    except NotFound:
        return
    logger.info("scaled %s %s/%s to 0", workload["kind"], meta["namespace"], meta["name"])


def _remaining_pod(context: ReconcileContext, component: str) -> str | None:
    """Describe the first pod that still runs. Terminating pods count, because they may still write."""
    pods = [*filter(pod_diagnosis.is_active, context.observed.list(kinds.POD, component))]
    if not pods:
        return None
    dependency, node = f'pod "{pods[0]["metadata"]["name"]}" to terminate', pod_diagnosis.lost_node(pods[0])
    if node is None:
        return dependency
    return f'{dependency} on node "{node}", which does not respond. {pod_diagnosis.lost_node_advice(node)}'


async def _delete(context: ReconcileContext, obj: Object | None) -> None:
    # Observed objects have the labels by which a server adopts its data, so they belong to this server.
    if obj is None or obj["metadata"].get("deletionTimestamp"):
        return
    await context.deps.cluster.delete(obj)
    logger.info("deleted %s %s/%s", obj["kind"], obj["metadata"]["namespace"], obj["metadata"]["name"])
