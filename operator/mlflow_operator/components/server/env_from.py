"""Check the variables that `spec.envFrom` adds. The API server cannot validate them: it does not see their names."""

from collections.abc import Collection, Iterable, Mapping

from mlflow_operator.api.env import RESERVED_ENV
from mlflow_operator.kube.objects import Object
from mlflow_operator.status.conditions import Reason
from mlflow_operator.status.errors import ConfigurationError


def check(
    sources: Iterable[tuple[Object, Mapping[str, str] | None]], container_variables: Collection[str]
) -> None:
    """Raise ConfigurationError if an entry of `spec.envFrom` sets a variable that `spec.env` must not set.

    `sources`: every entry with the values of its object, None if the object does not exist.
    `container_variables`: names in the `env` of the container. They take precedence over `envFrom` and are accepted,
    because many Secrets contain one of them beside the keys for which they are referenced.
    """
    for source, values in sources:
        kind, reference = next(
            (kind, source[member])
            for kind, member in (("Secret", "secretRef"), ("ConfigMap", "configMapRef"))
            if member in source
        )
        names = {f"{source.get('prefix') or ''}{key}" for key in values or ()}
        for name in sorted((names & RESERVED_ENV.keys()) - set(container_variables)):
            field = RESERVED_ENV[name]
            alternative = f" and use {field} instead" if field else ""
            raise ConfigurationError(
                Reason.INVALID_RESOURCE,
                f'{kind} "{reference["name"]}", which spec.envFrom references, must not set {name}, because it would '
                f"override a setting of the operator. The server is not changed. Remove {name} there{alternative}.",
            )
