"""Delete the database and roles on a shared Postgres, and the artifacts, user and policy in a shared store.

A database or a prefix without the server's marker is not deleted, but reported as retained.
"""

import asyncio

from mlflow_operator.clients.s3.client import Bucket
from mlflow_operator.clients.s3.signed_request import AccessKey, Admin
from mlflow_operator.components.artifacts import bucket
from mlflow_operator.components.artifacts import clients as store_clients
from mlflow_operator.components.database import provisioned
from mlflow_operator.components.database.reconcile import resolve_for_pods
from mlflow_operator.framework.component import ReconcileContext
from mlflow_operator.framework.platform_errors import of_platform
from mlflow_operator.kube import kinds
from mlflow_operator.model import secrets
from mlflow_operator.model.platform import Part
from mlflow_operator.model.postgres_uri import Connection
from mlflow_operator.model.retained_data import RemovalProgress
from mlflow_operator.model.server import AdminCredentials, EmbeddedDatabase, ObjectStore, ProvisionedDatabase
from mlflow_operator.status.conditions import Reason
from mlflow_operator.status.errors import ReconcileError

_KEY_ID_FIELDS = ("accessKeyID", "nextAccessKeyID", "previousAccessKeyID")


async def delete_database(context: ReconcileContext, progress: RemovalProgress) -> str | None:
    """Delete the database, its logins and its role. Always returns None: there is nothing to wait for."""
    database = context.server.database
    if isinstance(database, EmbeddedDatabase):
        return None
    if not isinstance(database, ProvisionedDatabase):
        progress.keeps_database = True
        progress.retained.append("the database in spec.database")
        return None
    with of_platform(database.origin, Part.DATABASE):
        await _deprovision(context, database, progress)
    return None


async def _deprovision(
    context: ReconcileContext, database: ProvisionedDatabase, progress: RemovalProgress
) -> None:
    target = Connection(database.host, database.port, database.database, "", "").with_tls(database.tls, None)
    admin = await provisioned.admin_connection(context, database, await resolve_for_pods(context, target))
    plan = provisioned.plan(context.server, database, await provisioned.cluster_uid(context))
    ca = await context.reader.optional_value(context.server.database_ca_source)
    ca_path = await context.deps.ca_files.path_of(ca)
    try:
        await context.deps.postgres_admin.deprovision(admin, ca_path, plan, database.field)
    except ReconcileError as error:
        if error.reason not in {Reason.NAME_CONFLICT, Reason.ADOPTION_REQUIRED}:
            raise
        progress.keeps_database = True
        progress.retained.append(
            f'the database "{plan.database}" and the role "{plan.role}", which were not created for it'
        )


async def delete_artifacts(context: ReconcileContext, progress: RemovalProgress) -> str | None:
    """Delete all objects under the prefix with all versions, then the server's keys, then their policy.

    Returns what the deletion waits for, None if it is complete.
    """
    artifacts, store = context.server.artifacts, context.server.artifacts.s3
    if artifacts.embedded:
        return None
    if store is None or store.admin is None:
        progress.retained.append(f"the artifacts at {artifacts.store.uri}")
        return None
    with of_platform(store.origin, Part.ARTIFACTS):
        return await _delete_provisioned(context, store, store.admin, progress)


async def _delete_provisioned(
    context: ReconcileContext, store: ObjectStore, admin: AdminCredentials, progress: RemovalProgress
) -> str | None:
    admin_bucket, admin_api = await _admin_clients(context, store, admin)
    marker_bucket = bucket.marker_bucket(store, admin_bucket)
    is_own = bucket.is_marker(context, store, await context.deps.stores.read_marker(marker_bucket))
    overlapping = await _overlapping_policy(context, store, admin_api) if is_own else None
    if overlapping:
        progress.retained.append(
            f'the artifacts at {store.uri}, which the policy "{overlapping}" also covers'
        )
    elif is_own:
        try:
            async with asyncio.timeout(context.deps.timeouts.delete_objects):
                await context.deps.stores.delete_objects(admin_bucket)
        except TimeoutError:
            progress.in_progress = True
            return f"the many artifacts at {store.uri} to be deleted"
    elif await context.deps.stores.has_objects(admin_bucket):
        progress.retained.append(f"the artifacts at {store.uri}, where objects existed before it")
    if is_own or store.origin is None:
        # On a platform, they may be those of a server in an earlier namespace of the same name.
        await _delete_user(context, store, admin_api)
    if is_own and store.origin:
        # Last, because it permits the rest of the deletion.
        await context.deps.stores.delete_objects(marker_bucket)
    return None


async def _overlapping_policy(context: ReconcileContext, store: ObjectStore, admin_api: Admin) -> str | None:
    """Return the policy of another server that can write under the prefix, if any.

    The owner of a prefix on a platform is recorded before its key is refused because of such a policy: what is stored
    there then belongs to the other server.
    """
    if store.origin is None:
        return None
    policy_name, policy = bucket.policy_name(context, store), bucket.policy(context, store)
    return await context.deps.minio_admin.overlapping_policy(admin_api, policy_name, policy)


async def _admin_clients(
    context: ReconcileContext, store: ObjectStore, admin: AdminCredentials
) -> tuple[Bucket, Admin]:
    ca = await context.reader.optional_value(store.ca_source or store.ca)
    # The server's own key is not usable here: it has fewer permissions, and its Secret may be deleted.
    server_bucket = await store_clients.bucket(context, store, AccessKey("", ""), ca)
    return await store_clients.admin_clients(context, admin, server_bucket)


async def _delete_user(context: ReconcileContext, store: ObjectStore, admin_api: Admin) -> None:
    policy_name = bucket.policy_name(context, store)
    secret = context.observed.get(kinds.SECRET, context.server.names.artifacts_secret)
    values = secrets.text_values(secret) if secret else {}
    for key in _KEY_ID_FIELDS:
        if values.get(key):
            await context.deps.minio_admin.delete_user(admin_api, values[key], policy_name)
    await context.deps.minio_admin.delete_policy(admin_api, policy_name)
