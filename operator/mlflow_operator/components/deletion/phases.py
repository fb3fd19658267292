"""Deletes what goes with a server, part by part, in an order that can be cut off anywhere.

First the pods, so that nobody writes any more; then the role and database that were made for it; its files; its
Secrets; the volumes of embedded stores. What was not made for this server is never touched: an external database, a
bucket of somebody else's.
"""

import logging

from mlflow_operator import api
from mlflow_operator.components.deletion import remote
from mlflow_operator.framework.dependencies import Dependencies
from mlflow_operator.framework.observe import Reader, observe
from mlflow_operator.framework.step import ReconcileContext
from mlflow_operator.kube import kinds, labels, pod_diagnosis
from mlflow_operator.kube.apply import is_ours
from mlflow_operator.kube.client import NotFound
from mlflow_operator.kube.objects import Object
from mlflow_operator.model import retained_data
from mlflow_operator.model.resolve import cluster_defaults, resolve
from mlflow_operator.model.retained_data import RemovalProgress
from mlflow_operator.model.server import Server

logger = logging.getLogger(__name__)


async def teardown(resource: Object, out: Dependencies) -> RemovalProgress:
    """Goes on with the first part that is not done.

    Raises InvalidResource for a resource that can't be read, Fault for what is out of reach.
    """
    server = _server(resource, out)
    seen = await observe(resource, out.cluster)
    context = ReconcileContext(seen, server, Reader(out.cluster, server.owner.namespace), out)
    done = RemovalProgress()
    for part in (
        _stop_servers,
        remote.database,
        remote.files,
        _stop_stores,
        _delete_secrets,
        _delete_volumes,
    ):
        done.waits = await part(context, done)
        if done.waits:
            break
    return done


def _server(resource: Object, out: Dependencies) -> Server:
    return resolve(api.parse(resource), cluster_defaults(out.images, out.cluster_domain, None))


async def _stop_servers(context: ReconcileContext, _: RemovalProgress) -> str | None:
    for live in context.observed.of(kinds.DEPLOYMENT):
        await _to_rest(context, live)
    for cronjob in context.observed.of(kinds.CRONJOB):
        if is_ours(cronjob, context.observed.resource, data=False):
            await _delete(context, cronjob)  # and with it, by their ownerReferences, all that it began
    for job in context.observed.of(kinds.JOB):
        if is_ours(job, context.observed.resource, data=False) and not job["metadata"].get(
            "deletionTimestamp"
        ):
            await context.deps.cluster.delete(job)
    components = (labels.SERVER_POD, *labels.JOB_PODS)
    return next(filter(None, (_pods_left(context, component) for component in components)), None)


async def _stop_stores(context: ReconcileContext, _: RemovalProgress) -> str | None:
    for live in context.observed.of(kinds.STATEFULSET):
        await _to_rest(context, live)
    return _pods_left(context, labels.DATABASE_POD) or _pods_left(context, labels.ARTIFACT_STORE_POD)


async def _delete_secrets(context: ReconcileContext, _: RemovalProgress) -> str | None:
    for kind, name in retained_data.credentials(context.server.names):
        await _delete(context, context.observed.get(kind, name))
    return None


async def _delete_volumes(context: ReconcileContext, _: RemovalProgress) -> str | None:
    found = [
        live
        for kind, name in retained_data.volumes(context.server.names)
        if (live := context.observed.get(kind, name))
    ]
    for live in found:
        await _delete(context, live)
    # a claim stays for as long as any pod uses it, also one that is not ours
    left = " and ".join(sorted(f'"{live["metadata"]["name"]}"' for live in found))
    return f"PersistentVolumeClaim {left} to go: it stays while any pod uses it" if left else None


async def _to_rest(context: ReconcileContext, live: Object) -> None:
    going = live["metadata"].get("deletionTimestamp")
    if going or not live["spec"].get("replicas") or not is_ours(live, context.observed.resource, data=False):
        return
    meta, none = live["metadata"], {"op": "replace", "path": "/spec/replicas", "value": 0}
    try:
        await context.deps.cluster.json_patch(kinds.of(live), meta["namespace"], meta["name"], [none])
    except NotFound:
        return
    logger.info("stopped %s %s/%s", live["kind"], meta["namespace"], meta["name"])


def _pods_left(context: ReconcileContext, component: str) -> str | None:
    """Those that run, those on their way out included: they may still write."""
    pods = [*filter(pod_diagnosis.is_active, context.observed.of(kinds.POD, component))]
    return f'pod "{pods[0]["metadata"]["name"]}" to end' if pods else None


async def _delete(context: ReconcileContext, live: Object | None) -> None:
    # what was seen carries the labels by which data is taken back, so it is this server's
    if live is None or live["metadata"].get("deletionTimestamp"):
        return
    await context.deps.cluster.delete(live)
    logger.info("deleted %s %s/%s", live["kind"], live["metadata"]["namespace"], live["metadata"]["name"])
