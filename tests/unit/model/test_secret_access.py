"""An admin Secret can be used in the namespaces of its annotation, and in no other."""

import re
import time

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mlflow_operator.model.secret_access import ALLOW_NAMESPACES, MAX_ANNOTATION_CHARS, allows


def secret(allowed: str | None) -> dict[str, object]:
    annotations = {} if allowed is None else {ALLOW_NAMESPACES: allowed}
    return {"metadata": {"name": "admin", "namespace": "platform", "annotations": annotations}}


@pytest.mark.parametrize(
    ("allowed", "namespace"),
    [
        ("team-a", "team-a"),
        ("team-b, team-a", "team-a"),
        ("team-b,team-*", "team-a"),
        ("*", "team-a"),
        ("*-a", "team-a"),
        (None, "platform"),
    ],
)
def test_listed_namespaces_are_allowed(allowed: str | None, namespace: str) -> None:
    assert allows(secret(allowed), namespace)


@pytest.mark.parametrize(
    "allowed",
    [
        None,
        "",
        ",",
        "team",
        "team-a-2",
        "team-?",
        "team-[a]",
        "TEAM-A",
        "eam-a",
        "team-b,team-c",
        "-*",
        "team-a;team-b",
    ],
)
def test_other_namespaces_are_denied(allowed: str | None) -> None:
    assert not allows(secret(allowed), "team-a")


@given(st.text(alphabet="ab-.[]?+\\^$|()"), st.from_regex(r"[a-z]([a-z0-9-]{0,20}[a-z0-9])?", fullmatch=True))
def test_a_pattern_without_star_matches_one_name(pattern: str, namespace: str) -> None:
    assert allows(secret(pattern), namespace) == (pattern == namespace)


@given(st.text(alphabet="ab-*", max_size=12), st.text(alphabet="ab-", min_size=1, max_size=12))
def test_star_matches_any_characters(pattern: str, namespace: str) -> None:
    """As the equivalent regular expression."""
    expected = re.fullmatch(".*".join(map(re.escape, pattern.split("*"))), namespace) is not None
    assert allows(secret(pattern), namespace) == expected


@pytest.mark.parametrize("allowed", ["*" * 4000 + "!", "*a" * 2000 + "!", "*" * 2000 + "!,*"])
def test_matching_takes_linear_time(allowed: str) -> None:
    """Everyone who can annotate a Secret chooses the pattern, and the operator evaluates it on its event loop."""
    start = time.process_time()
    assert allows(secret(allowed), "a" * 63) == allowed.endswith(",*")
    assert time.process_time() - start < 1


def test_long_annotation_allows_nothing() -> None:
    assert not allows(secret("," * MAX_ANNOTATION_CHARS + "*"), "team-a")
