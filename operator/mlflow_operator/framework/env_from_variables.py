"""Names of the environment variables that `spec.envFrom` sets. Only the objects that it references show them."""

from collections.abc import Iterable

from mlflow_operator.api.env import EnvFromSource
from mlflow_operator.framework.observe import Reader
from mlflow_operator.kube import kinds
from mlflow_operator.kube.client import Forbidden


async def names(sources: Iterable[EnvFromSource], reader: Reader) -> frozenset[str]:
    """Return the names of all variables. An object that does not exist or is not readable sets none.

    The component `server` reports such an object, and does not change the pods.
    """
    variables: set[str] = set()
    for source in sources:
        reference = source.secret_ref or source.config_map_ref
        kind = kinds.SECRET if source.secret_ref else kinds.CONFIGMAP
        if reference:
            try:
                values = await reader.values(kind, reference.name)
            except Forbidden:
                continue
            variables |= {f"{source.prefix or ''}{key}" for key in values or ()}
    return frozenset(variables)
