"""Ensure the bucket in the embedded store, and the user with which the server's pods access it.

Only the store and the operator have the root key; the user's key gives access to this bucket only, and can be replaced
while the store runs.
"""

from dataclasses import replace

from mlflow_operator.api.artifacts import Engine
from mlflow_operator.clients.s3 import bucket_policy
from mlflow_operator.clients.s3.signed_request import AccessKey, Admin
from mlflow_operator.components.artifacts import clients as store_clients
from mlflow_operator.framework.component import ReconcileContext
from mlflow_operator.model.server import EmbeddedArtifactStore, ObjectStore
from mlflow_operator.status.conditions import Reason
from mlflow_operator.status.errors import ConfigurationError

_KEY_REFUSED_REASONS = {Reason.BUCKET_ACCESS_DENIED, Reason.PROVISIONING_DENIED}


async def ensure(
    context: ReconcileContext,
    embedded: EmbeddedArtifactStore,
    store: ObjectStore,
    service_key: AccessKey,
    root_key: AccessKey,
) -> None:
    """Ensure that the bucket exists and that `service_key` has access to it. Raises ReconcileError.

    The root key is used only if `service_key` has no access.
    """
    bucket = await store_clients.bucket(context, store, service_key, None)
    if await _is_unknown_key(
        context, embedded, store, root_key, service_key
    ) or not await store_clients.can_read(context, bucket):
        root_bucket = replace(bucket, access_key=root_key.id, secret_key=root_key.secret)
        try:
            await context.deps.stores.ensure_bucket(root_bucket, create=True)
            await ensure_key(context, embedded, store, root_key, service_key)
        except ConfigurationError as error:
            raise _with_root_key_hint(context, error) from None
        await context.deps.stores.ensure_bucket(bucket, create=False)
    await context.deps.stores.check_access(bucket)


async def _is_unknown_key(
    context: ReconcileContext,
    embedded: EmbeddedArtifactStore,
    store: ObjectStore,
    root_key: AccessKey,
    service_key: AccessKey,
) -> bool:
    """Whether the store certainly has no user with `service_key`.

    Only SeaweedFS is asked: it logs the id of an unknown key, so an unknown key must not be tried there.
    """
    if embedded.engine is not Engine.SEAWEEDFS or service_key == root_key:
        return False
    policy_name = bucket_policy.name(context.server.owner)
    try:
        return not await context.deps.seaweedfs_admin.has_key(
            _admin(context, store, root_key), service_key.id, policy_name
        )
    except ConfigurationError:
        return False  # The root key is rejected, but it is not needed if the service key works.


async def ensure_key(
    context: ReconcileContext,
    embedded: EmbeddedArtifactStore,
    store: ObjectStore,
    root_key: AccessKey,
    key: AccessKey,
) -> None:
    """Give `key` access, in addition to the existing keys. Raises ReconcileError."""
    policy_name, admin = bucket_policy.name(context.server.owner), _admin(context, store, root_key)
    if embedded.engine is Engine.SEAWEEDFS:
        await context.deps.seaweedfs_admin.ensure_key(
            admin, key, policy_name, bucket_policy.seaweedfs_policy(store)
        )
    else:
        await context.deps.minio_admin.ensure_user(admin, key, policy_name, bucket_policy.policy(store))


async def delete_key(
    context: ReconcileContext,
    embedded: EmbeddedArtifactStore,
    store: ObjectStore,
    root_key: AccessKey,
    key_id: str,
) -> None:
    """Revoke the access of a key. Raises ReconcileError.

    The root key, which servers of older operator versions used, is never deleted: only the operator has it now.
    """
    policy_name, admin = bucket_policy.name(context.server.owner), _admin(context, store, root_key)
    if key_id == root_key.id:
        return
    if embedded.engine is Engine.SEAWEEDFS:
        await context.deps.seaweedfs_admin.delete_key(admin, key_id, policy_name)
    else:
        await context.deps.minio_admin.delete_user(admin, key_id, policy_name)


def _admin(context: ReconcileContext, store: ObjectStore, root_key: AccessKey) -> Admin:
    return Admin(store.endpoint or "", root_key, None, f'Secret "{context.server.names.artifacts_secret}"')


def _with_root_key_hint(context: ReconcileContext, error: ConfigurationError) -> ConfigurationError:
    if error.reason not in _KEY_REFUSED_REASONS:
        return error
    names = context.server.names
    message = (
        f"{error.message} The store uses the root key that it read at its start. If Secret "
        f'"{names.artifacts_secret}" has changed since then, restore its values or delete pod '
        f'"{names.artifact_store}-0".'
    )
    return ConfigurationError(error.reason, message)
