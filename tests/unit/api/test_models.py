"""Serialization of the models, and their agreement with the schema of the CRD."""

from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st
from jsonschema import Draft202012Validator

from mlflow_operator.api import InvalidResource, MLflowServer, parse
from mlflow_operator.api.quantities import is_quantity, parse_quantity
from tests.server_values import resource_schema

EXAMPLES = sorted((Path(__file__).parents[3] / "manifests" / "examples").glob("*.yaml"))
CLOSED_SCHEMA = resource_schema()
VALIDATOR = Draft202012Validator(CLOSED_SCHEMA)

names = st.from_regex(r"[a-z][a-z0-9-]{0,10}[a-z0-9]", fullmatch=True)
sizes = st.builds("{}{}".format, st.integers(2, 999), st.sampled_from(["Mi", "Gi", "Ti", "M", "G"]))
amounts = st.one_of(st.integers(1, 8), st.sampled_from(["100m", "1.5", "2Gi", "512Mi", "1e3"]))


def optional(**members: st.SearchStrategy[Any]) -> st.SearchStrategy[dict[str, Any]]:
    """An object with a random subset of its fields."""
    return st.fixed_dictionaries({}, optional=members)


resources = optional(requests=st.dictionaries(st.sampled_from(["cpu", "memory"]), amounts))
volumes = optional(size=sizes, storageClassName=names)
databases = st.one_of(
    st.fixed_dictionaries({"embedded": optional(storage=volumes, resources=resources)}),
    st.fixed_dictionaries({"external": st.fixed_dictionaries({"uriSecretRef": st.builds(dict, name=names)})}),
    st.fixed_dictionaries(
        {
            "external": st.fixed_dictionaries(
                {"host": names, "credentialsSecretRef": st.builds(dict, name=names)},
                optional={"port": st.integers(1, 65535), "databaseName": names},
            )
        }
    ),
)
stores = st.one_of(
    st.fixed_dictionaries({"embedded": optional(storage=volumes)}),
    st.fixed_dictionaries(
        {"s3": st.fixed_dictionaries({"bucket": st.from_regex(r"[a-z0-9]{3,20}", fullmatch=True)})},
        optional={"access": st.sampled_from(["Proxied", "Presigned"])},
    ),
)
specs = optional(
    version=st.from_regex(r"[0-9]{1,2}\.[0-9]{1,2}\.[0-9]{1,2}(rc[0-9])?", fullmatch=True),
    replicas=st.integers(0, 100),
    workers=st.integers(1, 64),
    suspend=st.booleans(),
    resources=resources,
    allowedHosts=st.lists(names, max_size=4, unique=True),
    env=st.lists(st.builds(dict, name=st.sampled_from(["A", "B"]), value=st.text(max_size=9)), max_size=2),
    podTemplate=optional(
        metadata=optional(labels=st.dictionaries(names, names, max_size=2)),
        spec=optional(
            nodeSelector=st.dictionaries(names, names, max_size=2), affinity=st.just({"nodeAffinity": {}})
        ),
    ),
    service=optional(type=st.sampled_from(["ClusterIP", "NodePort"]), port=st.integers(1, 65535)),
    database=databases,
    artifacts=stores,
)


def test_schema_is_valid() -> None:
    """The tests below depend on a valid JSON schema."""
    Draft202012Validator.check_schema(CLOSED_SCHEMA)


def parse_spec(spec: dict[str, Any]) -> MLflowServer:
    """Parse a resource with this spec."""
    return parse({"metadata": {"name": "a"}, "spec": spec})


def contains(expected: Any, actual: Any) -> bool:
    """Whether `actual` contains everything in `expected`."""
    if isinstance(expected, dict):
        return all(name in actual and contains(value, actual[name]) for name, value in expected.items())
    if isinstance(expected, list):
        return len(expected) == len(actual) and all(map(contains, expected, actual))
    return bool(expected == actual)


@given(specs)
@settings(max_examples=100, deadline=None)
def test_spec_survives_a_round_trip(spec: dict[str, Any]) -> None:
    """Parsing and serializing a spec only adds defaults. A second round trip changes nothing."""
    manifest = parse_spec(spec).spec.manifest()
    assert contains(spec, manifest)
    assert parse_spec(manifest).spec.manifest() == manifest


@given(specs)
@settings(max_examples=100, deadline=None)
def test_specs_that_models_accept_match_the_schema(spec: dict[str, Any]) -> None:
    """The models and the schema of the CRD accept the same generated specs."""
    VALIDATOR.validate({"spec": spec})


@given(
    st.dictionaries(
        st.sampled_from(list(CLOSED_SCHEMA["properties"]["spec"]["properties"])), st.none() | st.integers()
    )
)
@settings(deadline=None)
def test_parse_raises_only_invalid_resource(spec: dict[str, Any]) -> None:
    """Values of a wrong type raise InvalidResource and no other error."""
    with suppress(InvalidResource):
        assert parse_spec(spec).spec


@pytest.mark.parametrize("path", EXAMPLES, ids=lambda path: path.stem)
def test_examples_are_valid(path: Path) -> None:
    """Models and schema accept every file in manifests/examples."""
    servers = [doc for doc in yaml.safe_load_all(path.read_text()) if doc["kind"] == "MLflowServer"]
    assert servers
    for document in servers:
        VALIDATOR.validate(document)
        parse(document)


@pytest.mark.parametrize(
    ("quantity", "expected"),
    [
        ("10Gi", 10 * 2**30),
        ("1M", 10**6),
        ("500m", 0.5),
        ("1e3", 1000),
        ("1E", 10**18),
        (".5", 0.5),
        ("2.", 2),
        (3, 3),
    ],
)
def test_parse_quantity(quantity: str | int, expected: float) -> None:
    """Quantities have the same meaning as in Kubernetes: a wrong unit could allow a volume to shrink."""
    assert is_quantity(quantity)
    assert float(parse_quantity(quantity)) == expected


@pytest.mark.parametrize("text", ["", "Gi", "1 Gi", "1GB", "1gi", "0x1", "1e", "--1", "1K"])
def test_invalid_quantity_is_rejected(text: str) -> None:
    """Units are case-sensitive: k is valid, K and GB are not."""
    assert not is_quantity(text)
    with pytest.raises(ValueError, match="not a valid quantity"):
        parse_quantity(text)
