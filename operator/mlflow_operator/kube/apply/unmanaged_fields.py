"""Compute JSON patches for fields that another client added to the operator's objects and that affect the workload.

Server-side apply removes only fields that the operator itself applied. An environment variable, a container, a volume
mount or a selector key of a Service that another client added stays unless a JSON patch removes it. Apply cannot fix a
union either: it adds the desired member beside the other client's member (`value` beside `valueFrom`), and the API
server rejects the combination. For a union the patch replaces the whole value.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from mlflow_operator.kube import json_patch
from mlflow_operator.kube.apply import schema_fields
from mlflow_operator.kube.objects import Object

_ENV_SOURCES = frozenset({"value", "valueFrom"})
_PROBE_ACTIONS = frozenset({"exec", "grpc", "httpGet", "tcpSocket"})
_PROBES = ("livenessProbe", "readinessProbe", "startupProbe")
_REMOVED_AS_A_WHOLE = ("args", "command", "envFrom")


@dataclass(frozen=True)
class PatchOp:
    """Operation of a JSON patch: a replacement, or a removal if `value` is None.

    `field` is the path in messages, `pointer` is the JSON pointer for the API server.
    """

    pointer: str
    field: str
    value: Any = None

    def as_json(self) -> Object:
        """Return the operation in the form of RFC 6902."""
        if self.value is None:
            return json_patch.remove(self.pointer)
        return json_patch.replace(self.pointer, self.value)


def removals(desired: Object, observed: Object) -> list[PatchOp]:
    """Return operations, in the order to apply them, that remove unmanaged fields from `observed`.

    Unmanaged fields are those that are not in `desired` and that an apply of `desired` would leave in place.
    """
    match desired["kind"]:
        case "Deployment" | "StatefulSet":
            return [*_workload_ops(desired, observed)]
        case "Service":
            desired_spec, observed_spec = desired.get("spec") or {}, observed.get("spec") or {}
            return [
                *_list_map_ops(desired_spec, observed_spec, "ports", _FieldPath("/spec", "spec")),
                *_map_ops(desired_spec, observed_spec, "selector", _FieldPath("/spec", "spec")),
            ]
        case "ConfigMap" | "Secret":
            desired_data = {**(desired.get("data") or {}), **(desired.get("stringData") or {})}
            return [*_map_ops({"data": desired_data}, observed, "data", _FieldPath("", ""))]
        case _:
            return []


@dataclass(frozen=True)
class _FieldPath:
    """Position in an object, as a JSON pointer and as the path in messages."""

    pointer: str
    field: str

    def member(self, name: str) -> "_FieldPath":
        escaped = name.replace("~", "~0").replace("/", "~1")
        return _FieldPath(f"{self.pointer}/{escaped}", schema_fields.child_path(self.field, name))

    def entry(self, index: int, key: str) -> "_FieldPath":
        return _FieldPath(f"{self.pointer}/{index}", schema_fields.entry_path(self.field, key))

    def remove(self) -> PatchOp:
        return PatchOp(self.pointer, self.field)

    def replace(self, value: Any) -> PatchOp:
        return PatchOp(self.pointer, self.field, value)


def _workload_ops(desired: Object, observed: Object) -> Iterator[PatchOp]:
    spec_path = _FieldPath("/spec", "spec")
    strategy = desired["spec"].get("strategy") or {}
    # Apply with type Recreate keeps the defaulted rollingUpdate, and the API server rejects the combination.
    if strategy.get("type") == "Recreate" and "rollingUpdate" in (observed["spec"].get("strategy") or {}):
        yield spec_path.member("strategy").replace(strategy)
    pod_path = spec_path.member("template").member("spec")
    desired_pod, observed_pod = desired["spec"]["template"]["spec"], observed["spec"]["template"]["spec"]
    for group in ("containers", "initContainers"):
        yield from _list_map_ops(desired_pod, observed_pod, group, pod_path)
    yield from _list_map_ops(desired_pod, observed_pod, "volumes", pod_path)


def _list_map_ops(desired: Object, observed: Object, name: str, parent: _FieldPath) -> Iterator[PatchOp]:
    """Operations for a list-map that the operator owns completely, from the last index to the first.

    In this order a removal does not shift the indexes of later operations.
    """
    desired_entries, observed_entries = desired.get(name) or [], observed.get(name) or []
    keys = schema_fields.list_map_keys(name, [*desired_entries, *observed_entries])
    desired_by_key = {schema_fields.entry_key(entry, keys): entry for entry in desired_entries}
    observed_keys = {schema_fields.entry_key(entry, keys) for entry in observed_entries}
    missing = [entry for key, entry in desired_by_key.items() if key not in observed_keys]
    for index, entry in reversed([*enumerate(observed_entries)]):
        key = schema_fields.entry_key(entry, keys)
        entry_path = parent.member(name).entry(index, str(key))
        if key not in desired_by_key and name == "ports" and missing:
            # Another client changed the port number. If apply added the desired port, two ports had the same name.
            yield entry_path.replace(missing.pop(_index_by_name(entry, missing)))
        elif key not in desired_by_key:
            yield entry_path.remove()
        elif name in ("containers", "initContainers"):
            yield from _container_ops(desired_by_key[key], entry, entry_path)
        elif _has_other_union_member(desired_by_key[key], entry, _union_members(name, entry)):
            yield entry_path.replace(desired_by_key[key])


def _container_ops(desired: Object, observed: Object, path: _FieldPath) -> Iterator[PatchOp]:
    for name in ("env", "ports", "volumeMounts"):
        yield from _list_map_ops(desired, observed, name, path)
    for name in _REMOVED_AS_A_WHOLE:
        if observed.get(name) and not desired.get(name):
            yield path.member(name).remove()
    for name in _PROBES:
        if desired.get(name) and _has_other_union_member(
            desired[name], observed.get(name) or {}, _PROBE_ACTIONS
        ):
            yield path.member(name).replace(desired[name])


def _index_by_name(port: Object, candidates: list[Object]) -> int:
    names = [candidate.get("name") for candidate in candidates]
    return names.index(port.get("name")) if port.get("name") in names else 0


def _union_members(name: str, entry: Object) -> frozenset[str]:
    match name:
        case "volumes":
            return frozenset(entry) - {"name"}
        case "env":
            return _ENV_SOURCES
        case _:
            return frozenset()


def _has_other_union_member(desired: Object, observed: Object, members: frozenset[str]) -> bool:
    return any(member in observed and member not in desired for member in members)


def _map_ops(desired: Object, observed: Object, name: str, parent: _FieldPath) -> Iterator[PatchOp]:
    """Operations for a map that the operator owns completely."""
    for key in sorted(set(observed.get(name) or {}) - set(desired.get(name) or {})):
        yield parent.member(name).member(key).remove()
