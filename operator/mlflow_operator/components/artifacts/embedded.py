"""The bucket in the server's own store, and the user by which its pods get in there.

The root key stays between the store and the operator: what the pods are given opens the bucket and nothing else, and
can be replaced while the store runs.
"""

from dataclasses import replace

from mlflow_operator.clients.s3 import bucket_policy, minio_admin, seaweedfs_admin
from mlflow_operator.clients.s3.signed_request import AccessKey, Admin
from mlflow_operator.components.artifacts import clients as store_place
from mlflow_operator.framework.step import ReconcileContext
from mlflow_operator.model.server import EmbeddedArtifactStore, Engine, ObjectStore
from mlflow_operator.status.conditions import Reason
from mlflow_operator.status.errors import ConfigurationError

_KEY_REFUSED = {Reason.BUCKET_ACCESS_DENIED, Reason.PROVISIONING_DENIED}


async def ensure(
    context: ReconcileContext,
    embedded: EmbeddedArtifactStore,
    store: ObjectStore,
    own: AccessKey,
    root: AccessKey,
) -> None:
    """Sees to it that the bucket is there, and that `own` opens it. Raises Fault.

    The root key is used only where `own` does not get in.
    """
    bucket = await store_place.bucket(context, store, own, None)
    if await _stranger(context, embedded, store, root, own) or not await store_place.can_read(
        context, bucket
    ):
        mine = replace(bucket, access_key=root.id, secret_key=root.secret)
        try:
            await context.deps.stores.ensure_bucket(mine, create=True)
            await ensure_key(context, embedded, store, root, own)
        except ConfigurationError as fault:
            raise _explained(context, fault) from None
        await context.deps.stores.ensure_bucket(bucket, create=False)
    await context.deps.stores.check_access(bucket)


async def _stranger(
    context: ReconcileContext,
    embedded: EmbeddedArtifactStore,
    store: ObjectStore,
    root: AccessKey,
    own: AccessKey,
) -> bool:
    """Whether the store is sure not to know `own`. SeaweedFS is asked, as it writes the id of a key that it does not
    know into its log."""
    if embedded.engine is not Engine.SEAWEEDFS or own == root:
        return False
    name = bucket_policy.name(context.server.owner)
    try:
        return not await seaweedfs_admin.has_user(_admin(context, store, root), own.id, name)
    except ConfigurationError:
        return False  # the root key is refused, and not needed where the other one gets in


async def ensure_key(
    context: ReconcileContext,
    embedded: EmbeddedArtifactStore,
    store: ObjectStore,
    root: AccessKey,
    key: AccessKey,
) -> None:
    """Lets `key` in, beside those that get in already. Raises Fault."""
    name, admin = bucket_policy.name(context.server.owner), _admin(context, store, root)
    if embedded.engine is Engine.SEAWEEDFS:
        await seaweedfs_admin.ensure_user(admin, key, name, bucket_policy.in_seaweedfs(store))
    else:
        await minio_admin.ensure_user(admin, key, name, bucket_policy.policy(store))


async def delete_key(
    context: ReconcileContext,
    embedded: EmbeddedArtifactStore,
    store: ObjectStore,
    root: AccessKey,
    key_id: str,
) -> None:
    """Shuts one out. Raises Fault.

    The root key itself, which servers of before used, opens the store as ever: nobody but the operator holds it now.
    """
    name, admin = bucket_policy.name(context.server.owner), _admin(context, store, root)
    if key_id == root.id:
        return
    if embedded.engine is Engine.SEAWEEDFS:
        await seaweedfs_admin.delete_user(admin, key_id, name)
    else:
        await minio_admin.delete_user(admin, key_id, name)


def _admin(context: ReconcileContext, store: ObjectStore, root: AccessKey) -> Admin:
    return Admin(store.endpoint or "", root, None, f'Secret "{context.server.names.artifacts_secret}"')


def _explained(context: ReconcileContext, fault: ConfigurationError) -> ConfigurationError:
    if fault.reason not in _KEY_REFUSED:
        return fault
    names = context.server.names
    said = (
        f'{fault.message} A store goes by the key that it found when it started: if Secret "{names.artifacts_secret}" '
        f'was changed since, put its values back, or delete pod "{names.artifact_store}-0".'
    )
    return ConfigurationError(fault.reason, said)
