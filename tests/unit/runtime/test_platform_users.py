"""Servers of a changed platform are reconciled at once, those of others are not."""

import pytest

from mlflow_operator.api.mlflowplatform import DEFAULT_ANNOTATION
from mlflow_operator.kube.objects import Object
from mlflow_operator.runtime.platform_users import PlatformUsers

A, B, OTHER = ("team", "a"), ("team", "b"), ("team", "other")
STORED: Object = {"name": "shared", "uid": "1", "generation": 1, "resourceVersion": "1"}


@pytest.fixture
def users() -> PlatformUsers:
    """Two servers of a known platform, and one of another platform."""
    users = PlatformUsers()
    users.changed("shared", STORED)
    users.record(A, {"shared"})
    users.record(B, {"shared", "another"})
    users.record(OTHER, {"another"})
    return users


@pytest.mark.parametrize(
    "change",
    [{"generation": 2}, {"uid": "2"}, {"annotations": {DEFAULT_ANNOTATION: "true"}}],
    ids=["spec", "recreated", "default"],
)
def test_change_concerns_the_servers_of_the_platform(users: PlatformUsers, change: Object) -> None:
    assert users.changed("shared", {**STORED, **change}) == [A, B]


@pytest.mark.parametrize(
    "change",
    [{"resourceVersion": "2"}, {"annotations": {"a": "b"}}, {"finalizers": ["a"]}],
    ids=["status", "annotation", "finalizer"],
)
def test_event_without_a_change_concerns_no_server(users: PlatformUsers, change: Object) -> None:
    """The operator writes the status itself."""
    assert users.changed("shared", {**STORED, **change}) == []


def test_platform_that_appears_concerns_the_servers_that_wait_for_it(users: PlatformUsers) -> None:
    assert users.deleted("shared") == [A, B]
    assert users.changed("shared", STORED) == [A, B]
    assert users.changed("another", STORED) == [B, OTHER]


def test_server_without_a_platform_is_forgotten(users: PlatformUsers) -> None:
    users.record(A, ())
    assert users.deleted("shared") == [B]
