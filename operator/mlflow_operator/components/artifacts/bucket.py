"""A server's bucket, and its key where that is the operator's to make."""

from dataclasses import replace

from mlflow_operator.clients.s3 import bucket_policy, lifecycle, minio_admin
from mlflow_operator.clients.s3.client import Bucket
from mlflow_operator.clients.s3.signed_request import AccessKey
from mlflow_operator.components.artifacts import clients as store_place
from mlflow_operator.framework.step import Work
from mlflow_operator.kube import kinds, labels, pod_diagnosis
from mlflow_operator.kube.objects import Object
from mlflow_operator.model import provisioning, storage_location
from mlflow_operator.model.server import BucketCreation, ObjectStore, StoreAdmin
from mlflow_operator.status.conditions import Reason
from mlflow_operator.status.errors import Fault


async def see_to(work: Work, store: ObjectStore, key: AccessKey, ca: str | None) -> str:
    """Sees to it that the bucket is there, is as the spec asks, and that `key` opens the server's part of it.

    Returns what there is to say beside that, as a sentence with a space before it, or nothing. Raises Fault.
    """
    bucket = await store_place.bucket(work, store, key, ca)
    if store.admin:
        return await _provisioned(work, store, store.admin, bucket)
    await work.out.stores.ensure(bucket, _create(store))
    await work.out.stores.prove(bucket)
    await _manage(work, store, bucket)
    return ""


async def _provisioned(work: Work, store: ObjectStore, admin: StoreAdmin, bucket: Bucket) -> str:
    """A server whose key works goes on with it, whatever has become of the administrator's."""
    works = await store_place.opens(work, bucket)
    try:
        await _provision(work, store, admin, bucket, works=works)
    except Fault as fault:
        if not works or fault.reason is Reason.BUCKET_SETTINGS_REFUSED:
            raise
        return f" The server's key opens it, and nothing about it can be changed now. {fault.message}"
    if not works:
        await work.out.stores.ensure(bucket, create=False)
    await work.out.stores.prove(bucket)
    return ""


async def _provision(
    work: Work, store: ObjectStore, admin: StoreAdmin, bucket: Bucket, *, works: bool
) -> None:
    mine, master = await store_place.administered(work, admin, bucket)
    made = not works and await work.out.stores.ensure(mine, _create(store))
    await _manage(work, store, mine)
    user = AccessKey(bucket.access_key, bucket.secret_key)
    await minio_admin.admit(master, user, bucket_policy.name(work.server.owner), policy(work, store))
    if not works and (made or store.prefix):
        # nobody else's, as the policy is in place: what is empty now may go with the server
        await work.out.stores.claim(mine, provisioning.marker(work.server.owner, None))


def policy(work: Work, store: ObjectStore) -> Object:
    """What the server's key may do: in its own part of the store, and in that which any of its pods is still on."""
    live = work.seen.get(kinds.DEPLOYMENT, work.server.names.deployment)
    pods = filter(pod_diagnosis.alive, work.seen.of(kinds.POD, labels.SERVER_POD))
    specs = [*([live["spec"]["template"]["spec"]] if live else []), *(pod.get("spec") or {} for pod in pods)]
    left = {
        uri
        for uri, endpoint in map(storage_location.files, specs)
        if uri.startswith("s3://") and uri != store.uri and endpoint == (store.endpoint or "")
    }
    parts = (uri.removeprefix("s3://").partition("/") for uri in sorted(left))
    return bucket_policy.policy(store, *(replace(store, bucket=part[0], prefix=part[2]) for part in parts))


async def _manage(work: Work, store: ObjectStore, bucket: Bucket) -> None:
    owner, settings = work.server.owner, store.settings
    if settings.versioned or settings.encryption or settings.lifecycle:
        rule = lifecycle.rule(owner, store)
        await work.out.stores.manage(bucket, settings, lifecycle.rule_id(owner), rule)


def _create(store: ObjectStore) -> bool:
    return store.creation is BucketCreation.IF_MISSING
