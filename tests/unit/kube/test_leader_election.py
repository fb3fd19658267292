"""Leader elections against a Lease API that fails in every way: there is at most one leader, and eventually one."""

import asyncio
import contextlib
import copy
import logging
from collections.abc import Callable, Iterator
from itertools import pairwise
from typing import TypeVar

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mlflow_operator.kube.errors import AlreadyExists, Conflict, Forbidden, Unavailable
from mlflow_operator.kube.kinds import Kind
from mlflow_operator.kube.leader_election import LeaderElector, LeaseLost, LeaseSettings
from mlflow_operator.kube.objects import Object
from mlflow_operator.status.metrics import Metrics
from tests.unit.virtual_time import in_virtual_time

SUCCEEDS, FORBIDDEN, REQUEST_LOST, RESPONSE_LOST, SLOW, EXECUTED_LATE, NO_RESPONSE = (
    "succeeds",
    "forbidden",
    "request lost",
    "response lost",
    "slow",
    "executed late",
    "no response",
)
"""Outcomes of a request: it succeeds; it is rejected; it does not reach the API server; it is executed, but the
response is lost; the response takes some time; it is executed long after the client has timed out; it is never executed
and gets no response."""


T = TypeVar("T")


class FakeLeaseAPI:
    """In-memory Lease API with one Lease and optimistic concurrency."""

    def __init__(self) -> None:
        self.stored: Object | None = None
        self.version = 0

    def create(self, lease: Object) -> Object:
        if self.stored is not None:
            raise AlreadyExists("create Lease: 409")
        return self._store(lease)

    def replace(self, lease: Object) -> Object:
        if self.stored is None:
            raise Conflict("replace Lease: gone")
        if lease["metadata"]["resourceVersion"] != self.stored["metadata"]["resourceVersion"]:
            raise Conflict("replace Lease: 409")
        return self._store(lease)

    def _store(self, lease: Object) -> Object:
        self.version += 1
        self.stored = copy.deepcopy(lease)
        self.stored["metadata"]["resourceVersion"] = str(self.version)
        return copy.deepcopy(self.stored)

    @property
    def holder(self) -> str | None:
        holder: str | None = (self.stored or {}).get("spec", {}).get("holderIdentity")
        return holder


class FakeConnection:
    """Replacement for the `KubernetesClient` of one candidate. `outcomes` yields the outcome of each request."""

    def __init__(self, lease_api: FakeLeaseAPI, outcomes: Iterator[str] | None = None) -> None:
        self.lease_api = lease_api
        self.outcomes = outcomes
        self.disconnected = False

    async def get(self, kind: Kind, namespace: str, name: str) -> Object | None:
        return await self._request(lambda: copy.deepcopy(self.lease_api.stored))

    async def create(self, obj: Object) -> Object:
        return await self._request(lambda: self.lease_api.create(obj))

    async def replace(self, obj: Object) -> Object:
        return await self._request(lambda: self.lease_api.replace(obj))

    async def _request(self, send: Callable[[], T]) -> T:
        await asyncio.sleep(0.01)
        match (
            NO_RESPONSE if self.disconnected else next(self.outcomes, SUCCEEDS) if self.outcomes else SUCCEEDS
        ):
            case "forbidden":
                raise Forbidden("403")
            case "request lost":
                raise Unavailable("no connection")
            case "response lost":
                send()
                raise Unavailable("connection lost")
            case "slow":
                await asyncio.sleep(1.5)
                response = send()
                await asyncio.sleep(1.0)
                return response
            case "executed late":
                asyncio.get_running_loop().call_later(6, _ignore_conflict, send)
                await asyncio.sleep(10**6)
            case "no response":
                await asyncio.sleep(10**6)
        return send()


def _ignore_conflict(send: Callable[[], object]) -> None:
    with contextlib.suppress(Conflict):
        send()


class Candidate:
    """Operator process that records the periods in which it is the leader."""

    def __init__(
        self,
        lease_api: FakeLeaseAPI,
        name: str,
        *,
        outcomes: Iterator[str] | None = None,
        offset: float = 0.0,
    ) -> None:
        self.name = name
        self.connection = FakeConnection(lease_api, outcomes)
        self.leader_periods: list[tuple[float, float]] = []
        self.metrics = Metrics()
        self.stop_delay_seconds = 0.0
        loop = asyncio.get_running_loop()
        self.elector = LeaderElector(
            self.connection,  # type: ignore[arg-type]
            self.metrics,
            namespace="ns",
            name="operator",
            identity=name,
            clock=lambda: loop.time() + offset,
        )
        self.task = asyncio.create_task(self.elector.run(self._work), name=name)

    @property
    def is_leader(self) -> bool:
        return self.metrics.registry.get_sample_value("mlflow_operator_leader") == 1

    async def _work(self) -> None:
        loop = asyncio.get_running_loop()
        start = loop.time()
        try:
            await asyncio.sleep(10**6)
        finally:
            await asyncio.sleep(self.stop_delay_seconds)
            self.leader_periods.append((start, loop.time()))

    async def stop(self) -> None:
        self.task.cancel()
        await asyncio.gather(self.task, return_exceptions=True)


@pytest.fixture
def lease_api() -> FakeLeaseAPI:
    """An API server without a Lease."""
    return FakeLeaseAPI()


async def leader_and_standby(lease_api: FakeLeaseAPI) -> tuple[Candidate, Candidate]:
    """Start a candidate that becomes the leader and, a second later, one that stands by."""
    leader = Candidate(lease_api, "first")
    await asyncio.sleep(1)
    return leader, Candidate(lease_api, "second")


@in_virtual_time
async def test_second_candidate_waits_for_leader(lease_api: FakeLeaseAPI) -> None:
    first, second = await leader_and_standby(lease_api)
    await asyncio.sleep(300)
    assert (first.is_leader, second.is_leader, lease_api.holder) == (True, False, "first")
    assert first.elector.is_leader()
    assert not second.elector.is_leader()


@in_virtual_time
async def test_standby_takes_over_within_seconds_after_release(lease_api: FakeLeaseAPI) -> None:
    first, second = await leader_and_standby(lease_api)
    await asyncio.sleep(60)
    await first.stop()
    assert lease_api.stored is not None
    assert "holderIdentity" not in lease_api.stored["spec"]
    assert lease_api.stored["spec"]["leaseDurationSeconds"] == 1
    await asyncio.sleep(3)
    assert second.is_leader
    assert lease_api.stored["spec"]["leaseTransitions"] >= 1


@in_virtual_time
async def test_standby_takes_over_after_lease_of_killed_leader_expires(lease_api: FakeLeaseAPI) -> None:
    first, second = await leader_and_standby(lease_api)
    await asyncio.sleep(60)
    first.connection.disconnected = True
    await asyncio.sleep(14)
    assert not second.is_leader
    await asyncio.sleep(6)
    assert second.is_leader


@in_virtual_time
async def test_disconnected_leader_stops_before_next_leader_starts(
    lease_api: FakeLeaseAPI, caplog: pytest.LogCaptureFixture
) -> None:
    first, second = await leader_and_standby(lease_api)
    await asyncio.sleep(60)
    first.connection.disconnected = True
    await asyncio.sleep(30)
    assert isinstance(first.task.exception(), LeaseLost)
    assert not first.is_leader
    await second.stop()
    assert first.leader_periods[0][1] < second.leader_periods[0][0]
    # Log records of asyncio may belong to a task of an earlier test, because it logs at garbage collection.
    own_records = (record for record in caplog.records if record.name.startswith("mlflow_operator"))
    warnings = [record.getMessage() for record in own_records if record.levelno > logging.INFO]
    assert warnings == [
        "cannot read or write the lease: no response in time",
        "leader election lost: the lease ns/operator was not renewed within 10 s",
    ]


@in_virtual_time
async def test_leader_keeps_lease_during_short_outage(lease_api: FakeLeaseAPI) -> None:
    first = Candidate(lease_api, "first")
    await asyncio.sleep(30)
    first.connection.disconnected = True
    await asyncio.sleep(5)
    first.connection.disconnected = False
    await asyncio.sleep(30)
    assert first.is_leader
    await first.stop()
    assert len(first.leader_periods) == 1


@in_virtual_time
async def test_lease_is_renewed_until_work_has_stopped(lease_api: FakeLeaseAPI) -> None:
    """If the lease were released earlier, two operators would work at the same time."""
    first, second = await leader_and_standby(lease_api)
    first.stop_delay_seconds = 40.0
    await asyncio.sleep(10)
    await first.stop()
    await asyncio.sleep(5)
    await second.stop()
    assert first.leader_periods[0][1] < second.leader_periods[0][0] < first.leader_periods[0][1] + 4


@in_virtual_time
async def test_lease_lost_does_not_wait_for_blocked_work(lease_api: FakeLeaseAPI) -> None:
    """The process must exit before another process leads; the caller that catches LeaseLost exits."""
    first = Candidate(lease_api, "first")
    first.stop_delay_seconds = 1000.0
    await asyncio.sleep(30)
    first.connection.disconnected = True
    await asyncio.wait([first.task], timeout=16)
    assert isinstance(first.task.exception(), LeaseLost)


@in_virtual_time
async def test_lease_is_released_and_error_raised_when_work_ends(lease_api: FakeLeaseAPI) -> None:
    async def work() -> None:
        await asyncio.sleep(5)
        raise ZeroDivisionError

    elector = LeaderElector(FakeConnection(lease_api), Metrics(), namespace="ns", name="x", identity="a")  # type: ignore[arg-type]
    with pytest.raises(ZeroDivisionError):
        await elector.run(work)
    assert lease_api.holder is None


@in_virtual_time
async def test_cancelled_candidate_does_not_keep_the_lease(lease_api: FakeLeaseAPI) -> None:
    first, second = await leader_and_standby(lease_api)
    await asyncio.sleep(10)
    await second.stop()
    assert first.is_leader
    assert lease_api.holder == "first"
    # The first write is executed, but its response is still pending.
    third = Candidate(other_api := FakeLeaseAPI(), "third", outcomes=iter([SUCCEEDS, SLOW]))
    await asyncio.sleep(2)
    assert other_api.holder == "third"
    await third.stop()
    assert other_api.holder is None


@in_virtual_time
async def test_deleted_lease_is_recreated(lease_api: FakeLeaseAPI) -> None:
    first = Candidate(lease_api, "first")
    await asyncio.sleep(10)
    lease_api.stored = None
    await asyncio.sleep(10)
    assert first.is_leader
    assert lease_api.holder == "first"


@in_virtual_time
async def test_leader_stops_when_another_process_holds_the_lease(lease_api: FakeLeaseAPI) -> None:
    first = Candidate(lease_api, "first")
    await asyncio.sleep(10)
    assert lease_api.stored is not None
    lease_api.stored["spec"]["holderIdentity"] = "another"
    await asyncio.sleep(3)
    assert isinstance(first.task.exception(), LeaseLost)
    assert "another" in str(first.task.exception())
    assert lease_api.holder == "another"


@in_virtual_time
async def test_changed_resource_version_is_not_a_renewal(lease_api: FakeLeaseAPI) -> None:
    """A new resourceVersion alone must not extend the lease of a dead leader."""
    disconnected_leader = Candidate(lease_api, "first")
    await asyncio.sleep(1)
    disconnected_leader.connection.disconnected = True
    second = Candidate(lease_api, "second")
    for _ in range(20):
        await asyncio.sleep(1)
        lease_api.version += 1
        assert lease_api.stored is not None
        lease_api.stored["metadata"]["resourceVersion"] = str(lease_api.version)
    assert second.is_leader


def test_settings_that_allow_two_leaders_raise() -> None:
    with pytest.raises(ValueError, match="deadline"):
        LeaseSettings(lease_duration_seconds=10, renew_deadline_seconds=10)
    with pytest.raises(ValueError, match="deadline"):
        LeaseSettings(renew_deadline_seconds=4, retry_period_seconds=2, request_timeout_seconds=3)


OUTCOMES = st.lists(
    st.tuples(
        st.sampled_from(
            [
                SUCCEEDS,
                SUCCEEDS,
                SUCCEEDS,
                FORBIDDEN,
                REQUEST_LOST,
                RESPONSE_LOST,
                SLOW,
                EXECUTED_LATE,
                NO_RESPONSE,
            ]
        ),
        st.integers(1, 5),
    ),
    max_size=10,
)


@settings(max_examples=150, deadline=None)
@given(
    outcomes=st.lists(OUTCOMES, min_size=2, max_size=3),
    offsets=st.lists(st.floats(-1e6, 1e6), min_size=3, max_size=3),
)
@in_virtual_time
async def test_at_most_one_leader_and_eventually_one(
    outcomes: list[list[tuple[str, int]]], offsets: list[float]
) -> None:
    lease_api = FakeLeaseAPI()
    candidates: list[Candidate] = []

    async def restarted_candidate(number: int) -> None:
        """Run a candidate and restart it when it exits, like a Deployment does."""
        remaining_outcomes = iter([outcome for outcome, times in outcomes[number] for _ in range(times)])
        for restart in range(100):
            candidate = Candidate(
                lease_api, f"{number}-{restart}", outcomes=remaining_outcomes, offset=offsets[number]
            )
            candidates.append(candidate)
            await asyncio.wait([candidate.task])
            assert isinstance(candidate.task.exception(), LeaseLost)

    restart_loops = [asyncio.create_task(restarted_candidate(number)) for number in range(len(outcomes))]
    # After this time all outcomes are used up and every request succeeds, so one candidate must lead.
    await asyncio.sleep(450)
    assert sum(candidate.is_leader for candidate in candidates) == 1
    for restart_loop in restart_loops:
        restart_loop.cancel()
    for candidate in candidates:
        await candidate.stop()
    periods = sorted(period for candidate in candidates for period in candidate.leader_periods)
    assert all(earlier[1] <= later[0] for earlier, later in pairwise(periods)), periods
