"""From what pydantic emits to what Kubernetes takes: a structural schema.

Structural means: every node has a type, nothing refers elsewhere, and no type hides in `anyOf`. An optional
member is one that may be absent: `null` is refused, so that an empty `external:` in a manifest is a mistake that
is seen, and not an embedded database.
"""

from typing import Any

from pydantic import BaseModel

from mlflow_operator.api.markers import UNSTORED_DEFAULT

Schema = dict[str, Any]

_KEPT = (
    "description",
    "type",
    "format",
    "enum",
    "default",
    "minimum",
    "maximum",
    "minLength",
    "maxLength",
    "minItems",
    "maxItems",
    "minProperties",
    "maxProperties",
    "required",
    "items",
    "properties",
    "additionalProperties",
    "x-kubernetes-int-or-string",
    "x-kubernetes-list-type",
    "x-kubernetes-list-map-keys",
    "x-kubernetes-preserve-unknown-fields",
    "x-kubernetes-validations",
)
"""Keywords of the result, in the order in which they are printed."""

_DROPPED = ("title", "propertyNames", UNSTORED_DEFAULT)
"""Keywords that Kubernetes refuses and the resource can do without."""


def structural(model: type[BaseModel]) -> Schema:
    """Return the structural schema of a model, its fields by their names on the wire.

    Raises ValueError for what a structural schema can't say, naming the keyword.
    """
    emitted = model.model_json_schema(by_alias=True, mode="validation")
    return _node(emitted, emitted.get("$defs", {}))


def _node(raw: Schema, defs: dict[str, Schema]) -> Schema:
    node = _resolved(raw, defs)
    if unknown := node.keys() - {*_KEPT, *_DROPPED, "$defs"}:
        raise ValueError(f"no structural schema can say {sorted(unknown)}")
    if node.pop(UNSTORED_DEFAULT, False):
        node.pop("default", None)
    if "default" in node:
        _settle_default(node)
    if "description" in node:
        node["description"] = " ".join(str(node["description"]).split())
    if "properties" in node:
        node["properties"] = {name: _node(child, defs) for name, child in node["properties"].items()}
    if "items" in node:
        node["items"] = _node(node["items"], defs)
    extra = node.get("additionalProperties")
    if isinstance(extra, dict):
        node["additionalProperties"] = _node(extra, defs)
    else:
        # Unknown fields are pruned with or without it, and beside `properties` the API server refuses it.
        node.pop("additionalProperties", None)
    return {keyword: node[keyword] for keyword in _KEPT if keyword in node}


def _resolved(raw: Schema, defs: dict[str, Schema]) -> Schema:
    """Return a copy with references and the `null` alternative gone; what stands beside them wins."""
    node = dict(raw)
    while "$ref" in node or "anyOf" in node:
        if "$ref" in node:
            inner = defs[node.pop("$ref").removeprefix("#/$defs/")]
        else:
            alternatives = [choice for choice in node.pop("anyOf") if choice.get("type") != "null"]
            if len(alternatives) != 1:
                raise ValueError(f"no structural schema can say anyOf {alternatives}")
            inner = alternatives[0]
        node = {**inner, **node}
    return node


def _settle_default(node: Schema) -> None:
    """Keep scalar defaults; of an object's default keep `{}`, for its members bring their own.

    An object without stored members gets none: the API server would show an empty object to everybody.
    """
    default = node["default"]
    if isinstance(default, dict):
        if _stores(default):
            node["default"] = {}
        else:
            del node["default"]
    elif default is None or default == []:
        del node["default"]


def _stores(default: Any) -> bool:
    """Tell whether a default has any scalar in it."""
    if isinstance(default, dict):
        return any(_stores(value) for value in default.values())
    return default is not None and default != []
