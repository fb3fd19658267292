"""What can go wrong between us and the API server, in our own words.

The client library's exceptions carry whole answers, and an answer may quote what was sent, passwords
included. So each is translated here: what matters is kept in the type, the text is cut down to what can't
hold a value, and the cause stays attached for its class, never to be printed.
"""

# Named by what happened, in the API server's own words, as the reasons in its answers are.
# ruff: noqa: N818

import json
from collections.abc import Iterable
from typing import Any

MAX_MESSAGE_CHARS = 400
"""Characters of an API server's sentence that are kept; enough for a quota's, too little for a file."""


class ClusterError(Exception):
    """The API server did not do what was asked. `str()` is safe to log and to show."""


class NotFound(ClusterError):
    """No such object, or no such kind."""


class Conflict(ClusterError):
    """The object changed or was replaced since it was read. Read again, decide again."""


class AlreadyExists(Conflict):
    """To be created, but there is one of that name."""


class Forbidden(ClusterError):
    """Not allowed to us: RBAC, Pod Security, an admission webhook or a quota."""


class QuotaExceeded(Forbidden):
    """The namespace's quota is used up; the text tells which."""


class NamespaceTerminating(Forbidden):
    """The namespace is being deleted and takes nothing new."""


class Invalid(ClusterError):
    """The API server does not accept the object as it is. Asking again won't help.

    `fields`: the paths it complained of; empty if it named none.
    """

    def __init__(self, message: str, fields: tuple[str, ...] = ()) -> None:
        super().__init__(message)
        self.fields = fields


class Unavailable(ClusterError):
    """No answer, or none that counts: time-out, connection, 401, 429, 5xx. Asking later may help.

    `retry_after`: seconds the API server asked us to wait, if it did.
    """

    def __init__(self, message: str, retry_after: float | None = None) -> None:
        super().__init__(message)
        self.retry_after = retry_after


def from_response(
    status: int, retry_after: str | None, body: bytes, doing: str, *, secret: bool
) -> ClusterError:
    """The error that an answer which is no success means.

    `doing` names the request ("apply Deployment a/b"). `secret`: the request was about a Secret, so nothing
    is kept that could quote one.
    """
    answer = _parse(body)
    reason = str(answer.get("reason") or "")
    causes = [cause for cause in (answer.get("details") or {}).get("causes") or () if isinstance(cause, dict)]
    text = f"{doing}: {status} {reason}".rstrip()
    quotes = status in (400, 422) or status >= 500
    said = _fields_only(causes) if secret and quotes else _said(answer, causes, status)
    if said:
        text = f"{text}: {said}"
    # 410: a list took so long that its next page is of a past nobody remembers.
    if status in (401, 408, 410, 429) or (status >= 500 and not _unfit(answer)):
        return Unavailable(text, _seconds(retry_after, answer))
    match status:
        case 404:
            return NotFound(text)
        case 409 if reason == "AlreadyExists":
            return AlreadyExists(text)
        case 409:
            return Conflict(text)
        case 403:
            return _forbidden(answer, causes, text)
        case _:
            return Invalid(text, tuple(str(cause.get("field", "")) for cause in causes))


def _parse(body: bytes) -> dict[str, Any]:
    try:
        answer = json.loads(body)
    except ValueError:
        return {}
    # A proxy in between answers with pages of its own; what is no Status tells us nothing and is not kept.
    return answer if isinstance(answer, dict) and answer.get("kind") == "Status" else {}


def _unfit(answer: dict[str, Any]) -> bool:
    """Server-side apply answers 500 to an object that does not fit its schema. Waiting won't mend that."""
    return str(answer.get("message")).startswith("failed to create typed patch object")


def _forbidden(answer: dict[str, Any], causes: list[dict[str, Any]], text: str) -> Forbidden:
    if "exceeded quota" in str(answer.get("message")):
        return QuotaExceeded(text)
    if any(cause.get("reason") == "NamespaceTerminating" for cause in causes):
        return NamespaceTerminating(text)
    return Forbidden(text)


def _seconds(header: str | None, answer: dict[str, Any]) -> float | None:
    given = header or (answer.get("details") or {}).get("retryAfterSeconds")
    try:
        seconds = float(given) if given else None
    except (TypeError, ValueError):
        return None
    # A wrong clock or a broken proxy must not put us to sleep for a day.
    return None if seconds is None else min(max(seconds, 0.0), 300.0)


def _said(answer: dict[str, Any], causes: list[dict[str, Any]], status: int) -> str:
    if status in (400, 422) and causes:
        return _joined(
            f"{cause.get('field', '')}: {_without_value(str(cause.get('message', '')))}" for cause in causes
        )
    said = str(answer.get("message") or "")
    return _joined([_without_value(said) if status == 422 else said])


def _without_value(message: str) -> str:
    """`Invalid value: "hunter2": must be ...` without the value in the middle."""
    sort, colon, rest = message.partition(" value: ")
    if not colon or sort.rpartition(" ")[2] == "Required":
        return message
    if rest.startswith('"'):
        try:
            # Go quotes nearly as JSON does; where it does not, all of the rest goes.
            _, end = json.JSONDecoder().raw_decode(rest)
        except ValueError:
            return f"{sort} value"
        return f"{sort} value{rest[end:]}"
    _, colon, detail = rest.rpartition(": ")
    return f"{sort} value: {detail}" if colon else f"{sort} value"


def _fields_only(causes: list[dict[str, Any]]) -> str:
    return _joined(f"{cause.get('field', '')}: {cause.get('reason', '')}" for cause in causes)


def _joined(sentences: Iterable[str]) -> str:
    # Each once, its first line only: below it the API server likes to print whole objects.
    return "; ".join(dict.fromkeys(sentence.split("\n", 1)[0] for sentence in sentences))[:MAX_MESSAGE_CHARS]
