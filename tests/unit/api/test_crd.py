"""The CRD: what it must be so that an API server takes it and people can read it."""

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml
from click.testing import CliRunner

from mlflow_operator.api.crd import as_yaml, custom_resource_definition, openapi_schema
from mlflow_operator.cli import main

MANIFEST = Path(__file__).parents[3] / "manifests" / "crd.yaml"

Node = dict[str, Any]


def nodes(node: Node, path: str = "") -> Iterator[tuple[str, Node]]:
    """Walk a schema: each node with its path."""
    yield path, node
    for name, child in node.get("properties", {}).items():
        yield from nodes(child, f"{path}.{name}")
    if "items" in node:
        yield from nodes(node["items"], f"{path}[]")
    if isinstance(node.get("additionalProperties"), dict):
        yield from nodes(node["additionalProperties"], f"{path}{{}}")


ALL = dict(nodes(openapi_schema()))
BELOW = {path: node for path, node in ALL.items() if path.startswith((".spec", ".status"))}


def test_the_manifest_is_what_the_models_say() -> None:
    """Regenerate with `mlflow-operator crd > manifests/crd.yaml`."""
    assert MANIFEST.read_text() == as_yaml()


def test_the_command_prints_the_manifest() -> None:
    """What a user installs and what is checked in are one text."""
    outcome = CliRunner().invoke(main, ["crd"])
    assert (outcome.exit_code, outcome.output) == (0, as_yaml())


def test_the_text_is_plain_yaml_without_aliases() -> None:
    """Every tool reads it, and reading it gives the object back."""
    assert yaml.safe_load(as_yaml()) == custom_resource_definition()
    assert not any(isinstance(event, yaml.AliasEvent) for event in yaml.parse(as_yaml()))


@pytest.mark.parametrize("path", ALL)
def test_every_node_is_structural(path: str) -> None:
    """A type, or one of the two marks that stand for one; nothing that refers elsewhere."""
    node = ALL[path]
    assert "type" in node or node.get("x-kubernetes-int-or-string")
    assert not node.keys() & {"$ref", "$defs", "anyOf", "allOf", "oneOf", "not", "nullable", "title", "const"}
    assert not ("properties" in node and "additionalProperties" in node)


@pytest.mark.parametrize("path", [path for path in BELOW if not path.endswith(("[]", "{}"))])
def test_every_field_is_described(path: str) -> None:
    """`kubectl explain` has a sentence for everything; one line, as it is shown in one paragraph."""
    description = BELOW[path].get("description", "")
    assert description.endswith((".", ")")), f"{path}: {description!r}"
    assert "\n" not in description


@pytest.mark.parametrize("path", BELOW)
def test_every_string_list_and_map_is_bounded(path: str) -> None:
    """The API server estimates what a rule may cost from these bounds, and refuses a CRD without them."""
    node = BELOW[path]
    if node.get("type") == "string" and node.get("format") != "date-time" and "enum" not in node:
        assert "maxLength" in node
    if node.get("type") == "array":
        assert "maxItems" in node
        assert "x-kubernetes-list-type" in node
    if "additionalProperties" in node:
        assert "maxProperties" in node


@pytest.mark.parametrize("path", [path for path in ALL if "x-kubernetes-validations" in ALL[path]])
def test_every_rule_has_a_sentence(path: str) -> None:
    """Kubernetes' own text for a broken rule is the rule; nobody should have to read it."""
    for rule in ALL[path]["x-kubernetes-validations"]:
        assert len(rule["message"].split()) > 5
        assert "\n" not in rule["message"]


@pytest.mark.parametrize("union", [".spec.database", ".spec.artifacts"])
def test_a_union_member_is_never_defaulted(union: str) -> None:
    """A stored default would be a member, and shut out the others."""
    for container in (".spec", union):
        assert ALL[container].get("default", {}) == {}
    for name, member in ALL[union]["properties"].items():
        assert name == "access" or "default" not in member


def test_members_of_unions_are_those_that_work() -> None:
    """A value is shipped when it works, not before."""
    assert ALL[".spec.artifacts.access"]["enum"] == ["Proxied", "Presigned", "Direct"]
    assert ALL[".spec.artifacts.embedded.engine"]["enum"] == ["MinIO", "SeaweedFS"]


def test_scale_and_columns_point_at_fields_that_exist() -> None:
    """A path that misses shows nothing, without any error."""
    version = custom_resource_definition()["spec"]["versions"][0]
    paths = [*version["subresources"]["scale"].values()]
    paths += [c["jsonPath"] for c in version["additionalPrinterColumns"] if "[?" not in c["jsonPath"]]
    assert all(path in ALL or path.startswith(".metadata") for path in paths)
    assert [c["name"] for c in version["additionalPrinterColumns"]] == [
        "Ready", "Reason", "Version", "URL", "Age",
    ]  # fmt: skip


def test_rules_use_nothing_newer_than_kubernetes_1_30() -> None:
    """An older API server refuses the whole CRD for one function it does not know.

    1.30 admits what 1.29 evaluates: no IP addresses, CIDRs, named formats, semantic versions or two-variable loops.
    """
    newer = re.compile(
        r"\b(isIP|ip|isCIDR|cidr|format\.|semver|isSemver|transformList|transformMap|sortBy|reverse)\b"
    )
    for path, node in ALL.items():
        for rule in node.get("x-kubernetes-validations", []):
            cel = rule["rule"] + rule.get("messageExpression", "")
            assert not newer.search(re.sub(r"'(\\.|[^'\\])*'", "''", cel)), f"{path}: {cel}"
