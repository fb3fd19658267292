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


def name(owner: ServerRef, namespace_uid: str | None = None) -> str:
    """Return the name of the policy for a server's keys. It is unique in a cluster: no part can contain a dot.

    `namespace_uid`: on a platform, the uid of the server's namespace. The keys of a server in a deleted namespace,
    which are not known any more, then have another policy than those of the server that adopts its artifacts.
    """
    return f"{_NAME_PREFIX}{owner.namespace}.{owner.name}" + (f".{namespace_uid}" if namespace_uid else "")


def is_of_same_name(policy_name: str, own_name: str) -> bool:
    """Whether the policy was created for a server of the same namespace and name, at any time."""
    return _server_of(policy_name) == _server_of(own_name)


def precedes_platform(policy_name: str) -> bool:
    """Whether the policy was created for a server that used no platform."""
    return len(policy_name.removeprefix(_NAME_PREFIX).split(".")) == len(_server_of(policy_name))


def revoked(document: Mapping[str, Any]) -> Object:
    """Return a policy that gives no access to anything: neither to the keys that have it, nor to keys made from them.

    It names what `document` names, and nothing more: earlier releases of the operator regard that as occupied.
    """
    resources = {
        resource
        for statement in _as_list(document.get("Statement"))
        for resource in _as_list(statement.get("Resource"))
    }
    statement = {"Effect": "Deny", "Action": ["s3:*"], "Resource": sorted(resources)}
    return {**document, "Statement": [statement]}


def is_revoked(document: Mapping[str, Any]) -> bool:
    """Whether a policy gives no access to anything."""
    return not _allowing_statements(document)


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
    """Return the name of the first policy of `overlapping_policies`, None if there is none."""
    return next(iter(overlapping_policies(policies, own_name, desired)), None)


def overlapping_policies(
    policies: Mapping[str, Mapping[str, Any]], own_name: str, desired: Mapping[str, Any]
) -> list[str]:
    """Return the names of other servers' policies in `policies` that allow access to objects that `desired` covers.

    Without this check a server could get a key to another server's artifacts by specifying their prefix. `own_name` is
    the name of `desired`. Policies that the operator did not create are ignored: the administrator manages them.
    """
    prefixes = _covered_prefixes(desired)
    return [
        name
        for name in sorted(policies)
        if name.startswith(_NAME_PREFIX)
        and name != own_name
        and _overlap(prefixes, _covered_prefixes(policies[name]))
    ]


def _server_of(policy_name: str) -> list[str]:
    """Return namespace and name of the server with this policy; empty if the operator did not create it."""
    is_own = policy_name.startswith(_NAME_PREFIX)
    return policy_name.removeprefix(_NAME_PREFIX).split(".")[:2] if is_own else []


def _allowing_statements(document: Mapping[str, Any]) -> list[Any]:
    return [part for part in _as_list(document.get("Statement")) if part.get("Effect") != "Deny"]


def _covered_prefixes(document: Mapping[str, Any]) -> set[str]:
    """Return the prefixes of the objects to which a policy allows access, as `bucket/` or `bucket/prefix/`.

    A resource with a wildcard elsewhere than at its end counts as everything that begins like it.
    """
    resources = [
        resource
        for statement in _allowing_statements(document)
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
