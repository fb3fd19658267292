"""Deletes what was made for a server elsewhere: database and roles on a shared Postgres, files, key and policy on a
shared store. Only what carries our marker; all else is named as what stays.
"""

import asyncio

from mlflow_operator.clients import ca_files
from mlflow_operator.clients.postgres import admin as postgres_admin
from mlflow_operator.clients.s3 import bucket_policy, minio_admin
from mlflow_operator.clients.s3.client import Bucket
from mlflow_operator.clients.s3.signed_request import AccessKey, Admin
from mlflow_operator.components.artifacts import clients as store_place
from mlflow_operator.components.database import provisioned
from mlflow_operator.components.database.reconcile import as_pods_see_it
from mlflow_operator.framework.step import ReconcileContext
from mlflow_operator.kube import kinds
from mlflow_operator.model import provisioning, secrets
from mlflow_operator.model.postgres_uri import Connection
from mlflow_operator.model.retained_data import RemovalProgress
from mlflow_operator.model.server import EmbeddedDatabase, ObjectStore, ProvisionedDatabase, StoreAdmin
from mlflow_operator.status.conditions import Reason
from mlflow_operator.status.errors import ReconcileError

_SHARE = 30.0
"""Seconds of deleting files at a time; then others have their turn, and the condition says that it goes on."""

_KEYS = ("accessKeyID", "nextAccessKeyID", "previousAccessKeyID")


async def database(context: ReconcileContext, done: RemovalProgress) -> str | None:
    """The database, its logins and its role. Returns what is waited for, None when they are gone or not ours."""
    wanted = context.server.database
    if isinstance(wanted, EmbeddedDatabase):
        return None
    if not isinstance(wanted, ProvisionedDatabase):
        done.stays.append("the database of its spec")
        return None
    place = Connection(wanted.host, wanted.port, wanted.database, "", "").with_tls(wanted.tls, None)
    admin = await provisioned.administrator(context, wanted, await as_pods_see_it(context, place))
    plan = provisioned.plan(context.server, wanted, await provisioned.cluster_uid(context))
    ca_path = await ca_files.path_of(await context.reader.optional(wanted.ca))
    try:
        await postgres_admin.drop(admin, ca_path, plan, provisioned.FIELD)
    except ReconcileError as fault:
        if fault.reason is not Reason.NAME_CONFLICT:
            raise
        done.stays.append(
            f'the database "{plan.database}" and the role "{plan.role}", which were not made for it'
        )
    return None


async def files(context: ReconcileContext, done: RemovalProgress) -> str | None:
    """What lies under the prefix with all versions, then the keys that open it, then their policy."""
    artifacts, store = context.server.artifacts, context.server.artifacts.s3
    if artifacts.embedded:
        return None
    if store is None or store.admin is None:
        done.stays.append(f"the artifacts at {artifacts.store.uri}")
        return None
    mine, master = await _administered(context, store, store.admin)
    if provisioning.is_ours(
        await context.deps.stores.has_marker(mine), provisioning.marker(context.server.owner, None)
    ):
        try:
            async with asyncio.timeout(_SHARE):
                await context.deps.stores.delete_objects(mine)
        except TimeoutError:
            done.busy = True
            return f"its files at {store.uri} to be deleted: there are many"
    elif await context.deps.stores.has_objects(mine):
        done.stays.append(f"the artifacts at {store.uri}, where something lay before it")
    await _revoke(context, master)
    return None


async def _administered(
    context: ReconcileContext, store: ObjectStore, admin: StoreAdmin
) -> tuple[Bucket, Admin]:
    ca = await context.reader.optional(store.ca)
    # the server's own key is of no use here: it may do less, and its Secret may be gone
    seen = await store_place.bucket(context, store, AccessKey("", ""), ca)
    return await store_place.administered(context, admin, seen)


async def _revoke(context: ReconcileContext, master: Admin) -> None:
    name = bucket_policy.name(context.server.owner)
    live = context.observed.get(kinds.SECRET, context.server.names.artifacts_secret)
    values = secrets.decoded(live) if live else {}
    for key in _KEYS:
        if values.get(key):
            await minio_admin.delete_user(master, values[key], name)
    await minio_admin.remove_policy(master, name)
