"""Ownership of fields in `metadata.managedFields` of an object that was restored from a backup of the cluster.

The tool that restored the object owns all of its fields then. Server-side apply removes a field that is no longer
desired only if no other manager owns it. The operator must therefore become the only owner of what it applies.
"""

from mlflow_operator.kube.objects import Object


def without_shared_fields(obj: Object, manager: str) -> list[Object] | None:
    """The managed fields without what other managers own together with the applied fields of `manager`.

    Other managers keep their remaining fields, and the subresources. None if nothing is shared.
    """
    records: list[Object] = obj["metadata"].get("managedFields") or []
    applied: Object = next((r["fieldsV1"] for r in records if _is_applied_by(r, manager)), {})
    changed = [
        record
        if _is_applied_by(record, manager) or record.get("subresource")
        else {**record, "fieldsV1": _difference(record.get("fieldsV1") or {}, applied)}
        for record in records
    ]
    remaining = [record for record in changed if record.get("fieldsV1")]
    return None if remaining == records else remaining


def _is_applied_by(record: Object, manager: str) -> bool:
    is_apply = record.get("operation") == "Apply" and not record.get("subresource")
    return is_apply and record.get("manager") == manager


def _difference(fields: Object, removed: Object) -> Object:
    """`fields` without `removed`, in the notation of fieldsV1. A field without members is owned as a whole."""
    remaining = {}
    for name, members in fields.items():
        if name not in removed:
            remaining[name] = members
        elif members and removed[name]:
            kept = _difference(members, removed[name])
            if kept:
                remaining[name] = kept
    return remaining
