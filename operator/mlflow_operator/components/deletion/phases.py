"""Deletes what goes with a server, part by part, in an order that can be cut off anywhere.

First the pods, so that nobody writes any more; then the role and database that were made for it; its files; its
Secrets; the volumes of embedded stores. What was not made for this server is never touched: an external database, a
bucket of somebody else's.
"""

import logging

from mlflow_operator import api
from mlflow_operator.components.deletion import remote
from mlflow_operator.framework.dependencies import Outside
from mlflow_operator.framework.observe import Reader, observe
from mlflow_operator.framework.step import Work
from mlflow_operator.kube import kinds, labels, pod_diagnosis
from mlflow_operator.kube.apply import is_ours
from mlflow_operator.kube.client import NotFound
from mlflow_operator.kube.objects import Object
from mlflow_operator.model import retained_data
from mlflow_operator.model.resolve import resolve, surroundings
from mlflow_operator.model.retained_data import Removal
from mlflow_operator.model.server import Server

logger = logging.getLogger(__name__)


async def carry_on(resource: Object, out: Outside) -> Removal:
    """Goes on with the first part that is not done.

    Raises InvalidResource for a resource that can't be read, Fault for what is out of reach.
    """
    server = _server(resource, out)
    seen = await observe(resource, out.cluster)
    work = Work(seen, server, Reader(out.cluster, server.owner.namespace), out)
    done = Removal()
    for part in (
        _stop_servers,
        remote.database,
        remote.files,
        _stop_stores,
        _delete_secrets,
        _delete_volumes,
    ):
        done.waits = await part(work, done)
        if done.waits:
            break
    return done


def _server(resource: Object, out: Outside) -> Server:
    return resolve(api.parse(resource), surroundings(out.images, out.cluster_domain, None))


async def _stop_servers(work: Work, _: Removal) -> str | None:
    for live in work.seen.of(kinds.DEPLOYMENT):
        await _to_rest(work, live)
    for cronjob in work.seen.of(kinds.CRONJOB):
        if is_ours(cronjob, work.seen.resource, data=False):
            await _delete(work, cronjob)  # and with it, by their ownerReferences, all that it began
    for job in work.seen.of(kinds.JOB):
        if is_ours(job, work.seen.resource, data=False) and not job["metadata"].get("deletionTimestamp"):
            await work.out.cluster.delete(job)
    components = (labels.SERVER_POD, *labels.OF_JOBS)
    return next(filter(None, (_pods_left(work, component) for component in components)), None)


async def _stop_stores(work: Work, _: Removal) -> str | None:
    for live in work.seen.of(kinds.STATEFULSET):
        await _to_rest(work, live)
    return _pods_left(work, labels.DATABASE_POD) or _pods_left(work, labels.ARTIFACT_STORE_POD)


async def _delete_secrets(work: Work, _: Removal) -> str | None:
    for kind, name in retained_data.credentials(work.server.names):
        await _delete(work, work.seen.get(kind, name))
    return None


async def _delete_volumes(work: Work, _: Removal) -> str | None:
    found = [
        live for kind, name in retained_data.volumes(work.server.names) if (live := work.seen.get(kind, name))
    ]
    for live in found:
        await _delete(work, live)
    # a claim stays for as long as any pod uses it, also one that is not ours
    left = " and ".join(sorted(f'"{live["metadata"]["name"]}"' for live in found))
    return f"PersistentVolumeClaim {left} to go: it stays while any pod uses it" if left else None


async def _to_rest(work: Work, live: Object) -> None:
    going = live["metadata"].get("deletionTimestamp")
    if going or not live["spec"].get("replicas") or not is_ours(live, work.seen.resource, data=False):
        return
    meta, none = live["metadata"], {"op": "replace", "path": "/spec/replicas", "value": 0}
    try:
        await work.out.cluster.json_patch(kinds.of(live), meta["namespace"], meta["name"], [none])
    except NotFound:
        return
    logger.info("stopped %s %s/%s", live["kind"], meta["namespace"], meta["name"])


def _pods_left(work: Work, component: str) -> str | None:
    """Those that run, those on their way out included: they may still write."""
    pods = [*filter(pod_diagnosis.alive, work.seen.of(kinds.POD, component))]
    return f'pod "{pods[0]["metadata"]["name"]}" to end' if pods else None


async def _delete(work: Work, live: Object | None) -> None:
    # what was seen carries the labels by which data is taken back, so it is this server's
    if live is None or live["metadata"].get("deletionTimestamp"):
        return
    await work.out.cluster.delete(live)
    logger.info("deleted %s %s/%s", live["kind"], live["metadata"]["namespace"], live["metadata"]["name"])
