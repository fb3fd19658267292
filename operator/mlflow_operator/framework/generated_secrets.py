"""Secrets that are generated once, and never made up anew while anything goes by the old ones."""

from collections.abc import Callable

from mlflow_operator.framework.step import ReconcileContext
from mlflow_operator.kube import kinds
from mlflow_operator.kube.objects import Object
from mlflow_operator.model import secrets
from mlflow_operator.status.conditions import Reason
from mlflow_operator.status.errors import ConfigurationError


async def ensure_secret(
    context: ReconcileContext,
    name: str,
    volume: str | None,
    keys: tuple[str, ...],
    make: Callable[[], Object],
) -> dict[str, str]:
    """The values of Secret `name`, which `make` makes where there is none; each of `keys` is there.

    One that is lost while its `volume` lives is never made up anew: the store would go on with the old password, and
    nobody would get in. Without a volume that matters another is made.
    """
    live = context.observed.get(kinds.SECRET, name)
    if live is None and volume and context.observed.get(kinds.PVC, volume):
        raise ConfigurationError(
            Reason.SECRET_NOT_FOUND,
            f'Secret "{name}" is gone, but volume "{volume}" holds data that only its password opens. Restore the '
            f"Secret, with its labels, from a backup; or, to start empty, delete PersistentVolumeClaim "
            f'"{volume}", too.',
        )
    values = secrets.decoded(await context.ensure(live or make(), data=True))
    for key in keys:
        if not values.get(key) and volume is None:
            raise ConfigurationError(
                Reason.SECRET_KEY_MISSING,
                f'Secret "{name}" has lost its key "{key}". Restore it from a backup; or delete the Secret, and '
                "another one is made.",
            )
        if not values.get(key):
            raise ConfigurationError(
                Reason.SECRET_KEY_MISSING,
                f'Secret "{name}" has lost its key "{key}". Restore it from a backup: the store still goes by the '
                "old value, so a new one would lock everybody out.",
            )
    return values


async def replace_values(context: ReconcileContext, live: Object, values: dict[str, str]) -> Object:
    """Puts `values` into a generated Secret, beside the others that it holds; returns it as it is then.

    Nothing is written where they are there already. Conflict: it was changed since it was looked at.
    """
    held = secrets.decoded(live)
    changed = {key: text for key, text in values.items() if held.get(key) != text}
    if not changed:
        return live
    meta = live["metadata"]
    unchanged = {"op": "test", "path": "/metadata/resourceVersion", "value": meta["resourceVersion"]}
    steps = [
        {"op": "add", "path": f"/data/{key}", "value": secrets.encoded(text)} for key, text in changed.items()
    ]
    return await context.deps.cluster.json_patch(
        kinds.SECRET, meta["namespace"], meta["name"], [unchanged, *steps]
    )
