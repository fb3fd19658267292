"""Models and wire: what is written comes back, and fits the schema the CRD carries."""

from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st
from jsonschema import Draft202012Validator

from mlflow_operator.api import InvalidResource, MLflowServer, parse
from mlflow_operator.api.quantities import amount, is_quantity
from tests.server_values import resource

EXAMPLES = sorted((Path(__file__).parents[3] / "manifests" / "examples").glob("*.yaml"))
STRICT = resource()
VALIDATOR = Draft202012Validator(STRICT)

names = st.from_regex(r"[a-z][a-z0-9-]{0,10}[a-z0-9]", fullmatch=True)
sizes = st.builds("{}{}".format, st.integers(2, 999), st.sampled_from(["Mi", "Gi", "Ti", "M", "G"]))
amounts = st.one_of(st.integers(1, 8), st.sampled_from(["100m", "1.5", "2Gi", "512Mi", "1e3"]))


def optional(**members: st.SearchStrategy[Any]) -> st.SearchStrategy[dict[str, Any]]:
    """An object with any of its members."""
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
    """Else the tests below hold nothing."""
    Draft202012Validator.check_schema(STRICT)


def server(spec: dict[str, Any]) -> MLflowServer:
    """The resource with this spec."""
    return parse({"metadata": {"name": "a"}, "spec": spec})


def within(written: Any, found: Any) -> bool:
    """Whether everything written is found again."""
    if isinstance(written, dict):
        return all(name in found and within(value, found[name]) for name, value in written.items())
    if isinstance(written, list):
        return len(written) == len(found) and all(map(within, written, found))
    return bool(written == found)


@given(specs)
@settings(max_examples=100, deadline=None)
def test_what_is_written_comes_back(spec: dict[str, Any]) -> None:
    """Nothing is lost or changed on the way through a model; only defaults join it."""
    manifest = server(spec).spec.manifest()
    assert within(spec, manifest)
    assert server(manifest).spec.manifest() == manifest


@given(specs)
@settings(max_examples=100, deadline=None)
def test_what_a_model_takes_fits_the_schema(spec: dict[str, Any]) -> None:
    """The schema in the CRD and the models are one thing said twice."""
    VALIDATOR.validate({"spec": spec})


@given(
    st.dictionaries(
        st.sampled_from(list(STRICT["properties"]["spec"]["properties"])), st.none() | st.integers()
    )
)
@settings(deadline=None)
def test_whatever_is_stored_is_read_or_refused(spec: dict[str, Any]) -> None:
    """One type of error for all that does not fit."""
    with suppress(InvalidResource):
        assert server(spec).spec


@pytest.mark.parametrize("path", EXAMPLES, ids=lambda path: path.stem)
def test_every_example_is_read_and_fits_the_schema(path: Path) -> None:
    """Who copies an example has something that works."""
    found = [doc for doc in yaml.safe_load_all(path.read_text()) if doc["kind"] == "MLflowServer"]
    assert found
    for document in found:
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
def test_quantities_are_read_as_kubernetes_reads_them(quantity: str | int, expected: float) -> None:
    """A wrong unit would let a volume shrink, or refuse one that grows."""
    assert is_quantity(quantity)
    assert float(amount(quantity)) == expected


@pytest.mark.parametrize("text", ["", "Gi", "1 Gi", "1GB", "1gi", "0x1", "1e", "--1", "1K"])
def test_what_is_no_quantity_is_none(text: str) -> None:
    """Units are exact: K is none and k is, GB never."""
    assert not is_quantity(text)
    with pytest.raises(ValueError, match="no quantity"):
        amount(text)
