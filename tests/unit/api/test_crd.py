"""The CRDs: structural schema, descriptions, limits, and compatibility with Kubernetes 1.30."""

import re
from pathlib import Path

import pytest
import yaml
from click.testing import CliRunner

from mlflow_operator.api.crd import (
    CUSTOM_RESOURCES,
    PLATFORM,
    SERVER,
    as_yaml,
    custom_resource_definition,
    openapi_schema,
)
from mlflow_operator.cli import main
from tests.schema_nodes import walk_schema

MANIFEST = Path(__file__).parents[3] / "manifests" / "crd.yaml"

NODES = dict(walk_schema(openapi_schema()))
ALL_NODES = {
    f"{resource.kind}{path}": node
    for resource in CUSTOM_RESOURCES
    for path, node in walk_schema(openapi_schema(resource))
}
FIELDS = {path: node for path, node in ALL_NODES.items() if ".spec" in path or ".status" in path}


def test_crd_manifest_is_up_to_date() -> None:
    """Regenerate with `mlflow-operator crd > manifests/crd.yaml`."""
    assert MANIFEST.read_text() == as_yaml()


def test_crd_command_prints_the_manifest() -> None:
    """`mlflow-operator crd` prints manifests/crd.yaml."""
    result = CliRunner().invoke(main, ["crd"])
    assert (result.exit_code, result.output) == (0, as_yaml())


def test_crd_yaml_has_no_aliases() -> None:
    """Aliases are not supported by all tools. The YAML round trip preserves the object."""
    assert [*yaml.safe_load_all(as_yaml())] == [*map(custom_resource_definition, CUSTOM_RESOURCES)]
    assert not any(isinstance(event, yaml.AliasEvent) for event in yaml.parse(as_yaml()))


@pytest.mark.parametrize("path", ALL_NODES)
def test_schema_is_structural(path: str) -> None:
    """Every node has a type or `x-kubernetes-int-or-string`, and there are no references and combinators."""
    node = ALL_NODES[path]
    assert "type" in node or node.get("x-kubernetes-int-or-string")
    assert not node.keys() & {"$ref", "$defs", "anyOf", "allOf", "oneOf", "not", "nullable", "title", "const"}
    assert not ("properties" in node and "additionalProperties" in node)


@pytest.mark.parametrize("path", [path for path in FIELDS if not path.endswith(("[]", ".*"))])
def test_every_field_has_a_description(path: str) -> None:
    """`kubectl explain` shows the description as one paragraph."""
    description = FIELDS[path].get("description", "")
    assert description.endswith((".", ")")), f"{path}: {description!r}"
    assert "\n" not in description


@pytest.mark.parametrize("path", FIELDS)
def test_strings_lists_and_maps_have_limits(path: str) -> None:
    """The API server estimates the cost of CEL rules from these limits, and rejects a CRD without them."""
    node = FIELDS[path]
    if node.get("type") == "string" and node.get("format") != "date-time" and "enum" not in node:
        assert "maxLength" in node
    if node.get("type") == "array":
        assert "maxItems" in node
        assert "x-kubernetes-list-type" in node
    if "additionalProperties" in node:
        assert "maxProperties" in node


@pytest.mark.parametrize(
    "path", [path for path in ALL_NODES if "x-kubernetes-validations" in ALL_NODES[path]]
)
def test_every_rule_has_a_message(path: str) -> None:
    """Without a message, the API server reports the CEL expression."""
    for rule in ALL_NODES[path]["x-kubernetes-validations"]:
        assert len(rule["message"].split()) > 5
        assert "\n" not in rule["message"]


@pytest.mark.parametrize("union", [".spec.database", ".spec.artifacts"])
def test_union_fields_have_no_default(union: str) -> None:
    """A persisted default would count as set and exclude the other fields."""
    for container in (".spec", union):
        assert NODES[container].get("default", {}) == {}
    for name, member in NODES[union]["properties"].items():
        assert name == "access" or "default" not in member


def test_enums_contain_supported_values_only() -> None:
    """A value is added to an enum together with its implementation."""
    assert NODES[".spec.artifacts.access"]["enum"] == ["Proxied", "Presigned", "Direct"]
    assert NODES[".spec.artifacts.embedded.engine"]["enum"] == ["MinIO", "SeaweedFS"]


def test_scale_and_printer_columns_refer_to_existing_fields() -> None:
    """Kubernetes ignores a path that does not exist, without an error."""
    version = custom_resource_definition(SERVER)["spec"]["versions"][0]
    paths = [*version["subresources"]["scale"].values()]
    paths += [c["jsonPath"] for c in version["additionalPrinterColumns"] if "[?" not in c["jsonPath"]]
    assert all(path in NODES or path.startswith(".metadata") for path in paths)
    assert [c["name"] for c in version["additionalPrinterColumns"]] == [
        "Ready", "Reason", "Version", "URL", "Platform", "Age",
    ]  # fmt: skip


def test_platform_is_cluster_scoped_and_prints_whether_it_is_the_default() -> None:
    """`kubectl get mlp` shows the default as `kubectl get storageclass` does. Tenants have no access to it."""
    spec = custom_resource_definition(PLATFORM)["spec"]
    columns = {c["name"]: c["jsonPath"] for c in spec["versions"][0]["additionalPrinterColumns"]}
    assert (spec["scope"], spec["names"]["shortNames"]) == ("Cluster", ["mlp"])
    assert [*columns] == ["Ready", "Reason", "Default", "Database", "Artifacts", "Age", "Message"]
    assert columns["Default"] == ".status.isDefault"
    assert spec["versions"][0]["subresources"] == {"status": {}}


def test_platform_requires_a_spec() -> None:
    """An empty platform offers nothing; an empty MLflowServer is valid."""
    assert openapi_schema(PLATFORM)["required"] == ["spec"]
    assert "default" not in openapi_schema(PLATFORM)["properties"]["spec"]
    assert "required" not in openapi_schema(SERVER)


def test_rules_are_supported_by_kubernetes_1_30() -> None:
    """The API server rejects a CRD with an unknown CEL function.

    Kubernetes 1.30 accepts what 1.29 can evaluate: no functions for IP addresses, CIDRs, named formats and semantic
    versions, and no two-variable comprehensions.
    """
    unsupported = re.compile(
        r"\b(isIP|ip|isCIDR|cidr|format\.|semver|isSemver|transformList|transformMap|sortBy|reverse)\b"
    )
    for path, node in ALL_NODES.items():
        for rule in node.get("x-kubernetes-validations", []):
            cel = rule["rule"] + rule.get("messageExpression", "")
            assert not unsupported.search(re.sub(r"'(\\.|[^'\\])*'", "''", cel)), f"{path}: {cel}"


@pytest.mark.parametrize(
    ("metadata", "spec", "fields"),
    [
        (
            "{name: a}",
            "spec: {databse: {}, podTemplate: {spec: {tolerations: [{kee: a}], nodeSelector: {any: name}}}}",
            "spec.databse, spec.podTemplate.spec.tolerations[0].kee",
        ),
        ("{name: a}", "Spec: {replicas: 3}", "Spec"),
        ("{name: a, annotation: {b: c}, labels: {any: name}}", "spec: {}", "metadata.annotation"),
    ],
    ids=["spec", "resource", "metadata"],
)
def test_render_rejects_unknown_fields(metadata: str, spec: str, fields: str) -> None:
    """A misspelled field would silently have no effect; kubectl reports it when it applies the resource."""
    resource = f"apiVersion: mlflow-operator.dev/v1alpha1\nkind: MLflowServer\nmetadata: {metadata}\n{spec}\n"
    result = CliRunner().invoke(main, ["render", "-f", "-"], input=resource)
    assert result.exit_code == 1
    assert f"a: unknown field {fields}. Correct the name or remove it." in result.output


def test_render_accepts_an_object_of_the_cluster() -> None:
    """Output of `kubectl get -o yaml`."""
    manifest = {
        "apiVersion": "mlflow-operator.dev/v1alpha1",
        "kind": "MLflowServer",
        "metadata": {
            "name": "a",
            "uid": "u",
            "resourceVersion": "1",
            "generation": 1,
            "creationTimestamp": "2026-01-01T00:00:00Z",
            "managedFields": [{"manager": "kubectl"}],
        },
        "spec": {},
        "status": {"version": "3.18.0"},
    }
    result = CliRunner().invoke(main, ["render", "-f", "-"], input=yaml.safe_dump(manifest))
    assert result.exit_code == 0, result.output
