"""The one lifecycle rule that is a server's, among those of others in the same bucket."""

from collections.abc import Iterable, Mapping
from typing import Any

from mlflow_operator.kube.objects import Object
from mlflow_operator.model.server import BucketSettings, ObjectStore, ServerRef


def rule_id(owner: ServerRef) -> str:
    """By which a server's rule is known. S3 takes 255 characters; these are at most 120."""
    return f"mlflow-operator.{owner.namespace}.{owner.name}"


def rule(owner: ServerRef, store: ObjectStore) -> Object | None:
    """The rule for the server's prefix, None where the spec asks for nothing that needs one."""
    settings: BucketSettings = store.settings
    does: Object = {}
    if settings.noncurrent_days is not None:
        does["NoncurrentVersionExpiration"] = {"NoncurrentDays": settings.noncurrent_days}
    if settings.abort_days is not None:
        does["AbortIncompleteMultipartUpload"] = {"DaysAfterInitiation": settings.abort_days}
    if not does:
        return None
    prefix = f"{store.prefix}/" if store.prefix else ""
    return {"ID": rule_id(owner), "Status": "Enabled", "Filter": {"Prefix": prefix}, **does}


def merged(live: Iterable[Mapping[str, Any]], name: str, wanted: Object | None) -> list[Object] | None:
    """All rules of the bucket with `wanted` as the one called `name`; None where they are so already.

    The others keep their places: who reads the bucket's configuration shall find what was written.
    """
    rules = [dict(each) for each in live]
    place = next((i for i, each in enumerate(rules) if each.get("ID") == name), None)
    before = rules[place] if place is not None else None
    if _plain(before) == _plain(wanted):
        return None
    if place is None:
        return [*rules, wanted] if wanted else rules
    return [*rules[:place], *([wanted] if wanted else []), *rules[place + 1 :]]


def _plain(rule: Mapping[str, Any] | None) -> Any:
    """Some stores give the prefix back where AWS had it before 2016, and leave an empty one out."""
    if rule is None:
        return None
    prefix = (rule.get("Filter") or {}).get("Prefix") or rule.get("Prefix") or ""
    return {key: value for key, value in rule.items() if key not in {"Filter", "Prefix"}} | {"Prefix": prefix}
