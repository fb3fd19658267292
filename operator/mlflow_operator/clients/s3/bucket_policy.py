"""IAM policy for the key of a server in a shared bucket: only what MLflow needs, only under the server's prefix."""

import re
from collections.abc import Mapping
from typing import Any

from mlflow_operator.kube.objects import Object
from mlflow_operator.model.server import ObjectStore, ServerRef

_NAME_PREFIX = "mlflow-operator."
_PATTERN_CHARACTERS = "*?$"
_ARN = "arn:aws:s3:::"
_OBJECT_ACTIONS = (
    "s3:GetObject",
    "s3:PutObject",
    "s3:DeleteObject",
    # boto3 uploads files larger than 8 MiB in parts, and aborts an upload that fails.
    "s3:AbortMultipartUpload",
    "s3:ListMultipartUploadParts",
)


def name(owner: ServerRef) -> str:
    """Return the name of the policy for a server's keys. It is unique in a cluster: neither part can contain a dot."""
    return f"{_NAME_PREFIX}{owner.namespace}.{owner.name}"


def policy(store: ObjectStore, *other_stores: ObjectStore) -> Object:
    """Return the policy for the bucket and prefix of `store`, the whole bucket without a prefix, and of `other_stores`.

    Raises ValueError for a bucket or prefix with a wildcard or variable, which would extend the policy to objects of
    others. The CRD allows none of `*`, `?` and `$`.
    """
    for location in (store, *other_stores):
        if any(character in f"{location.bucket}/{location.prefix}" for character in _PATTERN_CHARACTERS):
            raise ValueError(
                f"no policy is possible for the location {location.uri!r}: it contains a wildcard"
            )
    statements = [statement for location in (store, *other_stores) for statement in _statements(location)]
    return {"Version": "2012-10-17", "Statement": statements}


def seaweedfs_policy(store: ObjectStore) -> Object:
    """Return the policy for the whole bucket in SeaweedFS, which supports neither Deny nor all of S3's actions."""
    actions = sorted({*_OBJECT_ACTIONS, "s3:ListParts"} - {"s3:ListMultipartUploadParts"})
    return {
        "Version": "2012-10-17",
        "Statement": [
            {"Effect": "Allow", "Action": ["s3:ListBucket"], "Resource": [f"{_ARN}{store.bucket}"]},
            {"Effect": "Allow", "Action": actions, "Resource": [f"{_ARN}{store.bucket}/*"]},
        ],
    }


def _statements(store: ObjectStore) -> list[Object]:
    bucket, key_pattern = f"{_ARN}{store.bucket}", f"{store.prefix}/*" if store.prefix else "*"
    listing: Object = {"Effect": "Allow", "Action": ["s3:ListBucket"], "Resource": [bucket]}
    if store.prefix:
        listing["Condition"] = {"StringLike": {"s3:prefix": [key_pattern]}}
    objects = {"Effect": "Allow", "Action": sorted(_OBJECT_ACTIONS), "Resource": [f"{bucket}/{key_pattern}"]}
    # MinIO lets DeleteObject imply this action: a compromised server could then delete versions despite versioning.
    versions = {"Effect": "Deny", "Action": ["s3:DeleteObjectVersion"], "Resource": objects["Resource"]}
    return [listing, objects, versions]


def is_equivalent(observed: Mapping[str, Any] | None, desired: Mapping[str, Any]) -> bool:
    """Return whether two policies are equivalent. Stores sort lists and return a list of one element as a string."""
    return observed is not None and _normalized(observed.get("Statement")) == _normalized(
        desired.get("Statement")
    )


def overlapping_policy(
    policies: Mapping[str, Mapping[str, Any]], own_name: str, desired: Mapping[str, Any]
) -> str | None:
    """Return the name of another server's policy in `policies` that covers objects that `desired` covers, if any.

    Without this check a server could get a key to another server's artifacts by specifying their prefix. `own_name` is
    the name of `desired`. Policies that the operator did not create are ignored: the administrator manages them.
    """
    prefixes = _covered_prefixes(desired)
    for name in sorted(policies):
        if (
            name.startswith(_NAME_PREFIX)
            and name != own_name
            and _overlap(prefixes, _covered_prefixes(policies[name]))
        ):
            return name
    return None


def _covered_prefixes(document: Mapping[str, Any]) -> set[str]:
    """Return the prefixes of the objects that a policy covers, as `bucket/` or `bucket/prefix/`.

    A resource with a wildcard elsewhere than at its end counts as everything that begins like it.
    """
    resources = [
        resource
        for statement in _as_list(document.get("Statement"))
        for resource in _as_list(statement.get("Resource"))
    ]
    return {
        re.split(f"[{_PATTERN_CHARACTERS}]", resource.removeprefix(_ARN), maxsplit=1)[0]
        for resource in resources
        if any(character in resource for character in _PATTERN_CHARACTERS)
    }


def _overlap(prefixes: set[str], other_prefixes: set[str]) -> bool:
    return any(
        prefix.startswith(other_prefix) or other_prefix.startswith(prefix)
        for prefix in prefixes
        for other_prefix in other_prefixes
    )


def _normalized(part: Any) -> Any:
    match part:
        case Mapping():
            return {key: _normalized(value) for key, value in part.items() if value not in ("", None, [], {})}
        case list() if all(isinstance(element, str) for element in part):
            return sorted(part)
        case list():
            return sorted((_normalized(element) for element in part), key=repr)
        case str():
            return [part]
    return part


def _as_list(part: Any) -> list[Any]:
    return part if isinstance(part, list) else [] if part is None else [part]
