"""A server without any watch event is detected."""

import asyncio

import pytest

from mlflow_operator.kube.errors import ClusterError, Unavailable
from mlflow_operator.kube.objects import NamespacedName
from mlflow_operator.runtime.watch import WatchLost
from mlflow_operator.runtime.watch_check import CHECK_INTERVAL_SECONDS, verify
from tests.unit.virtual_time import in_virtual_time

OLD, NEW = ("team", "old"), ("team", "new")


@in_virtual_time
async def run_checks(*answers: set[NamespacedName] | ClusterError, seen: set[NamespacedName]) -> None:
    """Run one check per answer of the API server, then stop. Raises what `verify` raises."""
    remaining = list(answers)

    async def list_servers() -> set[NamespacedName]:
        answer = remaining.pop(0)
        if isinstance(answer, ClusterError):
            raise answer
        return answer

    with pytest.raises(TimeoutError):
        async with asyncio.timeout(CHECK_INTERVAL_SECONDS * (len(answers) + 0.5)):
            await verify(list_servers, seen)


def test_server_without_event_at_two_checks_raises_watch_lost() -> None:
    """The message names the server."""
    with pytest.raises(WatchLost, match="MLflowServer team/new"):
        run_checks({OLD, NEW}, {OLD, NEW}, seen={OLD})


def test_platform_without_event_at_two_checks_raises_watch_lost() -> None:
    with pytest.raises(WatchLost, match=r"MLflowPlatform shared$"):
        run_checks({OLD, ("", "shared")}, {OLD, ("", "shared")}, seen={OLD})


def test_server_without_event_at_one_check_is_tolerated() -> None:
    run_checks({OLD, NEW}, {OLD}, {OLD, NEW}, {OLD}, seen={OLD})


def test_servers_with_events_pass_the_checks() -> None:
    run_checks({OLD, NEW}, {OLD, NEW}, {OLD, NEW}, seen={OLD, NEW})


def test_server_deleted_meanwhile_passes_the_checks() -> None:
    run_checks(set(), set(), set(), seen={OLD})


def test_unavailable_api_server_restarts_the_checks() -> None:
    run_checks(
        {NEW},
        Unavailable("list mlflowservers: no response within 10 s"),
        {NEW},
        seen=set(),
    )
