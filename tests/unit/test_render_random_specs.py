"""Whatever the CRD takes becomes valid objects, and at rest stays as it is: drawn at random from the CRD itself."""

import copy
import random
from collections.abc import Iterator
from typing import Any

from hypothesis import HealthCheck, assume, given, settings
from hypothesis import strategies as st

from mlflow_operator import api
from mlflow_operator import render as desired
from mlflow_operator.kube import diff, schema_fields
from mlflow_operator.kube.objects import Object
from mlflow_operator.kube.unmanaged_fields import removals
from mlflow_operator.model.resolve import ClusterDefaults, resolve
from mlflow_operator.model.versions import Images
from tests.unit.api.specs import specs
from tests.unit.kubernetes_schemas import valid
from tests.unit.servers import resource
from tests.unit.test_render import GENERATED

NAMES = st.from_regex(r"[a-z]([a-z0-9-]{0,38}[a-z0-9])?", fullmatch=True)
SLOW = settings(deadline=None, suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large])


def built(server: api.MLflowServer) -> list[Object]:
    """Everything that a server is made of."""
    found = resolve(server, ClusterDefaults(Images()))
    return [*desired.secrets(found, GENERATED), *desired.objects(found)]


@st.composite
def objects(draw: st.DrawFn) -> Object:
    """One of the objects of some server, its random numbers aside."""
    try:
        server = resource(draw(specs(odd=0)))
    except api.InvalidResource:
        assume(False)
        raise
    return draw(st.sampled_from(built(server)))


@settings(SLOW, max_examples=50)
@given(specs(), NAMES)
def test_any_spec_is_refused_in_a_sentence_or_gives_valid_objects(spec: Object, name: str) -> None:
    """Never a traceback, an object that Kubernetes refuses, a name too long, or another object the next time."""
    before, refusal = copy.deepcopy(spec), ""
    try:
        server = resource(spec, name)
    except api.InvalidResource as error:
        refusal = str(error)
    if refusal:
        assert refusal.startswith("spec")
        return
    made = built(server)
    for obj in made:
        valid(obj, "1.34")
        assert len(obj["metadata"]["name"]) <= 63
    assert made == built(resource(before, name))


@settings(SLOW, max_examples=40)
@given(objects(), st.randoms(use_true_random=False))
def test_what_the_api_server_adds_and_sorts_is_no_drift(obj: Object, rng: random.Random) -> None:
    """At rest nothing is written, whatever the spec."""
    live = _as_stored(obj, "", "", rng)
    assert diff.drift(obj, live) == []
    assert removals(obj, obj) == []


@settings(SLOW, max_examples=25)
@given(objects())
def test_any_value_of_ours_that_is_changed_is_drift(obj: Object) -> None:
    """No field that the operator sets can be edited by hand for good."""
    for path in _leaves(obj, ()):
        if path[0] in _IDENTITY or path[:2] in _NAMES:
            continue
        live = copy.deepcopy(obj)
        place = live
        for part in path[:-1]:
            place = place[part]
        place[path[-1]] = _another(place[path[-1]])
        assert diff.drift(obj, live) != [], path


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


def _another(value: Any) -> Any:
    match value:
        case bool():
            return not value
        case int():
            return value + 1
    return "7777" if value != "7777" else "7778"


def _as_stored(value: Any, field: str, parent: str, rng: random.Random) -> Any:
    """As the API server would store it: more fields in every struct, list-maps in another order, nothing empty."""
    match value:
        case dict():
            kept = {name: _as_stored(member, name, field, rng) for name, member in value.items()}
            kept = {name: member for name, member in kept.items() if member not in ({}, [], None)}
            names = sorted(kept)
            rng.shuffle(names)
            more = (
                {}
                if field in schema_fields.STRING_MAPS | schema_fields.QUANTITY_MAPS
                else {"byDefault": True}
            )
            return {name: kept[name] for name in names} | more
        case list():
            entries = [_as_stored(entry, field, field, rng) for entry in value]
            if schema_fields.keys_of(field, value):
                rng.shuffle(entries)
            return entries
    return value
