"""Assertions about faults of a server: each must be reported in a condition and in exactly one Event."""

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

        Then checks that exactly one new Event has the same message.
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
        eventually(
            f"an Event has the message: {message}",
            lambda: self._new_events(reason, message),
            timeouts.STATUS_SECONDS,
        )
        events = self._new_events(reason, message)
        assert len(events) == 1, f"{len(events)} Events have the message: {message}"
        assert [event["count"] for event in events] == [1]
        assert [event["type"] for event in events] == ["Warning"]
        self._seen_event_uids |= {event["metadata"]["uid"] for event in events}
        return message

    def expect_recovery(self, condition_type: str, within: float = timeouts.RESYNC_SECONDS) -> None:
        """Wait until the condition is True again, without a change of the resource."""
        self.server.wait_for(condition_type, "True", within=within)

    def _new_events(self, reason: str, message: str) -> list[Object]:
        uid = self.server.resource()["metadata"]["uid"]
        return [
            event
            for event in self.server.kube.list("Event")
            if event["involvedObject"].get("uid") == uid
            and event["reason"] == reason
            and event["message"][:COMPARED_CHARS] == message[:COMPARED_CHARS]
            and event["metadata"]["uid"] not in self._seen_event_uids
        ]
