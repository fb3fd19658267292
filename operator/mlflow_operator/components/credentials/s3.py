"""What opens the artifact store: a key that was generated, one that the owner's Secret holds, or none."""

from dataclasses import dataclass

from mlflow_operator.clients.s3.signed_request import AccessKey
from mlflow_operator.framework.generated_secrets import ensure_secret, replace_values
from mlflow_operator.framework.step import ReconcileContext
from mlflow_operator.kube import kinds
from mlflow_operator.model import secrets
from mlflow_operator.model.server import ObjectStore, SecretKey
from mlflow_operator.status.conditions import Reason
from mlflow_operator.status.errors import ConfigurationError


@dataclass(frozen=True)
class StoreKeys:
    """`own` is what the server's pods sign with, None with their own identity; `root` that of an embedded store."""

    service_key: AccessKey | None = None
    root_key: AccessKey | None = None


async def store_keys(context: ReconcileContext) -> StoreKeys:
    """The keys that there are; those that are the operator's to make are made."""
    artifacts, store = context.server.artifacts, context.server.artifacts.s3
    if store is None:
        return StoreKeys()
    if artifacts.embedded:
        return await _embedded(context, store)
    if store.admin:
        return await _shared(context, store)
    if store.access_key is None or store.secret_key is None:
        return StoreKeys()
    return StoreKeys(
        AccessKey(
            await read_access_key(context, store.access_key), await read_access_key(context, store.secret_key)
        )
    )


async def read_access_key(context: ReconcileContext, wanted: SecretKey) -> str:
    """A key of somebody else's store. The server's pods take it as it stands in the Secret, so here nothing is cut
    off that would be sent from there."""
    value = await context.reader.value(wanted)
    if value != value.strip() or not value:
        what = "begins or ends with a space or a line break" if value else "is empty"
        raise ConfigurationError(
            Reason.SECRET_VALUE_INVALID,
            f'Key "{wanted.key}" of Secret "{wanted.name}" ({wanted.field}) {what}, and no store takes such a key. '
            "Write it again without: printf leaves out the line break that echo puts at the end.",
        )
    return value


async def _embedded(context: ReconcileContext, store: ObjectStore) -> StoreKeys:
    """The store's root key, which must outlive its volume, and the key of the server's own user."""
    names = context.server.names
    values = await ensure_secret(
        context,
        names.artifacts_secret,
        names.artifact_store_data,
        secrets.STORE_KEY,
        lambda: secrets.artifacts_secret(
            context.server.owner, store, _made(context, secrets.STORE_KEY) | _made(context, secrets.OWN_KEY)
        ),
    )
    live = context.observed.get(kinds.SECRET, names.artifacts_secret)
    if live and not all(values.get(key) for key in secrets.OWN_KEY):
        # from before servers had users of their own: they go on with the root key until credentials are replaced
        root = {own: values[key] for own, key in zip(secrets.OWN_KEY, secrets.STORE_KEY, strict=True)}
        values |= root
        await replace_values(context, live, root)
    await _place(context, store, values)
    return StoreKeys(_key(values, secrets.OWN_KEY), _key(values, secrets.STORE_KEY))


async def _shared(context: ReconcileContext, store: ObjectStore) -> StoreKeys:
    """The key of a user of a shared store. Another one can be made at any time: whoever wants it deletes the Secret."""
    owner, name = context.server.owner, context.server.names.artifacts_secret
    values = await ensure_secret(
        context,
        name,
        None,
        secrets.STORE_KEY,
        lambda: secrets.artifacts_secret(owner, store, _made(context, secrets.STORE_KEY)),
    )
    await _place(context, store, values)
    return StoreKeys(_key(values, secrets.STORE_KEY))


async def _place(context: ReconcileContext, store: ObjectStore, values: dict[str, str]) -> None:
    moved = secrets.artifacts_moved(values, store)
    if moved:
        owner = context.server.owner
        await context.deps.cluster.json_patch(
            kinds.SECRET, owner.namespace, owner.names.artifacts_secret, moved
        )


def _made(context: ReconcileContext, pair: tuple[str, str]) -> dict[str, str]:
    return dict(
        zip(
            pair,
            secrets.access_key(context.deps.generate_password(), context.deps.generate_password()),
            strict=True,
        )
    )


def _key(values: dict[str, str], pair: tuple[str, str]) -> AccessKey:
    return AccessKey(values[pair[0]], values[pair[1]])
