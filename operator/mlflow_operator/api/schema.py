"""Conversion of pydantic's JSON schemas to structural schemas of Kubernetes.

In a structural schema every node has a type, and there are no references and no `anyOf`. An optional field may be
missing, but must not be `null`: an empty `external:` in a manifest is rejected, instead of creating an embedded
database.
"""

from typing import Any

from pydantic import BaseModel

from mlflow_operator.api.markers import NOT_PERSISTED_DEFAULT

Schema = dict[str, Any]

_KEYWORDS = (
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
"""Keywords of a structural schema, in output order."""

_REMOVED_KEYWORDS = ("title", "propertyNames", "examples", NOT_PERSISTED_DEFAULT)
"""Keywords that Kubernetes does not accept and that are removed."""


def structural_schema(model: type[BaseModel], *, examples: bool = False) -> Schema:
    """Return the structural schema of a model, with the JSON names of its fields.

    `examples` keeps the keyword `examples` for documentation; Kubernetes does not accept it in a CRD. Raises
    ValueError, with the keyword, if a structural schema cannot express the model.
    """
    emitted = model.model_json_schema(by_alias=True, mode="validation")
    keywords = (*_KEYWORDS, "examples") if examples else _KEYWORDS
    return _structural_node(emitted, emitted.get("$defs", {}), keywords)


def _structural_node(raw: Schema, defs: dict[str, Schema], keywords: tuple[str, ...]) -> Schema:
    node = _resolve_refs(raw, defs)
    if unknown := node.keys() - {*_KEYWORDS, *_REMOVED_KEYWORDS, "$defs"}:
        raise ValueError(f"a structural schema does not support {sorted(unknown)}")
    if node.pop(NOT_PERSISTED_DEFAULT, False):
        node.pop("default", None)
    if "default" in node:
        _normalize_default(node)
    if "description" in node:
        node["description"] = " ".join(str(node["description"]).split())
    if "properties" in node:
        node["properties"] = {
            name: _structural_node(child, defs, keywords) for name, child in node["properties"].items()
        }
    if "items" in node:
        node["items"] = _structural_node(node["items"], defs, keywords)
    extra = node.get("additionalProperties")
    if isinstance(extra, dict):
        node["additionalProperties"] = _structural_node(extra, defs, keywords)
    else:
        # The API server prunes unknown fields anyway, and rejects this keyword next to `properties`.
        node.pop("additionalProperties", None)
    return {keyword: node[keyword] for keyword in keywords if keyword in node}


def _resolve_refs(raw: Schema, defs: dict[str, Schema]) -> Schema:
    """Return a copy without references and without the alternative `null`. Keywords next to them take precedence."""
    node = dict(raw)
    while "$ref" in node or "anyOf" in node:
        if "$ref" in node:
            inner = defs[node.pop("$ref").removeprefix("#/$defs/")]
        else:
            alternatives = [choice for choice in node.pop("anyOf") if choice.get("type") != "null"]
            if len(alternatives) != 1:
                raise ValueError(f"a structural schema does not support anyOf {alternatives}")
            inner = alternatives[0]
        node = {**inner, **node}
    return node


def _normalize_default(node: Schema) -> None:
    """Keep scalar defaults. Replace the default of an object by `{}`, because its fields have their own defaults.

    The default of an object without persisted fields is removed: the API server would persist an empty object.
    """
    default = node["default"]
    if isinstance(default, dict):
        if _contains_scalar(default):
            node["default"] = {}
        else:
            del node["default"]
    elif default is None or default == []:
        del node["default"]


def _contains_scalar(default: Any) -> bool:
    """Return whether a default contains a scalar."""
    if isinstance(default, dict):
        return any(_contains_scalar(value) for value in default.values())
    return default is not None and default != []
