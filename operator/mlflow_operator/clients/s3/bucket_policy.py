"""What a server's own key may do in a bucket that it shares with others: MLflow's needs under its prefix, no more."""

from collections.abc import Mapping
from typing import Any

from mlflow_operator.kube.objects import Object
from mlflow_operator.model.server import ObjectStore, ServerRef

_PREFIX = "mlflow-operator."
_ARN = "arn:aws:s3:::"
_OBJECT_ACTIONS = (
    "s3:GetObject",
    "s3:PutObject",
    "s3:DeleteObject",
    # boto3 sends what is larger than 8 MiB in parts, and takes back those of an upload that fails
    "s3:AbortMultipartUpload",
    "s3:ListMultipartUploadParts",
)


def name(owner: ServerRef) -> str:
    """The policy of a server's keys. Neither part can hold a dot, so that no two servers of a cluster share one."""
    return f"{_PREFIX}{owner.namespace}.{owner.name}"


def policy(store: ObjectStore, *more: ObjectStore) -> Object:
    """A policy for `store.bucket` and `store.prefix`, the whole bucket where there is no prefix; and for `more`.

    Its characters need no quoting: the API lets neither `*` nor `?` nor `$` into a bucket's name or a prefix.
    """
    statements = [statement for each in (store, *more) for statement in _statements(each)]
    return {"Version": "2012-10-17", "Statement": statements}


def in_seaweedfs(store: ObjectStore) -> Object:
    """The same for the whole of `store.bucket`, in SeaweedFS' words: it knows no denials, nor all of the names."""
    actions = sorted({*_OBJECT_ACTIONS, "s3:ListParts"} - {"s3:ListMultipartUploadParts"})
    return {
        "Version": "2012-10-17",
        "Statement": [
            {"Effect": "Allow", "Action": ["s3:ListBucket"], "Resource": [f"{_ARN}{store.bucket}"]},
            {"Effect": "Allow", "Action": actions, "Resource": [f"{_ARN}{store.bucket}/*"]},
        ],
    }


def _statements(store: ObjectStore) -> list[Object]:
    bucket, under = f"{_ARN}{store.bucket}", f"{store.prefix}/*" if store.prefix else "*"
    listing: Object = {"Effect": "Allow", "Action": ["s3:ListBucket"], "Resource": [bucket]}
    if store.prefix:
        listing["Condition"] = {"StringLike": {"s3:prefix": [under]}}
    objects = {"Effect": "Allow", "Action": sorted(_OBJECT_ACTIONS), "Resource": [f"{bucket}/{under}"]}
    # else MinIO counts it as DeleteObject, and a server that was broken into could undo the bucket's versioning
    versions = {"Effect": "Deny", "Action": ["s3:DeleteObjectVersion"], "Resource": objects["Resource"]}
    return [listing, objects, versions]


def same(one: Mapping[str, Any] | None, other: Mapping[str, Any]) -> bool:
    """Whether two policies allow the same. Stores give back their own spelling: sorted, a list of one as a word."""
    return one is not None and _spelled(one.get("Statement")) == _spelled(other.get("Statement"))


def overlapping_policies(
    policies: Mapping[str, Mapping[str, Any]], ours: str, wanted: Mapping[str, Any]
) -> str | None:
    """The name of another server's policy among `policies` that covers some of what `wanted` does.

    Without this look a server could have itself given a key to another one's artifacts by naming their prefix. `ours`
    is the name `wanted` will have; policies that are not the operator's are its administrator's business.
    """
    places = _places(wanted)
    for other in sorted(policies):
        if other.startswith(_PREFIX) and other != ours and _overlap(places, _places(policies[other])):
            return other
    return None


def _places(document: Mapping[str, Any]) -> set[str]:
    """The beginnings of everything whose objects it covers, `bucket/` or `bucket/prefix/`."""
    resources = [
        each
        for statement in _listed(document.get("Statement"))
        for each in _listed(statement.get("Resource"))
    ]
    return {each.removeprefix(_ARN).removesuffix("*") for each in resources if each.endswith("/*")}


def _overlap(some: set[str], others: set[str]) -> bool:
    return any(one.startswith(other) or other.startswith(one) for one in some for other in others)


def _spelled(part: Any) -> Any:
    match part:
        case Mapping():
            return {key: _spelled(value) for key, value in part.items() if value not in ("", None, [], {})}
        case list() if all(isinstance(each, str) for each in part):
            return sorted(part)
        case list():
            return sorted((_spelled(each) for each in part), key=repr)
        case str():
            return [part]
    return part


def _listed(part: Any) -> list[Any]:
    return part if isinstance(part, list) else [] if part is None else [part]
