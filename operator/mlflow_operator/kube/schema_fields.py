"""What the API knows about the fields of objects that their JSON doesn't show.

Which lists are maps in disguise and by which keys, which texts are quantities, which zeros the API
server leaves out. Only the kinds that the operator writes matter here; a field nobody named is compared
as it stands.
"""

import json
from collections.abc import Iterable, Iterator

from mlflow_operator.kube.objects import Object

LIST_KEYS: dict[str, tuple[str, ...]] = {
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
"""Lists that server-side apply merges entry by entry; `ports` too, see `keys_of`. All others are atomic."""

KEY_DEFAULTS = {"protocol": "TCP"}

QUANTITY_MAPS = frozenset({"limits", "requests", "capacity", "hard"})
QUANTITIES = frozenset({"sizeLimit", "divisor"})

INT_OR_STRING = frozenset({"port", "targetPort", "maxUnavailable", "maxSurge", "minAvailable"})

STRING_MAPS = frozenset(
    {"annotations", "binaryData", "data", "labels", "matchLabels", "nodeSelector", "selector", "stringData"}
)
"""Maps whose keys are anybody's: there an empty text is a value, elsewhere it is the same as no field."""

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
"""Fields that the API server drops when they are zero or false. Most are kept, and then absent is not false:
`automountServiceAccountToken` gone means true."""


def keys_of(field: str, entries: Iterable[object]) -> tuple[str, ...]:
    """The keys that tell entries of the list `field` apart; empty for an atomic list."""
    if field != "ports":
        return LIST_KEYS.get(field, ())
    of_container = any(isinstance(entry, dict) and "containerPort" in entry for entry in entries)
    return ("containerPort", "protocol") if of_container else ("port", "protocol")


def key_of(entry: object, keys: tuple[str, ...]) -> str | None:
    """How an entry of a list-map is called in a path; None if it lacks a key."""
    if not isinstance(entry, dict):
        return None
    values = [entry.get(key, KEY_DEFAULTS.get(key)) for key in keys]
    return None if None in values else "/".join(str(value) for value in values)


def child(path: str, name: str) -> str:
    """The path of a member: `spec.replicas`, `metadata.labels[example.org/team]`."""
    if not path:
        return name
    return f"{path}[{name}]" if "." in name or "/" in name else f"{path}.{name}"


def list_entry(path: str, key: str) -> str:
    """The path of an entry of a list-map: `spec.template.spec.containers[server]`."""
    return f"{path}[{key}]"


def managers(live: Object, paths: Iterable[str], ours: str) -> list[str]:
    """Who else, by `metadata.managedFields`, set one of the fields at `paths`; sorted, without `ours`."""
    wanted = tuple(paths)
    found = set()
    for record in live.get("metadata", {}).get("managedFields") or ():
        name = record.get("manager", "")
        if name and name != ours and _touches(record.get("fieldsV1") or {}, wanted):
            found.add(name)
    return sorted(found)


def _touches(fields: Object, wanted: tuple[str, ...]) -> bool:
    return any(_below(held, path) or _below(path, held) for held in _leaves(fields, "") for path in wanted)


def _below(path: str, parent: str) -> bool:
    return path == parent or path.startswith((f"{parent}.", f"{parent}["))


def _leaves(fields: Object, path: str) -> Iterator[str]:
    # The API's own notation: "f:name" a member, 'k:{"name":"server"}' a list-map's entry, "v:..." a set's
    # value, "." the thing itself. A thing that is held with members below counts by its members only.
    members = {name: below for name, below in fields.items() if name != "."}
    if not members and path:
        yield path
    for name, below in members.items():
        sort, _, text = name.partition(":")
        match sort:
            case "f":
                yield from _leaves(below, child(path, text))
            case "k":
                keys = json.loads(text)
                yield from _leaves(below, list_entry(path, "/".join(str(keys[key]) for key in sorted(keys))))
            case _:
                yield path
