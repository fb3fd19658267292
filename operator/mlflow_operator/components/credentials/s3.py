"""Access keys of the artifact store: generated, from the user's Secret, or none (workload identity).

Generated keys are in the Secret `<name>-artifacts`, which this module writes.
"""

from dataclasses import dataclass

from mlflow_operator.clients.s3.signed_request import AccessKey
from mlflow_operator.framework.access_keys import read_access_key
from mlflow_operator.framework.component import ReconcileContext
from mlflow_operator.framework.generated_secrets import ensure_secret, replace_values
from mlflow_operator.kube import kinds
from mlflow_operator.model import secrets
from mlflow_operator.model.server import ObjectStore


@dataclass(frozen=True)
class StoreKeys:
    """Access keys of a store.

    `service_key` is the key that the server's pods use, None with workload identity. `root_key` is set for an embedded
    store only.
    """

    service_key: AccessKey | None = None
    root_key: AccessKey | None = None


async def store_keys(context: ReconcileContext) -> StoreKeys:
    """Return the keys of the artifact store; generate those that the operator manages and that do not exist yet."""
    artifacts, store = context.server.artifacts, context.server.artifacts.s3
    if store is None:
        return StoreKeys()
    if artifacts.embedded:
        return await _embedded(context, store)
    if store.admin:
        return await _provisioned(context, store)
    if store.access_key is None or store.secret_key is None:
        return StoreKeys()
    return StoreKeys(
        AccessKey(
            await read_access_key(context.reader, store.access_key),
            await read_access_key(context.reader, store.secret_key),
        )
    )


async def _embedded(context: ReconcileContext, store: ObjectStore) -> StoreKeys:
    """Return the root key of the embedded store, which must exist as long as its volume, and the server user's key."""
    names = context.server.names
    values = await ensure_secret(
        context,
        names.embedded_artifact_store,
        secrets.ACCESS_KEY_FIELDS,
        lambda: secrets.artifacts_secret(
            context.server.owner,
            store,
            _generate_key(context, secrets.ACCESS_KEY_FIELDS)
            | _generate_key(context, secrets.SERVER_ACCESS_KEY_FIELDS),
        ),
    )
    secret = context.observed.get(kinds.SECRET, names.artifacts_secret)
    if secret and not all(values.get(key) for key in secrets.SERVER_ACCESS_KEY_FIELDS):
        # Older operator versions created no user for the server; it keeps the root key until the next rotation.
        service_key = {
            server_field: values[root_field]
            for server_field, root_field in zip(
                secrets.SERVER_ACCESS_KEY_FIELDS, secrets.ACCESS_KEY_FIELDS, strict=True
            )
        }
        values |= service_key
        await replace_values(context, secret, service_key)
    await _sync_location(context, store, values)
    return StoreKeys(
        _access_key(values, secrets.SERVER_ACCESS_KEY_FIELDS), _access_key(values, secrets.ACCESS_KEY_FIELDS)
    )


async def _provisioned(context: ReconcileContext, store: ObjectStore) -> StoreKeys:
    """Return the key of the server's user in a shared store. To get a new key, a user can delete the Secret."""
    owner = context.server.owner
    values = await ensure_secret(
        context,
        owner.names.embedded_artifact_store,
        secrets.ACCESS_KEY_FIELDS,
        lambda: secrets.artifacts_secret(owner, store, _generate_key(context, secrets.ACCESS_KEY_FIELDS)),
        replaceable=True,
    )
    await _sync_location(context, store, values)
    return StoreKeys(_access_key(values, secrets.ACCESS_KEY_FIELDS))


async def _sync_location(context: ReconcileContext, store: ObjectStore, values: dict[str, str]) -> None:
    secret = context.reader.latest(kinds.SECRET, context.server.names.artifacts_secret)
    if secret:
        await context.patch(secret, secrets.location_patch(values, store))


def _generate_key(context: ReconcileContext, key_names: tuple[str, str]) -> dict[str, str]:
    return dict(
        zip(
            key_names,
            secrets.access_key_pair(context.deps.generate_password(), context.deps.generate_password()),
            strict=True,
        )
    )


def _access_key(values: dict[str, str], key_names: tuple[str, str]) -> AccessKey:
    return AccessKey(values[key_names[0]], values[key_names[1]])
