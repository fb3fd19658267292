"""A server that no event has told of is noticed."""

import asyncio
from collections.abc import Awaitable, Callable

import pytest

from mlflow_operator.kube.errors import ClusterError, Unavailable
from mlflow_operator.kube.objects import NamespacedName
from mlflow_operator.runtime.watch import WatchLost
from mlflow_operator.runtime.watch_check import CHECK_SECONDS, verify

Run = Callable[[Awaitable[None]], None]

OLD, NEW = ("team", "old"), ("team", "new")


def checks(virtual: Run, *answers: set[NamespacedName] | ClusterError, noticed: set[NamespacedName]) -> None:
    """Run one check per answer of the API server, then stop. What `verify` raises is raised."""

    async def story() -> None:
        remaining = list(answers)

        async def servers() -> set[NamespacedName]:
            answer = remaining.pop(0)
            if isinstance(answer, ClusterError):
                raise answer
            return answer

        async with asyncio.timeout(CHECK_SECONDS * (len(answers) + 0.5)):
            await verify(servers, noticed)

    with pytest.raises((TimeoutError, WatchLost)) as ended:
        virtual(story())
    if isinstance(ended.value, WatchLost):
        raise ended.value


def test_server_without_an_event_at_two_checks_ends_the_watch(virtual: Run) -> None:
    """The message names it."""
    with pytest.raises(WatchLost, match="MLflowServer team/new"):
        checks(virtual, {OLD, NEW}, {OLD, NEW}, noticed={OLD})


def test_event_that_is_under_way_at_one_check_is_waited_for(virtual: Run) -> None:
    checks(virtual, {OLD, NEW}, {OLD}, {OLD, NEW}, {OLD}, noticed={OLD})


def test_servers_that_events_told_of_are_fine(virtual: Run) -> None:
    checks(virtual, {OLD, NEW}, {OLD, NEW}, {OLD, NEW}, noticed={OLD, NEW})


def test_server_that_was_deleted_meanwhile_is_fine(virtual: Run) -> None:
    checks(virtual, set(), set(), set(), noticed={OLD})


def test_api_server_that_does_not_answer_starts_the_checks_again(virtual: Run) -> None:
    checks(virtual, {NEW}, Unavailable("list mlflowservers: no answer within 10 s"), {NEW}, noticed=set())
