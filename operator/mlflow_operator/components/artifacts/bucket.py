"""A server's bucket, and its key where that is the operator's to make."""

from dataclasses import replace

from mlflow_operator.clients.s3 import bucket_policy, lifecycle, minio_admin
from mlflow_operator.clients.s3.client import Bucket
from mlflow_operator.clients.s3.signed_request import AccessKey
from mlflow_operator.components.artifacts import clients as store_place
from mlflow_operator.framework.step import ReconcileContext
from mlflow_operator.kube import kinds, labels, pod_diagnosis
from mlflow_operator.kube.objects import Object
from mlflow_operator.model import provisioning, storage_location
from mlflow_operator.model.server import BucketCreation, ObjectStore, StoreAdmin
from mlflow_operator.status.conditions import Reason
from mlflow_operator.status.errors import ReconcileError


async def ensure(context: ReconcileContext, store: ObjectStore, key: AccessKey, ca: str | None) -> str:
    """Sees to it that the bucket is there, is as the spec asks, and that `key` opens the server's part of it.

    Returns what there is to say beside that, as a sentence with a space before it, or nothing. Raises Fault.
    """
    bucket = await store_place.bucket(context, store, key, ca)
    if store.admin:
        return await _provisioned(context, store, store.admin, bucket)
    await context.deps.stores.ensure_bucket(bucket, _create(store))
    await context.deps.stores.check_access(bucket)
    await _manage(context, store, bucket)
    return ""


async def _provisioned(
    context: ReconcileContext, store: ObjectStore, admin: StoreAdmin, bucket: Bucket
) -> str:
    """A server whose key works goes on with it, whatever has become of the administrator's."""
    works = await store_place.can_read(context, bucket)
    try:
        await _provision(context, store, admin, bucket, works=works)
    except ReconcileError as fault:
        if not works or fault.reason is Reason.BUCKET_SETTINGS_REFUSED:
            raise
        return f" The server's key opens it, and nothing about it can be changed now. {fault.message}"
    if not works:
        await context.deps.stores.ensure_bucket(bucket, create=False)
    await context.deps.stores.check_access(bucket)
    return ""


async def _provision(
    context: ReconcileContext, store: ObjectStore, admin: StoreAdmin, bucket: Bucket, *, works: bool
) -> None:
    mine, master = await store_place.administered(context, admin, bucket)
    made = not works and await context.deps.stores.ensure_bucket(mine, _create(store))
    await _manage(context, store, mine)
    user = AccessKey(bucket.access_key, bucket.secret_key)
    await minio_admin.ensure_user(
        master, user, bucket_policy.name(context.server.owner), policy(context, store)
    )
    if not works and (made or store.prefix):
        # nobody else's, as the policy is in place: what is empty now may go with the server
        await context.deps.stores.write_marker(mine, provisioning.marker(context.server.owner, None))


def policy(context: ReconcileContext, store: ObjectStore) -> Object:
    """What the server's key may do: in its own part of the store, and in that which any of its pods is still on."""
    live = context.observed.get(kinds.DEPLOYMENT, context.server.names.deployment)
    pods = filter(pod_diagnosis.is_active, context.observed.of(kinds.POD, labels.SERVER_POD))
    specs = [*([live["spec"]["template"]["spec"]] if live else []), *(pod.get("spec") or {} for pod in pods)]
    left = {
        uri
        for uri, endpoint in map(storage_location.files, specs)
        if uri.startswith("s3://") and uri != store.uri and endpoint == (store.endpoint or "")
    }
    parts = (uri.removeprefix("s3://").partition("/") for uri in sorted(left))
    return bucket_policy.policy(store, *(replace(store, bucket=part[0], prefix=part[2]) for part in parts))


async def _manage(context: ReconcileContext, store: ObjectStore, bucket: Bucket) -> None:
    owner, settings = context.server.owner, store.settings
    if settings.versioned or settings.encryption or settings.lifecycle:
        rule = lifecycle.rule(owner, store)
        await context.deps.stores.apply_settings(bucket, settings, lifecycle.rule_id(owner), rule)


def _create(store: ObjectStore) -> bool:
    return store.creation is BucketCreation.IF_MISSING
