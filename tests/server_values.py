"""The definition of MLflowServer as JSON schema, and the values of the chart mlflow-server made from it.

Rules that the definition has in CEL are left to the API server, whose sentences tell the way out; a schema could only
say that a pattern does not match.
"""

import json
import textwrap
from collections.abc import Iterator
from typing import Any

import yaml

from mlflow_operator.api.crd import openapi_schema

Schema = dict[str, Any]

MARK = "# Everything from here on is the spec of the MLflowServer;"
"""The line of values.yaml from which on it is made here."""

_TEXTS: Schema = {"type": "object", "additionalProperties": {"type": "string"}}

OWN: Schema = {
    "global": {
        "description": "Set by a chart that has this one as a dependency; not used.",
        "type": "object",
    },
    "fullnameOverride": {"type": "string"},
    "labels": _TEXTS,
    "annotations": _TEXTS,
    "test": {
        "type": "object",
        "additionalProperties": False,
        "properties": {
            "image": {"type": "string", "pattern": "^([A-Za-z0-9][A-Za-z0-9._/:@-]*[A-Za-z0-9])?$"}
        },
    },
}
"""Values of the chart's own."""

_KEPT = (
    "description",
    "enum",
    "minimum",
    "maximum",
    "minLength",
    "maxLength",
    "minItems",
    "maxItems",
    "minProperties",
    "maxProperties",
    "required",
)
"""Keywords that mean the same in the definition and here."""


def schema() -> str:
    """values.schema.json. ValueError: the spec has a field of the name of one of the chart's own values."""
    fields: Schema = openapi_schema()["properties"]["spec"]["properties"]
    if taken := fields.keys() & OWN.keys():
        raise ValueError(f"{sorted(taken)} of the spec would hide values of the chart's own: rename those")
    whole = {
        "$schema": "http://json-schema.org/draft-07/schema#",
        "title": "Values of the chart mlflow-server",
        "description": "Made by `make generate` from the definition of MLflowServer and tests/server_values.py.",
        "type": "object",
        "additionalProperties": False,
        "properties": OWN | {name: _absent(closed(field)) for name, field in fields.items()},
    }
    return json.dumps(whole, indent=2) + "\n"


def values(present: str) -> str:
    """values.yaml: what is written by hand, up to the mark, and every field of the spec, not set."""
    head, _, rest = present.partition(MARK)
    introduction = rest.split("\n\n", 1)[0].rstrip("\n")
    fields: Schema = openapi_schema()["properties"]["spec"]["properties"]
    return "\n".join([f"{head}{MARK}{introduction}", "", *_lines(fields)])


def resource() -> Schema:
    """A whole MLflowServer as JSON schema; what stands in `metadata` is Kubernetes' own."""
    whole = closed(openapi_schema())
    whole["properties"] |= {"metadata": {"type": "object"}}
    return whole


def closed(node: Schema) -> Schema:
    """A node of the definition as JSON schema, in which a name that it does not know is an error."""
    found = {key: node[key] for key in _KEPT if key in node}
    if node.get("x-kubernetes-int-or-string"):
        return found | {"type": ["integer", "string"]}
    found["type"] = node["type"]
    if "properties" in node:
        found["properties"] = {name: closed(child) for name, child in node["properties"].items()}
        found["additionalProperties"] = bool(node.get("x-kubernetes-preserve-unknown-fields"))
    elif "additionalProperties" in node:
        found["additionalProperties"] = closed(node["additionalProperties"])
    if "items" in node:
        found["items"] = closed(node["items"])
    return found


def _absent(node: Schema) -> Schema:
    """The same, or nothing: null is how a value that has no default is written, and how one is taken back."""
    if "enum" in node:
        node = node | {"enum": [*node["enum"], None]}
    # an object's is {}: what it needs once there is anything in it, the API server says
    node = {key: value for key, value in node.items() if key != "required"}
    kinds = node["type"] if isinstance(node["type"], list) else [node["type"]]
    return node | {"type": [*kinds, "null"]}


def _lines(fields: Schema) -> Iterator[str]:
    for name, field in fields.items():
        kind = "string" if field.get("x-kubernetes-int-or-string") else field["type"]
        empty = {"object": " {}", "array": " []"}.get(kind, "")
        text = field["description"] if empty else f"({_NAMES[kind]}) {field['description']}"
        yield from textwrap.wrap(text, 118, initial_indent="# -- ", subsequent_indent="# ")
        if not empty:
            default = f"`{yaml.safe_dump(field['default']).split()[0]}`" if "default" in field else "absent"
            yield f"# @default -- {default}"
        yield f"{name}:{empty}"
        yield ""


_NAMES = {"string": "string", "integer": "int", "boolean": "bool", "number": "float"}
"""What helm-docs calls the types."""
