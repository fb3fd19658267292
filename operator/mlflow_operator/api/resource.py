"""What the custom resources have in common: their group and version, their metadata, and how they are parsed."""

from collections.abc import Mapping
from typing import Any, TypeVar

from pydantic import ConfigDict, Field, ValidationError

from mlflow_operator.api.model import Model

GROUP = "mlflow-operator.dev"
VERSION = "v1alpha1"
API_VERSION = f"{GROUP}/{VERSION}"

R = TypeVar("R", bound=Model)

_MESSAGES = {"model_type": "Input should be an object with fields"}
"""Messages by the type of the error, in place of those of pydantic that name Python classes."""


class InvalidResource(ValueError):  # noqa: N818 - a condition's reason of the same name
    """The resource violates the CRD. The message names the fields and contains no values that may be secret."""


class Metadata(Model):
    """Metadata of the object. Fields that the operator does not read are untyped and preserved."""

    model_config = ConfigDict(extra="allow")

    name: str
    namespace: str = "default"
    uid: str = ""
    generation: int = 0
    labels: dict[str, str] = Field(default_factory=dict)
    annotations: dict[str, str] = Field(default_factory=dict)
    finalizers: tuple[str, ...] = ()
    deletion_timestamp: str | None = None


def parse_as(model: type[R], obj: Mapping[str, Any]) -> R:
    """Parse a resource from the API server or from a manifest; unknown fields are ignored.

    Raises InvalidResource if the resource violates the CRD. The message names every invalid field.
    """
    try:
        return model.model_validate(obj, by_alias=True, by_name=False)
    except ValidationError as error:
        # The cause contains the values, such as those of spec.env, and must not be logged: it is not chained.
        messages = (_format_error(details, model.__name__) for details in error.errors())
        raise InvalidResource("; ".join(messages)) from None


def _format_error(details: Mapping[str, Any], kind: str) -> str:
    path = "".join(f"[{part}]" if isinstance(part, int) else f".{part}" for part in details["loc"])
    message = _MESSAGES.get(details["type"]) or str(details["msg"]).removeprefix("Value error, ")
    return f"{path.lstrip('.') or kind}: {message}"
