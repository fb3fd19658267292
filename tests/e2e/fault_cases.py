"""A server that is put through one fault after the other, and what it must tell of each."""

from tests.e2e import timeouts
from tests.e2e.kube import Object
from tests.e2e.server import Server, eventually

COUNTED = 900
"""Characters by which an Event's message is told from another's; the API server takes little more than a thousand."""


class Faults:
    """Watches what `server` says of its faults, as conditions and as Events."""

    def __init__(self, server: Server) -> None:
        self.server = server
        self._known: set[str] = set()

    def told(self, kind: str, reason: str, *words: str, within: float = timeouts.NOTICED) -> str:
        """Waits until the condition `kind` names the fault in all these words; returns its message.

        The same sentence has gone out as an Event then, once.
        """
        self.server.until(kind, "False", reason, within=within)

        def said() -> str:
            found = self.server.conditions().get(kind) or {"message": "", "reason": ""}
            message = str(found["message"])
            return message if found["reason"] == reason and all(word in message for word in words) else ""

        try:
            message = str(eventually(f"{kind} says {words}", said, within))
        except AssertionError as error:
            raise AssertionError(f"{error}: {self.server.conditions().get(kind)}") from None
        eventually(f"an Event says: {message}", lambda: self._news(reason, message), timeouts.SETTLED)
        news = self._news(reason, message)
        assert len(news) == 1, f"{len(news)} Events say: {message}"
        assert [event["count"] for event in news] == [1]
        assert [event["type"] for event in news] == ["Warning"]
        self._known |= {event["metadata"]["uid"] for event in news}
        return message

    def mended(self, kind: str, within: float = timeouts.NOTICED) -> None:
        """Waits until the condition `kind` is as it should be; nobody has touched the resource."""
        self.server.until(kind, "True", within=within)

    def _news(self, reason: str, message: str) -> list[Object]:
        uid = self.server.live()["metadata"]["uid"]
        return [
            event
            for event in self.server.kube.list("Event")
            if event["involvedObject"].get("uid") == uid
            and event["reason"] == reason
            and event["message"][:COUNTED] == message[:COUNTED]
            and event["metadata"]["uid"] not in self._known
        ]
