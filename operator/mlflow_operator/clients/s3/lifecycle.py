"""The lifecycle rule of a server. The bucket may contain rules of other servers and users."""

from collections.abc import Iterable, Mapping
from typing import Any

from mlflow_operator.kube.objects import Object
from mlflow_operator.model.server import BucketSettings, ObjectStore, ServerRef


def rule_id(owner: ServerRef) -> str:
    """Return the ID of the server's rule: at most 120 characters, of the 255 that S3 allows."""
    return f"mlflow-operator.{owner.namespace}.{owner.name}"


def rule(owner: ServerRef, store: ObjectStore) -> Object | None:
    """Return the rule for the server's prefix, None if the spec configures nothing that needs a rule."""
    settings: BucketSettings = store.settings
    actions: Object = {}
    if settings.noncurrent_days is not None:
        actions["NoncurrentVersionExpiration"] = {"NoncurrentDays": settings.noncurrent_days}
    if settings.abort_multipart_days is not None:
        actions["AbortIncompleteMultipartUpload"] = {"DaysAfterInitiation": settings.abort_multipart_days}
    if not actions:
        return None
    prefix = f"{store.prefix}/" if store.prefix else ""
    return {"ID": rule_id(owner), "Status": "Enabled", "Filter": {"Prefix": prefix}, **actions}


def merge(observed: Iterable[Mapping[str, Any]], name: str, desired: Object | None) -> list[Object] | None:
    """Return all rules of the bucket with `desired` as the rule `name`. None if nothing changes.

    The other rules keep their order, so that their authors find the configuration as they wrote it.
    """
    rules = [dict(rule) for rule in observed]
    index = next((i for i, rule in enumerate(rules) if rule.get("ID") == name), None)
    current = rules[index] if index is not None else None
    if _normalized(current) == _normalized(desired):
        return None
    if index is None:
        return [*rules, desired] if desired else rules
    return [*rules[:index], *([desired] if desired else []), *rules[index + 1 :]]


def _normalized(rule: Mapping[str, Any] | None) -> Any:
    """Normalize the prefix: some stores return it in the pre-2016 field `Prefix`, and omit an empty one."""
    if rule is None:
        return None
    prefix = (rule.get("Filter") or {}).get("Prefix") or rule.get("Prefix") or ""
    return {key: value for key, value in rule.items() if key not in {"Filter", "Prefix"}} | {"Prefix": prefix}
