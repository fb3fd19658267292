"""The lifecycle rule of a server, among those of others in the same bucket."""

from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mlflow_operator.clients.s3 import lifecycle
from mlflow_operator.model.server import BucketCreation, BucketSettings, ObjectStore, ServerRef

OWNER = ServerRef("tracking", "team-a", "uid")
STORE = ObjectStore(None, "us-east-1", "models", "team-a", "path", BucketCreation.NEVER, None, None, None)
OURS = lifecycle.rule_id(OWNER)
OTHERS = st.lists(st.sampled_from("abcd"), unique=True).map(
    lambda names: [{"ID": name, "Status": "Enabled", "Prefix": name} for name in names]
)


def rule(prefix: str = "team-a", **settings: Any) -> Any:
    """What the server wants."""
    return lifecycle.rule(
        OWNER, replace(STORE, prefix=prefix, settings=BucketSettings(lifecycle=True, **settings))
    )


def test_a_rule_is_for_the_servers_prefix_alone() -> None:
    wanted = rule(noncurrent_days=30, abort_days=7)
    assert wanted["Filter"] == {"Prefix": "team-a/"}
    assert wanted["NoncurrentVersionExpiration"] == {"NoncurrentDays": 30}
    assert wanted["AbortIncompleteMultipartUpload"] == {"DaysAfterInitiation": 7}


def test_without_days_there_is_no_rule() -> None:
    assert rule() is None


@given(OTHERS, OTHERS, st.booleans(), st.booleans())
def test_rules_of_others_stay_as_and_where_they_are(
    before: list[Any], after: list[Any], there: bool, wanted: bool
) -> None:
    after = [each for each in after if each not in before]
    live = [*before, *([rule(noncurrent_days=1)] if there else []), *after]
    merged = lifecycle.merged(live, OURS, rule(noncurrent_days=2) if wanted else None)
    result = live if merged is None else merged
    assert [each for each in result if each["ID"] != OURS] == [*before, *after]
    assert [each for each in result if each["ID"] == OURS] == ([rule(noncurrent_days=2)] if wanted else [])


@pytest.mark.parametrize("prefix", ["team-a", ""])
def test_a_rule_that_is_there_is_not_written_again(prefix: str) -> None:
    """Whichever way the store spells its prefix."""
    wanted = rule(prefix, noncurrent_days=30)
    bare = {key: value for key, value in wanted.items() if key != "Filter"}
    folder = wanted["Filter"]["Prefix"]
    for live in (wanted, {**bare, "Prefix": folder}, {**bare, "Filter": {"Prefix": folder}}):
        assert lifecycle.merged([live], OURS, wanted) is None
    if not folder:
        assert lifecycle.merged([bare], OURS, wanted) is None


def test_nothing_is_written_where_nothing_is_wanted() -> None:
    assert lifecycle.merged([], OURS, None) is None
