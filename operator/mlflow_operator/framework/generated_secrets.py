"""Secrets that the operator generates once and never regenerates while a store still uses the old values."""

from collections.abc import Callable
from secrets import token_urlsafe

from mlflow_operator.framework.component import ReconcileContext
from mlflow_operator.kube import json_patch, kinds
from mlflow_operator.kube.objects import Object
from mlflow_operator.model import secrets
from mlflow_operator.status.conditions import Reason
from mlflow_operator.status.errors import ConfigurationError

_PASSWORD_BYTES = 24


def generate_password() -> str:
    """Return a new random password of 32 characters that need no quoting in a URI, a shell or SQL."""
    return token_urlsafe(_PASSWORD_BYTES)


async def ensure_secret(
    context: ReconcileContext,
    name: str,
    volume_name: str | None,
    keys: tuple[str, ...],
    build: Callable[[], Object],
) -> dict[str, str]:
    """Return the values of Secret `name`; create it from `build()` if it does not exist. All `keys` are present.

    Raises ConfigurationError if the Secret is lost while PersistentVolumeClaim `volume_name` exists: the store on that
    volume still uses the old password, so a new one would lock out the server. If no volume depends on the Secret
    (`volume_name` is None, or the claim does not exist), a new Secret is created.
    """
    observed = context.observed.get(kinds.SECRET, name)
    if observed is None and volume_name and context.observed.get(kinds.PVC, volume_name):
        raise ConfigurationError(
            Reason.SECRET_NOT_FOUND,
            f'Secret "{name}" is missing, but the data in volume "{volume_name}" can be read only with its password. '
            "Restore the Secret, with its labels, from a backup. To start with an empty volume, delete "
            f'PersistentVolumeClaim "{volume_name}", too.',
        )
    values = secrets.text_values(await context.ensure(observed or build(), data=True))
    for key in keys:
        if not values.get(key) and volume_name is None:
            raise ConfigurationError(
                Reason.SECRET_KEY_MISSING,
                f'Secret "{name}" has lost its key "{key}". Restore the key from a backup, or delete the Secret; the '
                "operator then creates a new one.",
            )
        if not values.get(key):
            raise ConfigurationError(
                Reason.SECRET_KEY_MISSING,
                f'Secret "{name}" has lost its key "{key}". Restore the key from a backup. The store still uses the '
                "old value, so a new value would not give access.",
            )
    return values


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
