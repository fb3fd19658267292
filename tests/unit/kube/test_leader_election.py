"""Never two leaders, and never none for long: elections against a Lease API that fails in every way."""

import asyncio
import contextlib
import copy
import logging
from collections.abc import Awaitable, Callable, Iterator
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

Run = Callable[[Awaitable[None]], None]

FINE, REFUSED, LOST, UNHEARD, SLOW, LATE, HANGS = (
    "fine",
    "refused",
    "lost",
    "unheard",
    "slow",
    "late",
    "hangs",
)
"""What may happen to a request: answered; refused; lost on its way there; done, but its answer lost; answered
after a while; done long after the asker gave up; never done and never answered."""


T = TypeVar("T")


class Leases:
    """The API server's side: one Lease, and optimistic concurrency."""

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
        found: str | None = (self.stored or {}).get("spec", {}).get("holderIdentity")
        return found


class Line:
    """One candidate's connection, in place of `Cluster`. `fates` says what becomes of each request."""

    def __init__(self, leases: Leases, fates: Iterator[str] | None = None) -> None:
        self.leases = leases
        self.fates = fates
        self.cut = False

    async def get(self, kind: Kind, namespace: str, name: str) -> Object | None:
        return await self._through(lambda: copy.deepcopy(self.leases.stored))

    async def create(self, obj: Object) -> Object:
        return await self._through(lambda: self.leases.create(obj))

    async def replace(self, obj: Object) -> Object:
        return await self._through(lambda: self.leases.replace(obj))

    async def _through(self, act: Callable[[], T]) -> T:
        await asyncio.sleep(0.01)
        match HANGS if self.cut else next(self.fates, FINE) if self.fates else FINE:
            case "refused":
                raise Forbidden("403")
            case "lost":
                raise Unavailable("no connection")
            case "unheard":
                act()
                raise Unavailable("connection lost")
            case "slow":
                await asyncio.sleep(1.5)
                answer = act()
                await asyncio.sleep(1.0)
                return answer
            case "late":
                asyncio.get_running_loop().call_later(6, _quietly, act)
                await asyncio.sleep(10**6)
            case "hangs":
                await asyncio.sleep(10**6)
        return act()


def _quietly(act: Callable[[], object]) -> None:
    with contextlib.suppress(Conflict):
        act()


class Candidate:
    """An operator that, while it leads, notes so."""

    def __init__(
        self, leases: Leases, name: str, *, fates: Iterator[str] | None = None, offset: float = 0.0
    ) -> None:
        self.name = name
        self.line = Line(leases, fates)
        self.led: list[tuple[float, float]] = []
        self.metrics = Metrics()
        self.stops_in = 0.0
        loop = asyncio.get_running_loop()
        self.election = LeaderElector(
            self.line,  # type: ignore[arg-type]
            self.metrics,
            namespace="ns",
            name="operator",
            identity=name,
            clock=lambda: loop.time() + offset,
        )
        self.task = asyncio.create_task(self.election.run(self._work), name=name)

    @property
    def leads(self) -> bool:
        return self.metrics.registry.get_sample_value("mlflow_operator_leader") == 1

    async def _work(self) -> None:
        loop = asyncio.get_running_loop()
        start = loop.time()
        try:
            await asyncio.sleep(10**6)
        finally:
            await asyncio.sleep(self.stops_in)
            self.led.append((start, loop.time()))

    async def stop(self) -> None:
        self.task.cancel()
        await asyncio.gather(self.task, return_exceptions=True)


def test_the_first_one_leads_and_the_second_waits(virtual: Run) -> None:
    async def story() -> None:
        leases = Leases()
        first = Candidate(leases, "first")
        await asyncio.sleep(1)
        second = Candidate(leases, "second")
        await asyncio.sleep(300)
        assert (first.leads, second.leads, leases.holder) == (True, False, "first")
        assert first.election.leads()
        assert not second.election.leads()

    virtual(story())


def test_a_leader_that_ends_in_order_is_followed_within_seconds(virtual: Run) -> None:
    async def story() -> None:
        leases = Leases()
        first = Candidate(leases, "first")
        await asyncio.sleep(1)
        second = Candidate(leases, "second")
        await asyncio.sleep(60)
        await first.stop()
        assert leases.stored is not None
        assert "holderIdentity" not in leases.stored["spec"]
        assert leases.stored["spec"]["leaseDurationSeconds"] == 1
        await asyncio.sleep(3)
        assert second.leads
        assert leases.stored["spec"]["leaseTransitions"] >= 1

    virtual(story())


def test_a_leader_that_is_killed_is_followed_after_the_lease(virtual: Run) -> None:
    async def story() -> None:
        leases = Leases()
        first = Candidate(leases, "first")
        await asyncio.sleep(1)
        second = Candidate(leases, "second")
        await asyncio.sleep(60)
        first.line.cut = True
        await asyncio.sleep(14)
        assert not second.leads
        await asyncio.sleep(6)
        assert second.leads

    virtual(story())


def test_a_leader_cut_off_stops_before_another_starts(virtual: Run, caplog: pytest.LogCaptureFixture) -> None:
    async def story() -> None:
        leases = Leases()
        first = Candidate(leases, "first")
        await asyncio.sleep(1)
        second = Candidate(leases, "second")
        await asyncio.sleep(60)
        first.line.cut = True
        await asyncio.sleep(30)
        assert isinstance(first.task.exception(), LeaseLost)
        assert not first.leads
        await second.stop()
        assert first.led[0][1] < second.led[0][0]
        # asyncio's own records may be of an earlier test's task, told of when it is collected
        ours = (record for record in caplog.records if record.name.startswith("mlflow_operator"))
        told = [record.getMessage() for record in ours if record.levelno > logging.INFO]
        assert told == [
            "the lease could not be read or written: no answer in time",
            "stops working: the lease ns/operator was not renewed for 10 s",
        ]

    virtual(story())


def test_a_short_outage_costs_nobody_the_lease(virtual: Run) -> None:
    async def story() -> None:
        leases = Leases()
        first = Candidate(leases, "first")
        await asyncio.sleep(30)
        first.line.cut = True
        await asyncio.sleep(5)
        first.line.cut = False
        await asyncio.sleep(30)
        assert first.leads
        await first.stop()
        assert len(first.led) == 1

    virtual(story())


def test_work_that_takes_long_to_stop_keeps_the_lease_meanwhile(virtual: Run) -> None:
    """Given back too early, the next one would work beside it."""

    async def story() -> None:
        leases = Leases()
        first = Candidate(leases, "first")
        first.stops_in = 40.0
        await asyncio.sleep(1)
        second = Candidate(leases, "second")
        await asyncio.sleep(10)
        await first.stop()
        await asyncio.sleep(5)
        await second.stop()
        assert first.led[0][1] < second.led[0][0] < first.led[0][1] + 4

    virtual(story())


def test_work_that_does_not_stop_is_not_waited_for_once_the_lease_is_lost(virtual: Run) -> None:
    """The process has to end before another leads; whoever catches LeaseLost ends it."""

    async def story() -> None:
        first = Candidate(Leases(), "first")
        first.stops_in = 1000.0
        await asyncio.sleep(30)
        first.line.cut = True
        await asyncio.wait([first.task], timeout=16)
        assert isinstance(first.task.exception(), LeaseLost)

    virtual(story())


def test_the_end_of_the_work_gives_the_lease_back_and_its_error_is_told(virtual: Run) -> None:
    async def story() -> None:
        leases = Leases()

        async def work() -> None:
            await asyncio.sleep(5)
            raise ZeroDivisionError

        election = LeaderElector(Line(leases), Metrics(), namespace="ns", name="x", identity="a")  # type: ignore[arg-type]
        with pytest.raises(ZeroDivisionError):
            await election.run(work)
        assert leases.holder is None

    virtual(story())


def test_stopped_while_it_waits_it_leaves_no_trace(virtual: Run) -> None:
    async def story() -> None:
        leases = Leases()
        first = Candidate(leases, "first")
        await asyncio.sleep(1)
        second = Candidate(leases, "second")
        await asyncio.sleep(10)
        await second.stop()
        assert first.leads
        assert leases.holder == "first"
        # Its first write is done, the answer is on its way.
        third = Candidate(other := Leases(), "third", fates=iter([FINE, SLOW]))
        await asyncio.sleep(2)
        assert other.holder == "third"
        await third.stop()
        assert other.holder is None

    virtual(story())


def test_a_lease_deleted_by_hand_is_made_again(virtual: Run) -> None:
    async def story() -> None:
        leases = Leases()
        first = Candidate(leases, "first")
        await asyncio.sleep(10)
        leases.stored = None
        await asyncio.sleep(10)
        assert first.leads
        assert leases.holder == "first"

    virtual(story())


def test_a_leader_that_finds_another_holder_stops_at_once(virtual: Run) -> None:
    async def story() -> None:
        leases = Leases()
        first = Candidate(leases, "first")
        await asyncio.sleep(10)
        assert leases.stored is not None
        leases.stored["spec"]["holderIdentity"] = "usurper"
        await asyncio.sleep(3)
        assert isinstance(first.task.exception(), LeaseLost)
        assert "usurper" in str(first.task.exception())
        assert leases.holder == "usurper"

    virtual(story())


def test_a_touched_label_is_no_sign_of_life(virtual: Run) -> None:
    """A new resourceVersion alone must not prolong a dead leader's time."""

    async def story() -> None:
        leases = Leases()
        dead = Candidate(leases, "dead")
        await asyncio.sleep(1)
        dead.line.cut = True
        second = Candidate(leases, "second")
        for _ in range(20):
            await asyncio.sleep(1)
            leases.version += 1
            assert leases.stored is not None
            leases.stored["metadata"]["resourceVersion"] = str(leases.version)
        assert second.leads

    virtual(story())


def test_times_that_could_make_two_leaders_are_refused() -> None:
    with pytest.raises(ValueError, match="deadline"):
        LeaseSettings(lease=10, deadline=10)
    with pytest.raises(ValueError, match="deadline"):
        LeaseSettings(deadline=4, retry=2, call=3)


FATES = st.lists(
    st.tuples(
        st.sampled_from([FINE, FINE, FINE, REFUSED, LOST, UNHEARD, SLOW, LATE, HANGS]), st.integers(1, 5)
    ),
    max_size=10,
)


@settings(max_examples=150, deadline=None)
@given(
    fates=st.lists(FATES, min_size=2, max_size=3),
    offsets=st.lists(st.floats(-1e6, 1e6), min_size=3, max_size=3),
)
def test_never_two_leaders_and_in_the_end_one(
    virtual: Run, fates: list[list[tuple[str, int]]], offsets: list[float]
) -> None:
    async def story() -> None:
        leases = Leases()
        everybody: list[Candidate] = []

        async def operator(number: int) -> None:
            """A candidate that, as in a Deployment, is started again whenever it ends."""
            script = iter([fate for fate, times in fates[number] for _ in range(times)])
            for life in range(100):
                candidate = Candidate(leases, f"{number}-{life}", fates=script, offset=offsets[number])
                everybody.append(candidate)
                await asyncio.wait([candidate.task])
                assert isinstance(candidate.task.exception(), LeaseLost)

        lives = [asyncio.create_task(operator(number)) for number in range(len(fates))]
        # Long enough for every fate to be met: then all is fine, and somebody must lead.
        await asyncio.sleep(450)
        assert sum(candidate.leads for candidate in everybody) == 1
        for life in lives:
            life.cancel()
        for candidate in everybody:
            await candidate.stop()
        spans = sorted(span for candidate in everybody for span in candidate.led)
        assert all(earlier[1] <= later[0] for earlier, later in pairwise(spans)), spans

    virtual(story())
