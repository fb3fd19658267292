"""Ensure the bucket in an external store and, with an administrator's Secret, the server's user and policy."""

from dataclasses import replace

from mlflow_operator.api.artifacts import BucketCreation
from mlflow_operator.clients.s3 import bucket_policy, lifecycle
from mlflow_operator.clients.s3.client import Bucket
from mlflow_operator.clients.s3.minio_admin import Ownership
from mlflow_operator.clients.s3.signed_request import AccessKey
from mlflow_operator.components.artifacts import clients as store_clients
from mlflow_operator.components.artifacts import locations
from mlflow_operator.framework.component import ReconcileContext
from mlflow_operator.framework.platform_errors import of_platform
from mlflow_operator.kube.objects import Object
from mlflow_operator.model import platform, provisioning
from mlflow_operator.model.platform import Part
from mlflow_operator.model.server import AdminCredentials, ObjectStore, PlatformOrigin
from mlflow_operator.status.conditions import Reason
from mlflow_operator.status.errors import ConfigurationError, ReconcileError


async def ensure(context: ReconcileContext, store: ObjectStore, key: AccessKey, ca: str | None) -> str:
    """Ensure that the bucket exists with the settings of the spec and that `key` has access to the server's prefix.

    Returns a note for the condition message: a sentence with a leading space, or an empty string. Raises
    ReconcileError.
    """
    bucket = await store_clients.bucket(context, store, key, ca)
    if store.admin:
        with of_platform(store.origin, Part.ARTIFACTS):
            return await _ensure_provisioned(context, store, store.admin, bucket)
    await context.deps.stores.ensure_bucket(bucket, _may_create(store))
    await context.deps.stores.check_access(bucket)
    await _apply_settings(context, store, bucket)
    return ""


async def _ensure_provisioned(
    context: ReconcileContext, store: ObjectStore, admin: AdminCredentials, bucket: Bucket
) -> str:
    """Provision the server's user. If its key already works, a failure of the administrator's key is only a note."""
    key_works = await store_clients.can_read(context, bucket)
    try:
        with of_platform(store.origin, Part.ARTIFACTS):
            await _provision(context, store, admin, bucket, key_works=key_works)
    except ReconcileError as error:
        # A key that works does not prove that the server owns the prefix: it may be that of a deleted namespace.
        if not key_works or error.reason in {Reason.BUCKET_SETTINGS_REFUSED, Reason.ADOPTION_REQUIRED}:
            raise
        return f" The server's key works, but the operator cannot change the bucket. {error.message}"
    if not key_works:
        await context.deps.stores.ensure_bucket(bucket, create=False)
    await context.deps.stores.check_access(bucket)
    return ""


async def _provision(
    context: ReconcileContext, store: ObjectStore, admin: AdminCredentials, bucket: Bucket, *, key_works: bool
) -> None:
    admin_bucket, admin_api = await store_clients.admin_clients(context, admin, bucket)
    created = not key_works and await context.deps.stores.ensure_bucket(admin_bucket, _may_create(store))
    # A platform also takes over a server whose key works. Later it is identified by the policy, without this request.
    if store.origin and (store.origin.adopts or not key_works):
        await context.check_namespace(store.origin)
        await _claim_prefix(context, store, store.origin, admin_bucket)
    await _apply_settings(context, store, admin_bucket)
    user = AccessKey(bucket.access_key, bucket.secret_key)
    await context.deps.minio_admin.ensure_user(
        admin_api,
        user,
        policy_name(context, store),
        policy(context, store),
        ownership(context, store),
    )
    if not key_works and not store.origin and (created or store.prefix):
        # With the policy in place no other server can write here. If the location is empty now, its objects may be
        # deleted together with the server.
        await context.deps.stores.write_marker(admin_bucket, _marker(context, None))


async def _claim_prefix(
    context: ReconcileContext, store: ObjectStore, origin: PlatformOrigin, admin_bucket: Bucket
) -> None:
    """Record that the server owns its prefix on a platform. Raises ConfigurationError if that is not certain.

    Before its key gets access: otherwise the users of a namespace that is created again could read what a deleted
    namespace of the same name left behind.
    """
    stores, marker = context.deps.stores, _marker(context, origin)
    owners_bucket = marker_bucket(store, admin_bucket)
    recorded = await stores.read_marker(owners_bucket)
    if provisioning.is_marker_of(recorded, marker):
        return
    if recorded is not None and not provisioning.is_of_same_name(recorded, marker):
        # An entry in spec.adoptions does not name that server.
        raise _prefix_conflict(store, origin)
    if not origin.adopts and (recorded is not None or await stores.has_objects(admin_bucket)):
        description = f"What is stored under {store.uri} at {store.endpoint}"
        raise provisioning.adoption_required(description, marker, origin.name)
    if recorded is not None:
        await stores.delete_objects(owners_bucket)
    await stores.write_marker(owners_bucket, marker)


def _prefix_conflict(store: ObjectStore, origin: PlatformOrigin) -> ConfigurationError:
    return ConfigurationError(
        Reason.NAME_CONFLICT,
        f"The prefix {store.uri} at {store.endpoint} was given to another server, when this or another platform "
        "with the same bucket had another spec.artifacts.s3.prefix. The operator does not use it. Ask the "
        f'administrator of MLflowPlatform "{origin.name}" to use another bucket, or a prefix that begins with another '
        "segment.",
    )


def marker_bucket(store: ObjectStore, admin_bucket: Bucket) -> Bucket:
    """Return the bucket with the prefix of the marker: the server's own, or one that no server of a platform can use.

    The arguments for uploads in `spec.env` are the tenant's, and do not apply to the marker on a platform.
    """
    if store.origin is None:
        return admin_bucket
    prefix = platform.owners_prefix(store.prefix)
    return replace(admin_bucket, prefix=prefix, upload_arguments=store.owner_arguments)


def ownership(context: ReconcileContext, store: ObjectStore) -> Ownership | None:
    """Return what identifies the server in the policy of its user, None if the store belongs to no platform."""
    if store.origin is None:
        return None
    return Ownership(_marker(context, store.origin), store.origin.name, adopts=store.origin.adopts)


def is_marker(context: ReconcileContext, store: ObjectStore, marker: str | None) -> bool:
    """Whether `marker` allows the server to delete what is stored under its prefix."""
    return provisioning.is_marker_of(marker, _marker(context, store.origin))


def _marker(context: ReconcileContext, origin: PlatformOrigin | None) -> str:
    return provisioning.marker(context.server.owner, None, origin.namespace_uid if origin else None)


def policy_name(context: ReconcileContext, store: ObjectStore) -> str:
    """Return the name of the policy of the server's user."""
    return bucket_policy.name(context.server.owner, store.origin.namespace_uid if store.origin else None)


def policy(context: ReconcileContext, store: ObjectStore) -> Object:
    """Return the policy of the server's user: access to the desired location, and to those that its pods still use.

    On a platform only to the desired one: the previous one may have been chosen by the spec of the server, and the
    administrator's key must not give access to it.
    """
    if store.origin:
        return bucket_policy.policy(store)
    previous = [
        replace(store, bucket=bucket, prefix=prefix)
        for uri, endpoint in sorted(locations.used_before(context))
        if uri.startswith("s3://") and endpoint == (store.endpoint or "")
        for bucket, _, prefix in (uri.removeprefix("s3://").partition("/"),)
    ]
    return bucket_policy.policy(store, *previous)


async def _apply_settings(context: ReconcileContext, store: ObjectStore, bucket: Bucket) -> None:
    settings, rule_id = store.settings, lifecycle.rule_id(context.server.owner)
    if settings.is_managed:
        rule = lifecycle.rule(rule_id, store.prefix, settings)
        await context.deps.stores.apply_settings(bucket, settings, rule_id, rule)


def _may_create(store: ObjectStore) -> bool:
    return store.bucket_creation is BucketCreation.IF_MISSING
