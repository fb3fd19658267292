"""Compare the desired object with the observed object.

The API server sets defaults, sorts lists, rewrites quantities and drops empty fields. Therefore `drift` compares only
the fields of the desired object, and compares them by meaning. Entries that another client added are the subject of
`unmanaged_fields`, because server-side apply never removes them. No function here returns a field's value: the results
may be logged.
"""

import base64
import hashlib
import json
from collections.abc import Iterator
from typing import Any

from mlflow_operator.kube import labels, quantity
from mlflow_operator.kube.apply import schema_fields
from mlflow_operator.kube.objects import Object


def drift(desired: Object, observed: Object) -> list[str]:
    """Return the sorted paths at which `observed` differs from `desired`.

    Fields that `desired` omits may have any value. `status` and the name and namespace of the object are never
    compared. An empty result means that an apply of `desired` would change nothing, except for fields that were in a
    previous apply and no longer are in `desired`: only `digest` detects those.
    """
    compared = {
        key: value
        for key, value in _with_encoded_string_data(desired).items()
        if key not in ("apiVersion", "kind", "status")
    }
    metadata = compared.pop("metadata", {})
    compared["metadata"] = {
        key: metadata[key] for key in ("labels", "annotations", "ownerReferences") if key in metadata
    }
    return sorted(_differences(compared, observed, "", "", ""))


def digest(desired: Object) -> str:
    """Return a short digest of `desired`, for the annotation that records the last applied state.

    Raises ValueError for a Secret: with the digest of a password a reader could test guesses of the password.
    """
    if desired.get("kind") == "Secret":
        raise ValueError("a Secret must not have a digest")
    hashed = {key: value for key, value in desired.items() if key != "status"}
    metadata = dict(hashed.get("metadata", {}))
    metadata["annotations"] = {
        key: value
        for key, value in (metadata.get("annotations") or {}).items()
        if key != labels.APPLIED_DIGEST
    }
    hashed["metadata"] = metadata
    text = json.dumps(hashed, sort_keys=True, separators=(",", ":"), ensure_ascii=True)
    return hashlib.sha256(text.encode()).hexdigest()[:16]


def _with_encoded_string_data(desired: Object) -> Object:
    """Move `stringData` to `data`, base64-encoded, as the API server stores it."""
    if "stringData" not in desired:
        return desired
    encoded = {key: base64.b64encode(text.encode()).decode() for key, text in desired["stringData"].items()}
    without_string_data = {key: value for key, value in desired.items() if key != "stringData"}
    return {**without_string_data, "data": {**(desired.get("data") or {}), **encoded}}


def _differences(desired: Any, observed: Any, path: str, field: str, parent: str) -> Iterator[str]:
    match desired:
        case None:
            return
        case dict():
            if observed is not None and not isinstance(observed, dict):
                yield path
                return
            for name, value in desired.items():
                yield from _differences(
                    value, (observed or {}).get(name), schema_fields.child_path(path, name), name, field
                )
        case list():
            if observed is not None and not isinstance(observed, list):
                yield path
                return
            yield from _list_differences(desired, observed or [], path, field)
        case _:
            if not _equal_scalars(desired, observed, field, parent):
                yield path


def _list_differences(desired: list[Any], observed: list[Any], path: str, field: str) -> Iterator[str]:
    keys = schema_fields.list_map_keys(field, desired)
    entry_keys = [schema_fields.entry_key(entry, keys) for entry in desired] if keys else [None]
    if None in entry_keys:
        # Atomic list: any difference in length, order or content replaces the whole list.
        pairs = zip(desired, observed, strict=False)
        if len(desired) != len(observed) or any(
            _differs(desired_entry, observed_entry, field) for desired_entry, observed_entry in pairs
        ):
            yield path
        return
    observed_by_key = {schema_fields.entry_key(entry, keys): entry for entry in observed}
    for name, entry in zip(entry_keys, desired, strict=True):
        entry_path = schema_fields.entry_path(path, str(name))
        if name not in observed_by_key:
            yield entry_path
            continue
        # The key matched, including its defaults: an omitted protocol is TCP.
        without_keys = {member: value for member, value in entry.items() if member not in keys}
        yield from _differences(without_keys, observed_by_key[name], entry_path, field, field)


def _differs(desired: Any, observed: Any, field: str) -> bool:
    return next(_differences(desired, observed, "", field, field), None) is not None


def _equal_scalars(desired: Any, observed: Any, field: str, parent: str) -> bool:
    if observed is None:
        if desired == "":
            return parent not in schema_fields.STRING_MAPS
        return field in schema_fields.OMITTED_ZEROS and not desired
    if parent in schema_fields.QUANTITY_MAPS or field in schema_fields.QUANTITIES:
        return quantity.equal(desired, observed)
    if isinstance(desired, bool) or isinstance(observed, bool):
        return desired is observed
    if field in schema_fields.INT_OR_STRING:
        return str(desired) == str(observed)
    return bool(desired == observed)
