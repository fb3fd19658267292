"""The policy for a server's key in a shared bucket."""

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mlflow_operator.api.artifacts import BucketCreation
from mlflow_operator.clients.s3 import bucket_policy
from mlflow_operator.model.server import ObjectStore, ServerRef

OWN_NAME = bucket_policy.name(ServerRef("tracking", "team-a", "uid"))
PATH_SEGMENTS = st.text("ab-.", min_size=1, max_size=3)
PREFIXES = st.lists(PATH_SEGMENTS, max_size=3).map("/".join)


def store(bucket: str, prefix: str) -> ObjectStore:
    """A store with this bucket and prefix."""
    return ObjectStore(None, "us-east-1", bucket, prefix, "path", BucketCreation.NEVER, None, None, None)


def policy(bucket: str, prefix: str) -> dict[str, Any]:
    """The policy for this bucket and prefix."""
    return bucket_policy.policy(store(bucket, prefix))


def test_policy_covers_only_prefix() -> None:
    """A policy for `team-a` must not cover `team-ab`: resources and conditions have a slash after the prefix."""
    listing, objects, versions = policy("models", "team-a")["Statement"]
    assert listing["Resource"] == ["arn:aws:s3:::models"]
    assert listing["Condition"] == {"StringLike": {"s3:prefix": ["team-a/*"]}}
    assert objects["Resource"] == ["arn:aws:s3:::models/team-a/*"]
    assert versions["Effect"] == "Deny"


def test_policy_without_prefix_covers_whole_bucket() -> None:
    listing, objects, _ = policy("models", "")["Statement"]
    assert "Condition" not in listing
    assert objects["Resource"] == ["arn:aws:s3:::models/*"]


def test_policy_does_not_allow_changes_to_bucket() -> None:
    allowed = [statement for statement in policy("models", "")["Statement"] if statement["Effect"] == "Allow"]
    actions = {action for statement in allowed for action in statement["Action"]}
    assert not {action for action in actions if "Bucket" in action and action != "s3:ListBucket"}
    assert not {action for action in actions if "*" in action or "Version" in action}


@pytest.mark.parametrize(
    ("first", "second"),
    [
        (ServerRef("b", "a", ""), ServerRef("a", "b", "")),
        (ServerRef("c", "a-b", ""), ServerRef("b-c", "a", "")),
        (ServerRef("tracking", "team", ""), ServerRef("tracking", "team2", "")),
    ],
)
def test_policy_names_are_unique(first: ServerRef, second: ServerRef) -> None:
    assert bucket_policy.name(first) != bucket_policy.name(second)
    assert not bucket_policy.is_of_same_name(bucket_policy.name(first, "uid"), bucket_policy.name(second))


def test_policy_as_returned_by_stores_is_equivalent() -> None:
    """MinIO sorts lists. The tools of Ceph and AWS write a list of one element as a string."""
    desired = policy("models", "team-a")
    listing, objects, versions = policy("models", "team-a")["Statement"]
    observed = {
        "ID": "anything",
        "Version": "2012-10-17",
        "Statement": [
            {**versions, "Action": "s3:DeleteObjectVersion"},
            {**objects, "Action": [*reversed(objects["Action"])], "Sid": ""},
            {**listing, "Action": "s3:ListBucket", "Condition": {"StringLike": {"s3:prefix": "team-a/*"}}},
        ],
    }
    assert bucket_policy.is_equivalent(observed, desired)


@pytest.mark.parametrize(
    "observed", [None, {}, policy("models", "team-b"), policy("models", ""), policy("plots", "team-a")]
)
def test_different_policy_is_not_equivalent(observed: dict[str, Any] | None) -> None:
    assert not bucket_policy.is_equivalent(observed, policy("models", "team-a"))


@pytest.mark.parametrize("prefix", ["", "team", "team/a", "team/a/mlflow"])
def test_overlap_with_policy_of_another_server_is_detected(prefix: str) -> None:
    """Otherwise a server could get a key to any artifacts by specifying their prefix."""
    policies = {"mlflow-operator.team-b.tracking": policy("models", "team/a")}
    assert (
        bucket_policy.overlapping_policy(policies, OWN_NAME, policy("models", prefix))
        == "mlflow-operator.team-b.tracking"
    )


@pytest.mark.parametrize(
    ("bucket", "prefix"), [("models", "team/b"), ("models", "team/ab"), ("plots", ""), ("model", "")]
)
def test_separate_prefixes_do_not_overlap(bucket: str, prefix: str) -> None:
    policies = {"mlflow-operator.team-b.tracking": policy("models", "team/a")}
    assert bucket_policy.overlapping_policy(policies, OWN_NAME, policy(bucket, prefix)) is None


def test_own_policy_and_policies_of_administrator_do_not_count() -> None:
    policies = {OWN_NAME: policy("models", ""), "readwrite": policy("models", "")}
    assert bucket_policy.overlapping_policy(policies, OWN_NAME, policy("models", "")) is None


@given(PREFIXES, PREFIXES)
def test_prefixes_overlap_if_an_object_can_be_in_both(own_prefix: str, other_prefix: str) -> None:
    own, other = (f"models/{prefix}/" if prefix else "models/" for prefix in (own_prefix, other_prefix))
    overlapping = bucket_policy.overlapping_policy(
        {"mlflow-operator.x.y": policy("models", other_prefix)}, OWN_NAME, policy("models", own_prefix)
    )
    assert (overlapping is not None) == (own.startswith(other) or other.startswith(own))


def test_policy_can_cover_two_stores() -> None:
    """While a server moves from one to the other."""
    source, target = store("models", "team-a"), store("others", "")
    assert bucket_policy.policy(source, target)["Statement"] == [
        *bucket_policy.policy(source)["Statement"],
        *bucket_policy.policy(target)["Statement"],
    ]


@pytest.mark.parametrize(
    ("bucket", "prefix"), [("*", ""), ("models", "*"), ("mode?s", ""), ("models", "${aws:username}")]
)
def test_policy_with_wildcard_is_refused(bucket: str, prefix: str) -> None:
    """It would cover objects of others. The models reject such names; this must hold for every other source."""
    with pytest.raises(ValueError, match="wildcard"):
        bucket_policy.policy(store("fine", ""), store(bucket, prefix))


@pytest.mark.parametrize("resource", ["arn:aws:s3:::*", "arn:aws:s3:::*/*", "arn:aws:s3:::mod*/team-a/*"])
def test_policy_overlaps_with_wildcards_of_another_server(resource: str) -> None:
    """A comparison of the texts would not detect the overlap."""
    policies = {
        "mlflow-operator.team-b.tracking": {"Statement": [{"Effect": "Allow", "Resource": [resource]}]}
    }
    overlapping = bucket_policy.overlapping_policy(policies, OWN_NAME, policy("models", "team-a"))
    assert overlapping == "mlflow-operator.team-b.tracking"


def test_names_in_different_namespaces_of_one_name_differ() -> None:
    owner = ServerRef("tracking", "team-a", "uid")
    names = [bucket_policy.name(owner, uid) for uid in (None, "uid-1", "uid-2")]
    assert len(set(names)) == 3
    assert all(bucket_policy.is_of_same_name(name, names[0]) for name in names)
    assert not bucket_policy.is_of_same_name("team-a.tracking", names[0])


def test_revoked_policy_allows_nothing_and_occupies_nothing() -> None:
    revoked = bucket_policy.revoked(policy("models", "team-a"))
    assert bucket_policy.is_revoked(revoked)
    assert not bucket_policy.is_revoked(policy("models", "team-a"))
    assert {statement["Effect"] for statement in revoked["Statement"]} == {"Deny"}
    policies = {"mlflow-operator.team-a.tracking.uid-1": revoked}
    assert bucket_policy.overlapping_policies(policies, OWN_NAME, policy("models", "team-a")) == []
