"""The lifecycle rule of a server or a platform. The bucket may contain rules of others."""

from collections.abc import Iterable, Mapping
from typing import Any

from mlflow_operator.kube.objects import Object
from mlflow_operator.model.server import BucketSettings, ServerRef

_MAX_ID_CHARS = 255


def rule_id(owner: ServerRef) -> str:
    """Return the ID of the server's rule: at most 120 characters, of the 255 that S3 allows."""
    return f"mlflow-operator.{owner.namespace}.{owner.name}"


def platform_rule_id(platform: str) -> str:
    """Return the ID of a platform's rule. No server has it, because IDs of servers contain no slash.

    The names of two platforms of one bucket may only share their first 227 characters.
    """
    return f"mlflow-operator/platform/{platform}"[:_MAX_ID_CHARS]


def rule(name: str, prefix: str, settings: BucketSettings) -> Object | None:
    """Return the rule with the ID `name` for `prefix`, None if the settings configure nothing that needs a rule.

    `prefix` is without a slash at its end. The rule covers the whole bucket if it is empty.
    """
    actions: Object = {}
    if settings.noncurrent_days is not None:
        actions["NoncurrentVersionExpiration"] = {"NoncurrentDays": settings.noncurrent_days}
    if settings.abort_multipart_days is not None:
        actions["AbortIncompleteMultipartUpload"] = {"DaysAfterInitiation": settings.abort_multipart_days}
    if not actions:
        return None
    key_prefix = f"{prefix}/" if prefix else ""
    return {"ID": name, "Status": "Enabled", "Filter": {"Prefix": key_prefix}, **actions}


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
