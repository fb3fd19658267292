"""Access to the artifact store with the server's key or with the administrator's key. Writes nothing."""

from dataclasses import replace

from mlflow_operator.clients.s3.client import Bucket
from mlflow_operator.clients.s3.signed_request import AccessKey, Admin
from mlflow_operator.framework.access_keys import read_access_key
from mlflow_operator.framework.component import ReconcileContext
from mlflow_operator.model.server import AdminCredentials, ObjectStore
from mlflow_operator.status.errors import ConfigurationError


async def bucket(context: ReconcileContext, store: ObjectStore, key: AccessKey, ca: str | None) -> Bucket:
    """Return the bucket of `store` with credentials `key`. `ca` is the CA certificate (PEM), None for public CAs."""
    endpoint = store.endpoint
    is_embedded = context.server.artifacts.embedded and store == context.server.artifacts.s3
    # Names in the namespace of the server must not decide where the credentials of a platform are sent.
    if endpoint and not is_embedded and not store.origin:
        endpoint = await context.deps.resolver.resolve_url(
            endpoint, context.server.owner.namespace, context.deps.cluster_domain
        )
    return Bucket(
        endpoint,
        store.region,
        store.bucket,
        store.addressing_style,
        key.id,
        key.secret,
        await context.deps.ca_files.path_of(ca),
        store.access_key.field if store.access_key else "spec.artifacts",
        store.prefix,
        store.upload_arguments,
        store.access_key.name if store.admin and store.access_key else "",
    )


async def admin_clients(
    context: ReconcileContext, admin: AdminCredentials, bucket: Bucket
) -> tuple[Bucket, Admin]:
    """Return `bucket` with the administrator's credentials, and the admin API of the same store.

    Raises ConfigurationError if the Secret does not exist, lacks a key, or must not be read by the operator.
    """
    key = AccessKey(
        await read_access_key(context.reader, admin.access_key),
        await read_access_key(context.reader, admin.secret_key),
    )
    field = admin.access_key.field
    admin_bucket = replace(bucket, access_key=key.id, secret_key=key.secret, field=field, key_secret="")
    return admin_bucket, Admin(
        bucket.endpoint or "", key, bucket.ca_path, f"the Secret referenced by {field}"
    )


async def can_read(context: ReconcileContext, bucket: Bucket) -> bool:
    """Whether the key of `bucket` has access to it. Raises TransientError if that cannot be determined."""
    try:
        await context.deps.stores.ensure_bucket(bucket, create=False)
    except ConfigurationError:
        return False
    return True
