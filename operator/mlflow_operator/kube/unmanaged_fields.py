"""What somebody added by hand to an object of ours, where what is added changes what we run.

Server-side apply removes only what we ourselves once applied. An environment variable, a container, a mount
or a Service's selector key that a stranger added stays for ever unless it is taken out by a patch. The other
case it can't heal is a choice: apply adds our member beside the stranger's (`value` beside `valueFrom`), and
the API server refuses both. There the whole choice is replaced.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from mlflow_operator.kube import schema_fields
from mlflow_operator.kube.objects import Object

_ENV_SOURCES = frozenset({"value", "valueFrom"})
_PROBE_ACTIONS = frozenset({"exec", "grpc", "httpGet", "tcpSocket"})
_PROBES = ("livenessProbe", "readinessProbe", "startupProbe")
_WHOLE = ("args", "command", "envFrom")


@dataclass(frozen=True)
class PatchOp:
    """One step of a JSON patch. `field` is the path for people, `pointer` the one for the API server.

    `value` None means: remove. Corrections of one object are in an order in which they can be carried out.
    """

    pointer: str
    field: str
    value: Any = None

    def step(self) -> Object:
        """The step as the patch says it."""
        if self.value is None:
            return {"op": "remove", "path": self.pointer}
        return {"op": "replace", "path": self.pointer, "value": self.value}


def removals(desired: Object, live: Object) -> list[PatchOp]:
    """How to take out of `live` what is not in `desired` and what applying `desired` would leave in it."""
    match desired["kind"]:
        case "Deployment" | "StatefulSet":
            return [*_of_workload(desired, live)]
        case "Service":
            wanted, found = desired.get("spec") or {}, live.get("spec") or {}
            return [
                *_entries(wanted, found, "ports", _Place("/spec", "spec")),
                *_members(wanted, found, "selector", _Place("/spec", "spec")),
            ]
        case "ConfigMap" | "Secret":
            given = {**(desired.get("data") or {}), **(desired.get("stringData") or {})}
            return [*_members({"data": given}, live, "data", _Place("", ""))]
        case _:
            return []


@dataclass(frozen=True)
class _Place:
    """Where in the object we are, in both notations."""

    pointer: str
    field: str

    def member(self, name: str) -> "_Place":
        escaped = name.replace("~", "~0").replace("/", "~1")
        return _Place(f"{self.pointer}/{escaped}", schema_fields.child(self.field, name))

    def entry(self, index: int, key: str) -> "_Place":
        return _Place(f"{self.pointer}/{index}", schema_fields.list_entry(self.field, key))

    def remove(self) -> PatchOp:
        return PatchOp(self.pointer, self.field)

    def replace(self, value: Any) -> PatchOp:
        return PatchOp(self.pointer, self.field, value)


def _of_workload(desired: Object, live: Object) -> Iterator[PatchOp]:
    spec = _Place("/spec", "spec")
    wanted = desired["spec"].get("strategy") or {}
    # The defaults of a rolling update stay when apply asks for Recreate, and the API server refuses the two.
    if wanted.get("type") == "Recreate" and "rollingUpdate" in (live["spec"].get("strategy") or {}):
        yield spec.member("strategy").replace(wanted)
    pods = spec.member("template").member("spec")
    want, have = desired["spec"]["template"]["spec"], live["spec"]["template"]["spec"]
    for group in ("containers", "initContainers"):
        yield from _entries(want, have, group, pods)
    yield from _entries(want, have, "volumes", pods)


def _entries(wanted: Object, found: Object, name: str, place: _Place) -> Iterator[PatchOp]:
    """Of a list-map that is wholly ours. From the end on, so that no removal moves what is still to come."""
    ours, theirs = wanted.get(name) or [], found.get(name) or []
    keys = schema_fields.keys_of(name, [*ours, *theirs])
    by_key = {schema_fields.key_of(entry, keys): entry for entry in ours}
    held = {schema_fields.key_of(entry, keys) for entry in theirs}
    missing = [entry for key, entry in by_key.items() if key not in held]
    for index, entry in reversed([*enumerate(theirs)]):
        key = schema_fields.key_of(entry, keys)
        where = place.member(name).entry(index, str(key))
        if key not in by_key and name == "ports" and missing:
            # A port number that somebody changed: with apply's own beside it, two ports have one name.
            yield where.replace(missing.pop(_named_as(entry, missing)))
        elif key not in by_key:
            yield where.remove()
        elif name in ("containers", "initContainers"):
            yield from _of_container(by_key[key], entry, where)
        elif _other_choice(by_key[key], entry, _choices(name, entry)):
            yield where.replace(by_key[key])


def _of_container(wanted: Object, found: Object, place: _Place) -> Iterator[PatchOp]:
    for name in ("env", "ports", "volumeMounts"):
        yield from _entries(wanted, found, name, place)
    for name in _WHOLE:
        if found.get(name) and not wanted.get(name):
            yield place.member(name).remove()
    for name in _PROBES:
        if wanted.get(name) and _other_choice(wanted[name], found.get(name) or {}, _PROBE_ACTIONS):
            yield place.member(name).replace(wanted[name])


def _named_as(port: Object, candidates: list[Object]) -> int:
    names = [candidate.get("name") for candidate in candidates]
    return names.index(port.get("name")) if port.get("name") in names else 0


def _choices(name: str, entry: Object) -> frozenset[str]:
    match name:
        case "volumes":
            return frozenset(entry) - {"name"}
        case "env":
            return _ENV_SOURCES
        case _:
            return frozenset()


def _other_choice(wanted: Object, found: Object, choices: frozenset[str]) -> bool:
    return any(choice in found and choice not in wanted for choice in choices)


def _members(wanted: Object, found: Object, name: str, place: _Place) -> Iterator[PatchOp]:
    """Of a map that is wholly ours."""
    for key in sorted(set(found.get(name) or {}) - set(wanted.get(name) or {})):
        yield place.member(name).member(key).remove()
