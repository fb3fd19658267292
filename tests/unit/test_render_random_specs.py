"""Random specs from the CRD's schema: every valid spec gives valid objects, and none of them is written again."""

import copy
import random
from collections.abc import Iterator
from typing import Any

from hypothesis import HealthCheck, assume, given, settings
from hypothesis import strategies as st

from mlflow_operator import api
from mlflow_operator import render as desired
from mlflow_operator.kube import pod_references
from mlflow_operator.kube.apply import diff, schema_fields
from mlflow_operator.kube.apply.unmanaged_fields import removals
from mlflow_operator.kube.objects import Object
from mlflow_operator.model import deployment
from mlflow_operator.model.resolve import ClusterDefaults, resolve
from mlflow_operator.model.versions import Images
from tests.unit.api.specs import specs
from tests.unit.kubernetes_schemas import validate_object
from tests.unit.servers import resource
from tests.unit.test_render import GENERATED

NAMES = st.from_regex(r"[a-z]([a-z0-9-]{0,38}[a-z0-9])?", fullmatch=True)
SLOW = settings(deadline=None, suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large])


def build_objects(server: api.MLflowServer) -> list[Object]:
    """All objects of a server."""
    resolved = resolve(server, ClusterDefaults(Images()))
    return [*desired.secrets(resolved, GENERATED), *desired.objects(resolved)]


@st.composite
def objects(draw: st.DrawFn) -> Object:
    """One object of a random server."""
    try:
        server = resource(draw(specs(arbitrary_one_in=0)))
    except api.InvalidResource:
        assume(False)
        raise
    return draw(st.sampled_from(build_objects(server)))


@settings(SLOW, max_examples=50)
@given(specs(), NAMES)
def test_a_random_spec_is_rejected_with_a_message_or_gives_valid_objects(spec: Object, name: str) -> None:
    """Without a traceback, an invalid object, a name that is too long, or a different result for the same spec."""
    before, refusal = copy.deepcopy(spec), ""
    try:
        server = resource(spec, name)
    except api.InvalidResource as error:
        refusal = str(error)
    if refusal:
        assert refusal.startswith("spec")
        return
    built = build_objects(server)
    for obj in built:
        validate_object(obj, "1.34")
        assert len(obj["metadata"]["name"]) <= 63
    assert built == build_objects(resource(before, name))
    pod_spec = next(obj for obj in built if obj["kind"] == "Deployment")["spec"]["template"]["spec"]
    assert deployment.references(resolve(server, ClusterDefaults(Images()))) == pod_references.of_pod(
        pod_spec
    )


@settings(SLOW, max_examples=40)
@given(objects(), st.randoms(use_true_random=False))
def test_defaulting_and_sorting_by_the_api_server_is_no_drift(obj: Object, rng: random.Random) -> None:
    """Without a change of the spec, the operator writes nothing."""
    observed = _as_api_server_stores(obj, "", "", rng)
    assert diff.drift(obj, observed) == []
    assert removals(obj, obj) == []


@settings(SLOW, max_examples=25)
@given(objects())
def test_every_changed_value_is_drift(obj: Object) -> None:
    """The operator reverts manual changes of all fields that it sets."""
    for path in _leaves(obj, ()):
        if path[0] in _IDENTITY or path[:2] in _NAMES:
            continue
        observed = copy.deepcopy(obj)
        parent = observed
        for part in path[:-1]:
            parent = parent[part]
        parent[path[-1]] = _changed_value(parent[path[-1]])
        assert diff.drift(obj, observed) != [], path


_IDENTITY = ("apiVersion", "kind", "type")
_NAMES = (("metadata", "name"), ("metadata", "namespace"), ("metadata", "finalizers"))


def _leaves(value: Any, path: tuple[Any, ...]) -> Iterator[tuple[Any, ...]]:
    match value:
        case dict():
            for name, member in value.items():
                yield from _leaves(member, (*path, name))
        case list():
            for number, entry in enumerate(value):
                yield from _leaves(entry, (*path, number))
        case None:
            return
        case _:
            yield path


def _changed_value(value: Any) -> Any:
    match value:
        case bool():
            return not value
        case int():
            return value + 1
    return "7777" if value != "7777" else "7778"


def _as_api_server_stores(value: Any, field: str, parent: str, rng: random.Random) -> Any:
    """Simulate the API server: additional fields in every struct, list maps in another order, no empty values."""
    match value:
        case dict():
            stored = {name: _as_api_server_stores(member, name, field, rng) for name, member in value.items()}
            stored = {name: member for name, member in stored.items() if member not in ({}, [], None)}
            names = sorted(stored)
            rng.shuffle(names)
            defaults = (
                {}
                if field in schema_fields.STRING_MAPS | schema_fields.QUANTITY_MAPS
                else {"byDefault": True}
            )
            return {name: stored[name] for name in names} | defaults
        case list():
            entries = [_as_api_server_stores(entry, field, field, rng) for entry in value]
            if schema_fields.list_map_keys(field, value):
                rng.shuffle(entries)
            return entries
    return value
