"""The lifecycle rule of a server, next to other rules in the same bucket."""

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mlflow_operator.clients.s3 import lifecycle
from mlflow_operator.model.server import BucketSettings, ServerRef

OWNER = ServerRef("tracking", "team-a", "uid")
RULE_ID = lifecycle.rule_id(OWNER)
OTHER_RULES = st.lists(st.sampled_from("abcd"), unique=True).map(
    lambda names: [{"ID": name, "Status": "Enabled", "Prefix": name} for name in names]
)


def rule(prefix: str = "team-a", **settings: Any) -> Any:
    """The desired rule of the server."""
    return lifecycle.rule(RULE_ID, prefix, BucketSettings(lifecycle=True, **settings))


def test_rule_applies_only_to_prefix_of_server() -> None:
    desired = rule(noncurrent_days=30, abort_multipart_days=7)
    assert desired["Filter"] == {"Prefix": "team-a/"}
    assert desired["NoncurrentVersionExpiration"] == {"NoncurrentDays": 30}
    assert desired["AbortIncompleteMultipartUpload"] == {"DaysAfterInitiation": 7}


def test_no_rule_without_days() -> None:
    assert rule() is None


@given(OTHER_RULES, OTHER_RULES, st.booleans(), st.booleans())
def test_other_rules_and_their_order_do_not_change(
    before: list[Any], after: list[Any], rule_exists: bool, rule_desired: bool
) -> None:
    after = [other for other in after if other not in before]
    observed = [*before, *([rule(noncurrent_days=1)] if rule_exists else []), *after]
    merged = lifecycle.merge(observed, RULE_ID, rule(noncurrent_days=2) if rule_desired else None)
    result = observed if merged is None else merged
    assert [item for item in result if item["ID"] != RULE_ID] == [*before, *after]
    expected = [rule(noncurrent_days=2)] if rule_desired else []
    assert [item for item in result if item["ID"] == RULE_ID] == expected


@pytest.mark.parametrize("prefix", ["team-a", ""])
def test_unchanged_rule_is_not_written(prefix: str) -> None:
    """In every form in which stores return the prefix."""
    desired = rule(prefix, noncurrent_days=30)
    without_filter = {key: value for key, value in desired.items() if key != "Filter"}
    key_prefix = desired["Filter"]["Prefix"]
    for observed in (
        desired,
        {**without_filter, "Prefix": key_prefix},
        {**without_filter, "Filter": {"Prefix": key_prefix}},
    ):
        assert lifecycle.merge([observed], RULE_ID, desired) is None
    if not key_prefix:
        assert lifecycle.merge([without_filter], RULE_ID, desired) is None


def test_no_write_without_desired_rule() -> None:
    assert lifecycle.merge([], RULE_ID, None) is None


@given(st.from_regex(r"[a-z0-9]([a-z0-9.-]{0,251}[a-z0-9])?", fullmatch=True))
def test_rule_of_a_platform_is_that_of_no_server(platform: str) -> None:
    """Also if a namespace has the name of the platform. S3 allows 255 characters."""
    rule_id = lifecycle.platform_rule_id(platform)
    assert len(rule_id) <= 255
    assert "/" in rule_id
    assert "/" not in RULE_ID
