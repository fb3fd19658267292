"""Names of the environment variables that `envFrom` sets. Only the objects that it references show them."""

from collections.abc import Iterable

from mlflow_operator.framework.observe import Reader
from mlflow_operator.kube import kinds
from mlflow_operator.kube.client import Forbidden
from mlflow_operator.kube.objects import Object


async def names(sources: Iterable[Object], reader: Reader) -> frozenset[str]:
    """Return the names of all variables. An object that does not exist or is not readable sets none.

    `sources`: entries of `envFrom` in a manifest. The component `server` reports such an object, and does not change
    the pods.
    """
    variables: set[str] = set()
    for source in sources:
        kind = kinds.SECRET if source.get("secretRef") else kinds.CONFIGMAP
        reference = source.get("secretRef") or source.get("configMapRef")
        if reference:
            try:
                values = await reader.values(kind, reference["name"])
            except Forbidden:
                continue
            variables |= {f"{source.get('prefix') or ''}{key}" for key in values or ()}
    return frozenset(variables)
