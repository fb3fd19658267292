"""Whether an object in the cluster still is what we want, and what in it nobody but a stranger can have put.

The API server fills in defaults, sorts, rewrites quantities and drops what is empty, so the live object is
projected onto the wanted one and compared by meaning: `drift`. Server-side apply never removes an entry
that somebody else added; where such an entry changes what our pods do, `corrections` says how to take it out.
No function here returns a value of a field: what they return may be logged.
"""

import base64
import hashlib
import json
from collections.abc import Iterator
from typing import Any

from mlflow_operator.kube import labels, quantity, schema_fields
from mlflow_operator.kube.objects import Object


def drift(desired: Object, live: Object) -> list[str]:
    """The paths, sorted, at which `live` differs from what `desired` says.

    Only what `desired` says counts: what it leaves open may be anything. `status` and the names of the
    object are never compared. Empty means that applying `desired` again would change nothing, save for
    fields that it said before and no longer says: those only `digest` notices.
    """
    wanted = {
        key: value for key, value in _readable(desired).items() if key not in ("apiVersion", "kind", "status")
    }
    metadata = wanted.pop("metadata", {})
    wanted["metadata"] = {
        key: metadata[key] for key in ("labels", "annotations", "ownerReferences") if key in metadata
    }
    return sorted(_differences(wanted, live, "", "", ""))


def digest(desired: Object) -> str:
    """A short digest of all that `desired` says, for the annotation that tells what was applied last.

    ValueError for a Secret: a digest of a password lets anybody who reads it try passwords.
    """
    if desired.get("kind") == "Secret":
        raise ValueError("no digest of a Secret is ever made")
    said = {key: value for key, value in desired.items() if key != "status"}
    metadata = dict(said.get("metadata", {}))
    metadata["annotations"] = {
        key: value for key, value in (metadata.get("annotations") or {}).items() if key != labels.APPLIED
    }
    said["metadata"] = metadata
    text = json.dumps(said, sort_keys=True, separators=(",", ":"), ensure_ascii=True)
    return hashlib.sha256(text.encode()).hexdigest()[:16]


def _readable(desired: Object) -> Object:
    """`stringData` as it comes back: in `data`, encoded."""
    if "stringData" not in desired:
        return desired
    encoded = {key: base64.b64encode(text.encode()).decode() for key, text in desired["stringData"].items()}
    rest = {key: value for key, value in desired.items() if key != "stringData"}
    return {**rest, "data": {**(desired.get("data") or {}), **encoded}}


def _differences(wanted: Any, found: Any, path: str, field: str, parent: str) -> Iterator[str]:
    match wanted:
        case None:
            return
        case dict():
            if found is not None and not isinstance(found, dict):
                yield path
                return
            for name, value in wanted.items():
                yield from _differences(
                    value, (found or {}).get(name), schema_fields.child(path, name), name, field
                )
        case list():
            if found is not None and not isinstance(found, list):
                yield path
                return
            yield from _list_differences(wanted, found or [], path, field)
        case _:
            if not _same(wanted, found, field, parent):
                yield path


def _list_differences(wanted: list[Any], found: list[Any], path: str, field: str) -> Iterator[str]:
    keys = schema_fields.keys_of(field, wanted)
    names = [schema_fields.key_of(entry, keys) for entry in wanted] if keys else [None]
    if None in names:
        # Atomic: one entry more, less or elsewhere is another list, and is replaced as a whole.
        pairs = zip(wanted, found, strict=False)
        if len(wanted) != len(found) or any(_differs(one, other, field) for one, other in pairs):
            yield path
        return
    by_name = {schema_fields.key_of(entry, keys): entry for entry in found}
    for name, entry in zip(names, wanted, strict=True):
        where = schema_fields.list_entry(path, str(name))
        if name not in by_name:
            yield where
            continue
        # The key matched, defaults included: a protocol left out is TCP.
        rest = {member: value for member, value in entry.items() if member not in keys}
        yield from _differences(rest, by_name[name], where, field, field)


def _differs(wanted: Any, found: Any, field: str) -> bool:
    return next(_differences(wanted, found, "", field, field), None) is not None


def _same(wanted: Any, found: Any, field: str, parent: str) -> bool:
    if found is None:
        if wanted == "":
            return parent not in schema_fields.STRING_MAPS
        return field in schema_fields.OMITTED_ZEROS and not wanted
    if parent in schema_fields.QUANTITY_MAPS or field in schema_fields.QUANTITIES:
        return quantity.equal(wanted, found)
    if isinstance(wanted, bool) or isinstance(found, bool):
        return wanted is found
    if field in schema_fields.INT_OR_STRING:
        return str(wanted) == str(found)
    return bool(wanted == found)
