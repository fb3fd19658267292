"""The API reference: every field of a resource, from the schema of the CRD and the example manifests."""

import json
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import yaml

from mlflow_operator import api
from mlflow_operator.api.crd import PLATFORM, SERVER, CustomResource
from mlflow_operator.api.mlflowplatform import DEFAULT_ANNOTATION
from mlflow_operator.api.mlflowserver import MAX_NAME_CHARS
from mlflow_operator.api.rules import VALIDATIONS
from mlflow_operator.api.schema import Schema, structural_schema
from tests.cluster.settings import ROOT
from tests.reference.markdown import NOTICE, code, table
from tests.schema_nodes import walk_schema

EXAMPLES = sorted((ROOT / "manifests" / "examples").glob("*.yaml"))
_MAX_EXAMPLE_CHARS = 80
_LIMITS = {
    "minimum": "minimum {}",
    "maximum": "maximum {}",
    "minLength": "at least {} characters",
    "maxLength": "at most {} characters",
    "minItems": "at least {} items",
    "maxItems": "at most {} items",
    "maxProperties": "at most {} entries",
}
_DEFAULT = re.compile(r"(?:^| )Defaults to (.+?)\.(?= [A-Z]|$)")
_SERVER_INTRODUCTION = f"""\
# API reference

{NOTICE}

`MLflowServer` is a namespaced resource of `{api.API_VERSION}`, short name `mls`. Field paths start below `spec` or
`status`; `[]` stands for each item of a list and `.*` for each value of a map. `kubectl explain mlflowserver.spec`
prints the same descriptions. Only `metadata.name` is required; it has at most {MAX_NAME_CHARS} characters.
"""
_PLATFORM_INTRODUCTION = f"""\
# API reference of MLflowPlatform

{NOTICE}

`MLflowPlatform` is a cluster-scoped resource of `{api.API_VERSION}`, short name `mlp`: the PostgreSQL and the
S3 that a platform team offers to the servers in selected namespaces. The operator checks both with the administrators'
credentials, once a minute at most unless the spec or a Secret changes, and reports the result in the
[conditions](conditions.md#mlflowplatform).

Only cluster administrators should be able to write it, because it decides to which hosts the operator sends these
credentials. The chart of the operator does not grant this permission.

The annotation `{DEFAULT_ANNOTATION}: "true"` makes a platform the default of the namespaces that
it selects. If two default platforms select the same namespace, neither is `Ready`: the reason is
`DefaultPlatformConflict`.

Field paths start below `spec` or `status`; `[]` stands for each item of a list and `.*` for each value of a map.
`kubectl explain mlflowplatform.spec` prints the same descriptions.
"""


@dataclass(frozen=True)
class FieldEntry:
    """A field of the resource: its path, whether its parent requires it, and its schema."""

    path: str
    required: bool
    schema: Schema


def server_page() -> str:
    """Return the page of MLflowServer."""
    return _page(SERVER, _SERVER_INTRODUCTION)


def platform_page() -> str:
    """Return the page of MLflowPlatform."""
    return _page(PLATFORM, _PLATFORM_INTRODUCTION)


def _page(resource: CustomResource, introduction: str) -> str:
    examples = _example_values(resource.kind)
    parts = [introduction]
    for top, model in (("spec", resource.spec), ("status", resource.status)):
        section = structural_schema(model, examples=True)
        parts.append(f"## {top}\n\n{section.get('description', '')}\n")
        direct = [
            entry
            for entry in fields(section)
            if entry.path in section["properties"] and not has_fields(inner_schema(entry.schema))
        ]
        parts.append(_fields_table(top, direct, examples))
        parts += _rules(top, section)
        for name, member in section["properties"].items():
            if has_fields(inner_schema(member)):
                parts.append(f"### {top}.{name}\n\n{member.get('description', '')}\n")
                prefix = f"{name}[]" if member["type"] == "array" else name
                nested = list(fields(inner_schema(member), prefix))
                parts.append(_fields_table(top, nested, examples))
                parts += _rules(f"{top}.{prefix}", inner_schema(member))
    return "\n".join(parts)


def fields(schema: Schema, prefix: str = "") -> Iterator[FieldEntry]:
    """Yield every field below a schema, parents before children."""
    nodes = dict(walk_schema(schema, prefix))
    for path, node in nodes.items():
        parent, _, name = path.rpartition(".")
        if path != prefix and not path.endswith(("[]", ".*")):
            yield FieldEntry(path.removeprefix("."), name in nodes[parent].get("required", ()), node)


def inner_schema(schema: Schema) -> Schema:
    """The schema of a list's items or of a map's values; any other schema itself."""
    inner = schema.get("items") or schema.get("additionalProperties") or schema
    return inner if isinstance(inner, dict) else schema


def has_fields(schema: Schema) -> bool:
    return "properties" in schema


def _fields_table(top: str, entries: list[FieldEntry], examples: Mapping[str, Any]) -> str:
    rows = []
    for entry in entries:
        path = f"{top}.{entry.path}"
        rows.append(
            (
                code(entry.path) + (" (required)" if entry.required else ""),
                _type(entry.schema),
                _default(entry.schema),
                _description(entry.schema, with_limits=top == "spec"),
                code(_example(path, entry.schema, examples)),
            )
        )
    columns = ("Field", "Type", "Default", "Description", "Example")
    if top == "status":  # The operator sets these fields: they have no defaults.
        return table(columns[:2] + columns[3:], [row[:2] + row[3:] for row in rows])
    return table(columns, rows)


def _type(schema: Schema) -> str:
    if "enum" in schema:
        return " or ".join(code(str(value)) for value in schema["enum"])
    if schema.get("x-kubernetes-int-or-string"):
        return "integer or string"
    if schema.get("type") == "array":
        return f"list of {_type(schema['items'])}"
    if schema.get("type") == "object" and isinstance(schema.get("additionalProperties"), dict):
        return f"map of {_type(schema['additionalProperties'])}"
    return str(schema.get("format") or schema["type"])


def _default(schema: Schema) -> str:
    """The default in the schema, and what the description says about it.

    The schema contains no default that depends on other fields or that belongs to a member of a union.
    """
    match = _DEFAULT.search(str(schema.get("description", "")))
    text = match[1] if match else ""
    if "default" not in schema:
        return code(_as_json(text, schema)) if re.fullmatch(r"[\w.]+", text) else text
    value = code(json.dumps(schema["default"]))
    return (
        value if not text or _as_json(text, schema) == json.dumps(schema["default"]) else f"{value}: {text}"
    )


def _as_json(text: str, schema: Schema) -> str:
    return json.dumps(text) if schema.get("type") == "string" else text


def _description(schema: Schema, *, with_limits: bool) -> str:
    limits = [text.format(schema[keyword]) for keyword, text in _LIMITS.items() if keyword in schema]
    description = _DEFAULT.sub(
        "", str(schema.get("description", ""))
    ).strip()  # The table has a column for defaults.
    sentences = [description, *_messages(schema)]
    if limits and with_limits:
        sentences.append(f"Limits: {', '.join(limits)}.")
    return " ".join(sentence for sentence in sentences if sentence)


def _messages(schema: Schema) -> list[str]:
    """The messages of the rules on a single value; those on objects are listed below their table."""
    if has_fields(schema):
        return []
    return [f"{_as_rule(rule['message']).rstrip('.')}." for rule in schema.get(VALIDATIONS, ())]


def _rules(path: str, schema: Schema) -> list[str]:
    """The rules on an object and on the objects in it, as a list."""
    messages = [rule["message"] for rule in schema.get(VALIDATIONS, ())]
    for entry in fields(schema):
        inner = inner_schema(entry.schema)
        if path not in {"spec", "status"} and has_fields(inner):
            messages += [rule["message"] for rule in inner.get(VALIDATIONS, ())]
    if not messages:
        return []
    return ["Rules:\n", "\n".join(f"- {_capitalized(message)}" for message in dict.fromkeys(messages)) + "\n"]


def _as_rule(message: str) -> str:
    """`the value is not a valid X: use Y` describes an error; the reference describes the format."""
    invalid = re.fullmatch(r"the value is not an? valid [^:]+: (?:use |write )?(.+)", message)
    return f"Format: {invalid[1]}" if invalid else _capitalized(message)


def _capitalized(text: str) -> str:
    """The message as a sentence of its own. A path such as `spec.replicas` keeps its first letter."""
    if text.startswith("must "):
        return f"The value {text}"
    return text[:1].upper() + text[1:] if text.startswith("the ") else text


def _example_values(kind: str) -> dict[str, Any]:
    """The first value of every field in manifests/examples, by path."""
    found: dict[str, Any] = {}
    for path in EXAMPLES:
        for document in yaml.safe_load_all(path.read_text()):
            if document and document.get("kind") == kind:
                for name, value in _values(document.get("spec") or {}, "spec"):
                    found.setdefault(name, value)
    return found


def _values(value: Any, path: str) -> Iterator[tuple[str, Any]]:
    yield path, value
    if isinstance(value, dict):
        for name, child in value.items():
            yield from _values(child, f"{path}.{name}")
    elif isinstance(value, list):
        for child in value:
            yield from _values(child, f"{path}[]")


def _example(path: str, schema: Schema, examples: Mapping[str, Any]) -> str:
    """An example in JSON: from the model, from manifests/examples unless it is too long, or the default."""
    if "examples" in schema:
        return json.dumps(schema["examples"][0], default=str)
    choices = [examples[path]] if path in examples else []
    choices += [schema[keyword] for keyword in ("default",) if keyword in schema]
    choices += schema.get("enum", [])[-1:]
    texts = [json.dumps(choice, default=str) for choice in choices]
    return next((text for text in texts if len(text) <= _MAX_EXAMPLE_CHARS), "")
