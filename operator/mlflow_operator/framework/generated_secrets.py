"""Secrets that the operator generates once and never regenerates while a store still uses the old values."""

from collections.abc import Callable
from secrets import token_urlsafe

from mlflow_operator.framework import retained_store
from mlflow_operator.framework.component import ReconcileContext
from mlflow_operator.kube import json_patch, kinds
from mlflow_operator.kube.objects import Object
from mlflow_operator.model import secrets
from mlflow_operator.model.names import StoreNames
from mlflow_operator.status.conditions import Reason
from mlflow_operator.status.errors import ConfigurationError

_PASSWORD_BYTES = 24

EMPTY_START_HINT = "To start with empty data, create an MLflowServer with another name."
"""Advice that deletes nothing: the missing object may be found again, and then the other one is needed."""


def generate_password() -> str:
    """Return a new random password of 32 characters that need no quoting in a URI, a shell or SQL."""
    return token_urlsafe(_PASSWORD_BYTES)


async def ensure_secret(
    context: ReconcileContext,
    store: StoreNames,
    keys: tuple[str, ...],
    build: Callable[[], Object],
    *,
    replaceable: bool = False,
) -> dict[str, str]:
    """Return the values of the Secret of `store`, and create it from `build()` if it does not exist.

    All `keys` are present. `replaceable`: the values are for a shared store, where the operator can set new ones at any
    time.

    Raises ConfigurationError if the Secret is lost while the volume of the store exists, with or without its labels:
    the store on that volume still uses the old password, so a new one would lock out the server. Without a volume, a
    new Secret is created.
    """
    observed = context.observed.get(kinds.SECRET, store.secret)
    if observed is None and not replaceable:
        await _check_not_lost(context, store)
    values = secrets.text_values(await context.ensure(observed or build(), data=True))
    for key in keys:
        if values.get(key):
            continue
        lost = f'Secret "{store.secret}" has lost its key "{key}". Restore the key from a backup'
        if replaceable and not await retained_store.exists(context, kinds.PVC, store.volume):
            raise ConfigurationError(
                Reason.SECRET_KEY_MISSING,
                f"{lost}, or delete the Secret; the operator then creates a new one.",
            )
        raise ConfigurationError(
            Reason.SECRET_KEY_MISSING,
            f"{lost}. The store still uses the old value, so a new value would not give access.",
        )
    return values


async def _check_not_lost(context: ReconcileContext, store: StoreNames) -> None:
    """Raise ConfigurationError if data exists, or must exist, that can be read only with the missing Secret."""
    if await retained_store.exists(context, kinds.SECRET, store.secret):
        return  # It has lost its labels. The conflict that follows says how to add them.
    if await retained_store.exists(context, kinds.PVC, store.volume):
        raise ConfigurationError(
            Reason.SECRET_NOT_FOUND,
            f'Secret "{store.secret}" is missing, but the data in volume "{store.volume}" can be read only with its '
            "password. The operator does not generate another password. Restore the Secret, with its labels, from a "
            f"backup. {EMPTY_START_HINT}{retained_store.unlabelled_volume_hint(context, store)}",
        )
    workloads = retained_store.restored_workloads(context, store)
    if workloads:
        raise ConfigurationError(
            Reason.SECRET_NOT_FOUND,
            f"{retained_store.restore_message(store, workloads)} To start with empty data, delete "
            f"{retained_store.as_text(workloads)}: the operator recreates what it needs.",
        )


async def replace_values(context: ReconcileContext, observed: Object, values: dict[str, str]) -> Object:
    """Set `values` in a generated Secret and keep its other keys. Returns the Secret after the patch.

    Writes nothing if all values are already set. Raises Conflict if the Secret has changed since it was read.
    """
    previous = secrets.text_values(observed)
    changed = {key: text for key, text in values.items() if previous.get(key) != text}
    if not changed:
        return observed
    operations = [
        json_patch.put(json_patch.pointer("data", key), secrets.encode(text)) for key, text in changed.items()
    ]
    return await context.patch(observed, [json_patch.unchanged(observed), *operations])
