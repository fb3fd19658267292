"""Variables that come in by `spec.envFrom`: the API server can't see their names, so they are looked at here."""

from collections.abc import Collection, Iterable, Mapping

from mlflow_operator.api.env import RESERVED_ENV
from mlflow_operator.kube.objects import Object
from mlflow_operator.status.conditions import Reason
from mlflow_operator.status.errors import ConfigurationError


def check(sources: Iterable[tuple[Object, Mapping[str, str] | None]], ours: Collection[str]) -> None:
    """Raise UserMistake where an entry of `spec.envFrom` sets what `spec.env` must not.

    `sources`: each entry with what its object holds, None for one that is not there. `ours`: names that the
    container sets itself; those win anyway, and many a Secret holds one beside what it is named for.
    """
    for source, values in sources:
        kind, object_ = next(
            (kind, source[member])
            for kind, member in (("Secret", "secretRef"), ("ConfigMap", "configMapRef"))
            if member in source
        )
        names = {f"{source.get('prefix') or ''}{key}" for key in values or ()}
        for name in sorted((names & RESERVED_ENV.keys()) - set(ours)):
            field = RESERVED_ENV[name]
            instead = f" and use {field}" if field else ""
            raise ConfigurationError(
                Reason.INVALID_RESOURCE,
                f'{kind} "{object_["name"]}", which spec.envFrom names, must not set {name}: it would undo what the '
                f"operator sets. The server is left as it is; remove {name} there{instead}.",
            )
