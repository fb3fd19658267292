"""Selection of namespaces and prefixes of servers."""

from collections.abc import Mapping
from typing import Any

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from mlflow_operator.api import mlflowplatform
from mlflow_operator.api.database import DatabaseTLSMode
from mlflow_operator.model.platform import Platform, defaults_for, resolve_platform
from mlflow_operator.model.server import SecretKey
from tests.unit.api.platform_refusals import platform, s3, without

KEYS, VALUES = ["a", "b", "example.com/c"], ["", "1", "2"]
LABELS = st.dictionaries(st.sampled_from(KEYS), st.sampled_from(VALUES))
EXPRESSIONS = st.one_of(
    st.builds(
        lambda key, operator, values: {"key": key, "operator": operator, "values": values},
        st.sampled_from(KEYS),
        st.sampled_from(["In", "NotIn"]),
        st.lists(st.sampled_from(VALUES), min_size=1),
    ),
    st.builds(
        lambda key, operator: {"key": key, "operator": operator},
        st.sampled_from(KEYS),
        st.sampled_from(["Exists", "DoesNotExist"]),
    ),
)
SELECTORS = st.fixed_dictionaries(
    {}, optional={"matchLabels": LABELS, "matchExpressions": st.lists(EXPRESSIONS, max_size=3)}
)
NAMESPACES = st.from_regex(r"[a0]([a-]{0,1}[a0])?", fullmatch=True)
NAMES = st.from_regex(r"a([a-]{0,1}a)?", fullmatch=True)
"""Short names of few characters, so that two often are equal or begin with the same characters."""
SEGMENTS = st.lists(st.from_regex(r"[A-Za-z0-9_][A-Za-z0-9_.=@-]{0,2}", fullmatch=True), max_size=2)


def resolved(spec: dict[str, Any], name: str = "shared", *, is_default: bool = False) -> Platform:
    """A platform with this spec."""
    annotations = {mlflowplatform.DEFAULT_ANNOTATION: "true"} if is_default else {}
    metadata = {"name": name, "uid": "uid", "annotations": annotations}
    return resolve_platform(mlflowplatform.parse({"metadata": metadata, "spec": spec}))


def is_selected(selector: Mapping[str, Any], labels: Mapping[str, str]) -> bool:
    """The semantics of Kubernetes' documentation, one requirement after the other."""
    for key, value in selector.get("matchLabels", {}).items():
        if key not in labels or labels[key] != value:
            return False
    for expression in selector.get("matchExpressions", ()):
        key, values = expression["key"], expression.get("values", [])
        is_in = key in labels and labels[key] in values
        expected = {
            "In": is_in,
            "NotIn": not is_in,
            "Exists": key in labels,
            "DoesNotExist": key not in labels,
        }
        if not expected[expression["operator"]]:
            return False
    return True


@given(SELECTORS, LABELS)
@example({"matchExpressions": [{"key": "a", "operator": "NotIn", "values": ["1"]}]}, {})
@example({"matchExpressions": [{"key": "a", "operator": "In", "values": [""]}]}, {})
@example({"matchLabels": {"a": ""}}, {})
@settings(max_examples=500)
def test_selectors_have_the_semantics_of_kubernetes(selector: dict[str, Any], labels: dict[str, str]) -> None:
    selected = resolved(platform(namespaceSelector=selector)).selects(labels)
    assert selected is is_selected(selector, labels)


def test_empty_selector_selects_every_namespace() -> None:
    assert resolved(platform(namespaceSelector={})).selects({})


@given(
    st.permutations(["{namespace}", "{name}"]),
    st.tuples(SEGMENTS, SEGMENTS, SEGMENTS),
    st.tuples(NAMESPACES, NAMES),
    st.tuples(NAMESPACES, NAMES),
)
def test_prefixes_of_different_servers_do_not_overlap(
    placeholders: list[str],
    others: tuple[list[str], list[str], list[str]],
    first: tuple[str, str],
    second: tuple[str, str],
) -> None:
    """A key for a prefix covers everything below it: none may contain another, whatever the template is."""
    template = "/".join([*others[0], placeholders[0], *others[1], placeholders[1], *others[2]])
    store = resolved(s3(prefix=template)).artifacts
    assert store
    prefixes = [f"{store.prefix_of(*server)}/" for server in (first, second)]
    assert (prefixes[0].startswith(prefixes[1]) or prefixes[1].startswith(prefixes[0])) is (first == second)
    assert not any(character in prefix for prefix in prefixes for character in "{}*?$")


@pytest.mark.parametrize(
    ("spec", "prefix"),
    [
        (platform(), "team-a/tracking"),
        (s3(prefix="mlflow/{name}/of/{namespace}/v=1"), "mlflow/tracking/of/team-a/v=1"),
    ],
)
def test_prefix_replaces_the_placeholders_only(spec: dict[str, Any], prefix: str) -> None:
    store = resolved(spec).artifacts
    assert store
    assert store.prefix_of("team-a", "tracking") == prefix


def test_all_secrets_are_in_the_namespace_of_the_platform() -> None:
    """The fields in messages are those of the resource."""
    found = resolved(platform())
    assert found.database
    assert found.artifacts
    reference = "spec.database.postgres.adminSecretRef"
    assert found.database.username == SecretKey("postgres-admin", "username", reference, "mlflow-platform")
    keys = (
        found.database.username,
        found.database.password,
        found.database.ca,
        found.artifacts.admin.access_key,
        found.artifacts.admin.secret_key,
    )
    assert {key.namespace for key in keys if key} == {"mlflow-platform"}
    assert found.database.tls is DatabaseTLSMode.VERIFY_FULL


@pytest.mark.parametrize("part", ["database", "artifacts"])
def test_missing_part_is_not_offered(part: str) -> None:
    assert getattr(resolved(without(part)), part) is None


def test_only_default_platforms_that_select_a_namespace_apply() -> None:
    everywhere, elsewhere = (
        platform(namespaceSelector={}),
        platform(namespaceSelector={"matchLabels": {"a": "1"}}),
    )
    platforms = [
        resolved(everywhere, "not-default"),
        resolved(elsewhere, "elsewhere", is_default=True),
        resolved(everywhere, "here", is_default=True),
    ]
    assert [found.name for found in defaults_for(platforms, {})] == ["here"]
    assert [found.name for found in defaults_for(platforms, {"a": "1"})] == ["elsewhere", "here"]
