"""Faults of a server: each must be reported in a condition and in exactly one Event, and recover once it is fixed."""

from collections.abc import Callable
from dataclasses import dataclass
from itertools import pairwise
from typing import Any, Generic, Protocol, TypeVar

import pytest

from tests.e2e import timeouts
from tests.e2e.kube import Object
from tests.e2e.server import Server, eventually

COMPARED_CHARS = 900
"""Length of the prefix by which Event messages are compared; the API server stores little more than 1000 characters."""


class FaultExpectations:
    """Waits for faults of `server` to be reported as conditions and as Events, and for recovery."""

    def __init__(self, server: Server) -> None:
        self.server = server
        self._seen_event_uids: set[str] = set()

    def expect(
        self, condition_type: str, reason: str, *texts: str, within: float = timeouts.RESYNC_SECONDS
    ) -> str:
        """Wait until the condition has this reason and all these texts in its message; returns the message.

        Then checks that exactly one new Event has the same message, as in `check_reported_once`.
        """
        self.server.wait_for(condition_type, "False", reason, within=within)

        def matching_message() -> str:
            condition = self.server.conditions().get(condition_type) or {"message": "", "reason": ""}
            message = str(condition["message"])
            return message if condition["reason"] == reason and all(text in message for text in texts) else ""

        try:
            message = str(eventually(f"{condition_type} contains {texts}", matching_message, within))
        except AssertionError as error:
            raise AssertionError(f"{error}: {self.server.conditions().get(condition_type)}") from None

        def new_events() -> list[Object]:
            events = self._events(reason)
            return [event for event in events if event["metadata"]["uid"] not in self._seen_event_uids]

        eventually(
            f"an Event has the message: {message}",
            lambda: _with_message(new_events(), message),
            timeouts.STATUS_SECONDS,
        )
        self._seen_event_uids |= _check_single(new_events(), message)
        return message

    def expect_recovery(
        self,
        condition_type: str,
        status: str = "True",
        reason: str | None = None,
        *,
        within: float = timeouts.RESYNC_SECONDS,
    ) -> None:
        """Wait until the condition is True again, without a change of the resource.

        `status` and `reason` differ for a condition that cannot become True in the test.
        """
        self.server.wait_for(condition_type, status, reason, within=within)

    def check_reported_once(self, reason: str, message: str) -> None:
        """Check that one Event has this message, among all Events of the server until now.

        The same message is published again only if another message of the same reason was published in between: a
        database that is slow to answer, for example, can be refused, then time out, then be refused again.
        """
        _check_single(self._events(reason), message)

    def event_reasons(self) -> set[str]:
        """Return the reasons of all Events of the server until now."""
        return {event["reason"] for event in self._all_events()}

    def _events(self, reason: str) -> list[Object]:
        return [event for event in self._all_events() if event["reason"] == reason]

    def _all_events(self) -> list[Object]:
        """Return the Events of the server in the order of their creation."""
        uid = self.server.resource()["metadata"]["uid"]
        events = [e for e in self.server.kube.list("Event") if e["involvedObject"].get("uid") == uid]
        # Their timestamps have whole seconds only. The operator never updates an Event.
        return sorted(events, key=lambda event: int(event["metadata"]["resourceVersion"]))


def _check_single(events: list[Object], message: str) -> set[str]:
    """Check that the Events repeat this message only after another message; returns the uids of those that have it."""
    matching = _with_message(events, message)
    repeated = any(
        _has_message(first, message) and _has_message(second, message) for first, second in pairwise(events)
    )
    assert matching, f"no Event has the message: {message}"
    assert not repeated, f"{len(matching)} Events have the message: {message}"
    assert {event["count"] for event in matching} == {1}, matching
    assert {event["type"] for event in matching} == {"Warning"}, matching
    return {event["metadata"]["uid"] for event in matching}


def _with_message(events: list[Object], message: str) -> list[Object]:
    return [event for event in events if _has_message(event, message)]


def _has_message(event: Object, message: str) -> bool:
    return bool(event["message"][:COMPARED_CHARS] == message[:COMPARED_CHARS])


class Environment(Protocol):
    """What the faults of a table affect: the server, which a case creates, and everything around it."""

    @property
    def server(self) -> Server:
        """The server that must report the fault."""


E = TypeVar("E", bound=Environment)


def nothing(_: Environment) -> None:
    """Do nothing: the default of the optional steps of a case."""


@dataclass(frozen=True, kw_only=True)
class FaultCase(Generic[E]):
    """One row of a table of faults. The steps of a case get its environment."""

    name: str
    """Names the fault; the id of the test."""

    condition_type: str
    """Type of the condition that reports the fault."""

    reason: str
    """Reason of the condition and of the Event."""

    texts: tuple[str, ...]
    """Parts of the message. `{env.NAME}` is replaced with an attribute of the environment."""

    fix: Callable[[E], object]
    """Fixes the cause. The operator notices this without a change of the server's resource."""

    inject: Callable[[E], object] = nothing
    """Creates the fault before the server is created, or, if `while_serving`, once it is Ready. Not needed for a fault
    of what does not exist yet."""

    while_reported: Callable[[E], object] = nothing
    """Further checks between the report and the fix."""

    after_recovery: Callable[[E], object] = nothing
    """Further checks at the end."""

    recovered: tuple[str, str | None] = ("True", None)
    """Status and reason of the condition after the fix; the reason None accepts all."""

    while_serving: bool = False
    """Whether the fault affects a server that is Ready."""

    replaces_pod: bool = False
    """Whether the recovery needs a new pod. Every other fault must leave the pod of a serving server unchanged."""

    within: float = timeouts.RESYNC_SECONDS
    """Seconds until the report, and from the fix until the recovery."""

    marks: tuple[pytest.MarkDecorator, ...] = ()
    """Markers of the test."""

    def run(self, environment: E, spec: Object) -> None:
        """Inject the fault, expect its report, fix it, and expect the recovery of a server with this spec.

        Unless the spec has 0 replicas, the server must be Ready at the end.
        """
        server, faults, old_pod = environment.server, FaultExpectations(environment.server), None
        if self.while_serving:
            server.apply(spec).wait_ready()
            old_pod = wait_single_pod(server, timeouts.DELETION_SECONDS)
            self.inject(environment)
        else:
            self.inject(environment)
            server.apply(spec)

        texts = (text.format(env=environment) for text in self.texts)
        message = faults.expect(self.condition_type, self.reason, *texts, within=self.within)
        self.while_reported(environment)

        self.fix(environment)
        faults.expect_recovery(self.condition_type, *self.recovered, within=self.within)
        if spec.get("replicas") != 0:
            server.wait_ready(within=self.within)
            pod = wait_single_pod(server, timeouts.STATUS_SECONDS)
            assert self.replaces_pod or old_pod in {None, pod}, "the pod was replaced"

        faults.check_reported_once(self.reason, message)
        self.after_recovery(environment)
        reasons = faults.event_reasons()
        assert "ServerCrashing" not in reasons, reasons
        assert server.resource()["metadata"]["generation"] == 1, "the resource was changed"


def wait_single_pod(server: Server, within: float) -> str:
    """Wait until a rollout has ended, and the server has one pod that is not terminating; returns its uid."""

    def single_pod() -> Object | None:
        pods = server.pods("server")
        return pods[0] if len(pods) == 1 else None

    pod = eventually("the server has one pod", single_pod, within)
    return str(pod["metadata"]["uid"])


def table(*cases: FaultCase[Any]) -> pytest.MarkDecorator:
    """Parametrize a test with `case`, one test per case."""
    parameters = [pytest.param(case, id=case.name, marks=case.marks) for case in cases]
    return pytest.mark.parametrize("case", parameters)
