"""What a server's own key may do in a bucket that others use, too."""

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mlflow_operator.clients.s3 import bucket_policy
from mlflow_operator.model.server import BucketCreation, ObjectStore, ServerRef

OURS = bucket_policy.name(ServerRef("tracking", "team-a", "uid"))
WORDS = st.text("ab-.", min_size=1, max_size=3)
PREFIXES = st.lists(WORDS, max_size=3).map("/".join)


def place(bucket: str, prefix: str) -> ObjectStore:
    """A part of a bucket."""
    return ObjectStore(None, "us-east-1", bucket, prefix, "path", BucketCreation.NEVER, None, None, None)


def at(bucket: str, prefix: str) -> dict[str, Any]:
    """The policy for a place."""
    return bucket_policy.policy(place(bucket, prefix))


def test_a_key_reaches_what_lies_under_its_prefix_and_nothing_beside_it() -> None:
    """`team-a` must not open `team-ab`: every resource and every condition ends behind a slash."""
    listing, objects, versions = at("models", "team-a")["Statement"]
    assert listing["Resource"] == ["arn:aws:s3:::models"]
    assert listing["Condition"] == {"StringLike": {"s3:prefix": ["team-a/*"]}}
    assert objects["Resource"] == ["arn:aws:s3:::models/team-a/*"]
    assert versions["Effect"] == "Deny"


def test_without_a_prefix_the_whole_bucket_is_the_servers() -> None:
    listing, objects, _ = at("models", "")["Statement"]
    assert "Condition" not in listing
    assert objects["Resource"] == ["arn:aws:s3:::models/*"]


def test_a_key_can_change_nothing_about_the_bucket() -> None:
    allowed = [each for each in at("models", "")["Statement"] if each["Effect"] == "Allow"]
    actions = {action for each in allowed for action in each["Action"]}
    assert not {action for action in actions if "Bucket" in action and action != "s3:ListBucket"}
    assert not {action for action in actions if "*" in action or "Version" in action}


@pytest.mark.parametrize(
    ("one", "other"),
    [
        (ServerRef("b", "a", ""), ServerRef("a", "b", "")),
        (ServerRef("c", "a-b", ""), ServerRef("b-c", "a", "")),
        (ServerRef("tracking", "team", ""), ServerRef("tracking", "team2", "")),
    ],
)
def test_no_two_servers_share_a_policy(one: ServerRef, other: ServerRef) -> None:
    assert bucket_policy.name(one) != bucket_policy.name(other)


def test_a_stores_own_spelling_is_no_difference() -> None:
    """MinIO sorts what it is given, and Ceph's and AWS' tools write a list of one as a word."""
    wanted = at("models", "team-a")
    listing, objects, versions = at("models", "team-a")["Statement"]
    respelled = {
        "ID": "anything",
        "Version": "2012-10-17",
        "Statement": [
            {**versions, "Action": "s3:DeleteObjectVersion"},
            {**objects, "Action": [*reversed(objects["Action"])], "Sid": ""},
            {**listing, "Action": "s3:ListBucket", "Condition": {"StringLike": {"s3:prefix": "team-a/*"}}},
        ],
    }
    assert bucket_policy.same(respelled, wanted)


@pytest.mark.parametrize("other", [None, {}, at("models", "team-b"), at("models", ""), at("plots", "team-a")])
def test_another_policy_is_a_difference(other: dict[str, Any] | None) -> None:
    assert not bucket_policy.same(other, at("models", "team-a"))


@pytest.mark.parametrize("prefix", ["", "team", "team/a", "team/a/mlflow"])
def test_a_place_that_overlaps_with_another_servers_is_taken(prefix: str) -> None:
    """Otherwise a key to anybody's artifacts would be had by naming their prefix."""
    theirs = {"mlflow-operator.team-b.tracking": at("models", "team/a")}
    assert (
        bucket_policy.overlapping_policies(theirs, OURS, at("models", prefix))
        == "mlflow-operator.team-b.tracking"
    )


@pytest.mark.parametrize(
    ("bucket", "prefix"), [("models", "team/b"), ("models", "team/ab"), ("plots", ""), ("model", "")]
)
def test_a_place_beside_another_servers_is_free(bucket: str, prefix: str) -> None:
    theirs = {"mlflow-operator.team-b.tracking": at("models", "team/a")}
    assert bucket_policy.overlapping_policies(theirs, OURS, at(bucket, prefix)) is None


def test_its_own_policy_and_the_administrators_are_in_nobodys_way() -> None:
    policies = {OURS: at("models", ""), "readwrite": at("models", "")}
    assert bucket_policy.overlapping_policies(policies, OURS, at("models", "")) is None


@given(PREFIXES, PREFIXES)
def test_two_places_overlap_exactly_where_an_object_can_lie_in_both(one: str, other: str) -> None:
    here, there = (f"models/{prefix}/" if prefix else "models/" for prefix in (one, other))
    taken = bucket_policy.overlapping_policies(
        {"mlflow-operator.x.y": at("models", other)}, OURS, at("models", one)
    )
    assert (taken is not None) == (here.startswith(there) or there.startswith(here))


def test_one_policy_can_be_for_two_places() -> None:
    """While a server moves from one to the other."""
    one, other = place("models", "team-a"), place("others", "")
    assert bucket_policy.policy(one, other)["Statement"] == [
        *bucket_policy.policy(one)["Statement"],
        *bucket_policy.policy(other)["Statement"],
    ]
