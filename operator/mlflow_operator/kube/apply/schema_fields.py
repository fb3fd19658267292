"""Properties of API fields that the JSON of an object does not show.

These are the keys of list-maps (`x-kubernetes-list-type: map`), fields that hold quantities, and fields that the API
server omits when they are zero. The tables cover only the kinds that the operator writes; the values of all other
fields are compared literally.
"""

import json
from collections.abc import Iterable, Iterator

from mlflow_operator.kube.objects import Object

LIST_MAP_KEYS: dict[str, tuple[str, ...]] = {
    "conditions": ("type",),
    "containers": ("name",),
    "env": ("name",),
    "ephemeralContainers": ("name",),
    "hostAliases": ("ip",),
    "imagePullSecrets": ("name",),
    "initContainers": ("name",),
    "ownerReferences": ("uid",),
    "topologySpreadConstraints": ("topologyKey", "whenUnsatisfiable"),
    "volumeDevices": ("devicePath",),
    "volumeMounts": ("mountPath",),
    "volumes": ("name",),
}
"""Keys of the lists that server-side apply merges by entry. For `ports` see `list_map_keys`; other lists are atomic."""

KEY_DEFAULTS = {"protocol": "TCP"}

QUANTITY_MAPS = frozenset({"limits", "requests", "capacity", "hard"})
QUANTITIES = frozenset({"sizeLimit", "divisor"})

INT_OR_STRING = frozenset({"port", "targetPort", "maxUnavailable", "maxSurge", "minAvailable"})

STRING_MAPS = frozenset(
    {"annotations", "binaryData", "data", "labels", "matchLabels", "nodeSelector", "selector", "stringData"}
)
"""Maps with arbitrary keys. In them an empty string is a value; elsewhere it is equivalent to an absent field."""

OMITTED_ZEROS = frozenset(
    {
        "hostIPC",
        "hostNetwork",
        "hostPID",
        "initialDelaySeconds",
        "minReadySeconds",
        "publishNotReadyAddresses",
    }
    | {"readOnly", "stdin", "tty", "weight"}
)
"""Fields that the API server omits when they are zero or false. It keeps most other fields, and for those absent does
not mean false: an absent `automountServiceAccountToken` means true."""


def list_map_keys(field: str, entries: Iterable[object]) -> tuple[str, ...]:
    """Return the keys that identify an entry of the list `field`; empty for an atomic list."""
    if field != "ports":
        return LIST_MAP_KEYS.get(field, ())
    of_container = any(isinstance(entry, dict) and "containerPort" in entry for entry in entries)
    return ("containerPort", "protocol") if of_container else ("port", "protocol")


def entry_key(entry: object, keys: tuple[str, ...]) -> str | None:
    """Return the key of a list-map's entry as it appears in a path; None if a key field is missing."""
    if not isinstance(entry, dict):
        return None
    values = [entry.get(key, KEY_DEFAULTS.get(key)) for key in keys]
    return None if None in values else "/".join(str(value) for value in values)


def child_path(path: str, name: str) -> str:
    """Return the path of a child field: `spec.replicas`, `metadata.labels[example.org/team]`."""
    if not path:
        return name
    return f"{path}[{name}]" if "." in name or "/" in name else f"{path}.{name}"


def entry_path(path: str, key: str) -> str:
    """Return the path of a list-map's entry: `spec.template.spec.containers[server]`."""
    return f"{path}[{key}]"


def other_managers(observed: Object, paths: Iterable[str], own_manager: str) -> list[str]:
    """Return the sorted field managers that own a field at `paths`, according to `metadata.managedFields`.

    Leaves out `own_manager`.
    """
    paths_to_match = tuple(paths)
    managers = set()
    for record in observed.get("metadata", {}).get("managedFields") or ():
        name = record.get("manager", "")
        if name and name != own_manager and _overlaps(record.get("fieldsV1") or {}, paths_to_match):
            managers.add(name)
    return sorted(managers)


def _overlaps(fields: Object, paths: tuple[str, ...]) -> bool:
    return any(
        _is_at_or_below(leaf, path) or _is_at_or_below(path, leaf)
        for leaf in _leaf_paths(fields, "")
        for path in paths
    )


def _is_at_or_below(path: str, parent: str) -> bool:
    return path == parent or path.startswith((f"{parent}.", f"{parent}["))


def _leaf_paths(fields: Object, path: str) -> Iterator[str]:
    # The notation of fieldsV1: "f:name" is a field, 'k:{"name":"server"}' an entry of a list-map, "v:..." a value of a
    # set, and "." the field itself. If a field has children, only the children count.
    members = {name: children for name, children in fields.items() if name != "."}
    if not members and path:
        yield path
    for name, children in members.items():
        prefix, _, text = name.partition(":")
        match prefix:
            case "f":
                yield from _leaf_paths(children, child_path(path, text))
            case "k":
                keys = json.loads(text)
                yield from _leaf_paths(
                    children, entry_path(path, "/".join(str(keys[key]) for key in sorted(keys)))
                )
            case _:
                yield path
