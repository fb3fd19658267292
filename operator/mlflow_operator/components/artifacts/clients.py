"""How the operator speaks to a server's artifact store: as the server does, or as its administrator."""

from dataclasses import replace

from mlflow_operator.clients import ca_files, dns
from mlflow_operator.clients.s3.client import Bucket
from mlflow_operator.clients.s3.signed_request import AccessKey, Admin
from mlflow_operator.components.credentials.s3 import read_access_key
from mlflow_operator.framework.step import ReconcileContext
from mlflow_operator.model.server import ObjectStore, StoreAdmin
from mlflow_operator.status.errors import ConfigurationError


async def bucket(context: ReconcileContext, store: ObjectStore, key: AccessKey, ca: str | None) -> Bucket:
    """The store as `key` sees it. `ca` is the authority's certificate, None for the public ones."""
    endpoint = store.endpoint
    own = context.server.artifacts.embedded and store == context.server.artifacts.s3
    if endpoint and not own:
        endpoint = await dns.resolve_url_in_namespace(
            endpoint, context.server.owner.namespace, context.deps.cluster_domain
        )
    return Bucket(
        endpoint,
        store.region,
        store.bucket,
        store.addressing_style,
        key.id,
        key.secret,
        await ca_files.path_of(ca),
        store.access_key.field if store.access_key else "spec.artifacts",
        store.prefix,
    )


async def administered(context: ReconcileContext, admin: StoreAdmin, seen: Bucket) -> tuple[Bucket, Admin]:
    """`seen` as the administrator sees it: for S3, and for the admin API.

    Raises UserMistake where the Secret is not there, may not be used from here, or holds no such key.
    """
    key = AccessKey(
        await read_access_key(context, admin.access_key), await read_access_key(context, admin.secret_key)
    )
    field = admin.access_key.field
    mine = replace(seen, access_key=key.id, secret_key=key.secret, field=field)
    return mine, Admin(seen.endpoint or "", key, seen.ca_path, f"the Secret that {field} names")


async def can_read(context: ReconcileContext, bucket: Bucket) -> bool:
    """Whether its key opens the bucket; NotReady where nobody can tell."""
    try:
        await context.deps.stores.ensure_bucket(bucket, create=False)
    except ConfigurationError:
        return False
    return True
