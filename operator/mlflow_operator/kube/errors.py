"""Errors of requests to the API server.

The exceptions of the client library contain whole responses, and a response may quote the request, including passwords.
This module translates each of them: the type says what happened, the text is reduced to parts that cannot contain a
value, and the cause stays attached for its class only and must not be printed.
"""

# The classes are named after the reasons in the API server's Status objects.
# ruff: noqa: N818

import json
from collections.abc import Iterable
from typing import Any

MAX_MESSAGE_CHARS = 400
"""Length limit for a message of the API server: enough for a quota message, too little for a file."""


class ClusterError(Exception):
    """A request to the API server failed. `str()` is safe to log and to show."""


class NotFound(ClusterError):
    """The object or the kind does not exist."""


class Conflict(ClusterError):
    """The object changed or was replaced since it was read. The caller must read it again."""


class AlreadyExists(Conflict):
    """An object with the name of the object to create exists."""


class Forbidden(ClusterError):
    """RBAC, Pod Security, an admission webhook or a ResourceQuota does not allow the request."""


class QuotaExceeded(Forbidden):
    """The request exceeds a ResourceQuota of the namespace, which the text names.

    `subject`: kind and name of the object that the request would write.
    """

    def __init__(self, message: str, subject: str) -> None:
        super().__init__(message)
        self.subject = subject


class NamespaceTerminating(Forbidden):
    """The namespace is being deleted, so nothing can be created in it."""


class Invalid(ClusterError):
    """The API server rejects the object as invalid. A retry cannot succeed.

    `fields`: the paths of the invalid fields; empty if the response named none.
    """

    def __init__(self, message: str, fields: tuple[str, ...] = ()) -> None:
        super().__init__(message)
        self.fields = fields


class TooLarge(ClusterError):
    """The response has more bytes than the request allows."""


class Unavailable(ClusterError):
    """The API server did not respond, or responded with 401, 408, 410, 429 or 5xx. A later retry may succeed.

    `retry_after`: seconds to wait before a retry; None if the response did not say.
    """

    def __init__(self, message: str, retry_after: float | None = None) -> None:
        super().__init__(message)
        self.retry_after = retry_after


def from_response(
    status_code: int, retry_after: str | None, body: bytes, action: str, *, secret: bool
) -> ClusterError:
    """Return the error for an unsuccessful response.

    `action` names the request ("apply Deployment a/b"). `secret`: the request was for a Secret, so the text must not
    contain anything that could quote it.
    """
    status = _parse_status(body)
    reason = str(status.get("reason") or "")
    causes = [cause for cause in (status.get("details") or {}).get("causes") or () if isinstance(cause, dict)]
    text = f"{action}: {status_code} {reason}".rstrip()
    may_quote_request = status_code in (400, 422) or status_code >= 500
    message = (
        _fields_and_reasons(causes) if secret and may_quote_request else _message(status, causes, status_code)
    )
    if message:
        text = f"{text}: {message}"
    # 410: the continue token of a list has expired, because reading the pages took too long.
    if status_code in (401, 408, 410, 429) or (status_code >= 500 and not _is_schema_mismatch(status)):
        return Unavailable(text, _retry_after_seconds(retry_after, status))
    match status_code:
        case 404:
            return NotFound(text)
        case 409 if reason == "AlreadyExists":
            return AlreadyExists(text)
        case 409:
            return Conflict(text)
        case 403:
            return _forbidden_error(status, causes, text, action)
        case _:
            return Invalid(text, tuple(str(cause.get("field", "")) for cause in causes))


def _parse_status(body: bytes) -> dict[str, Any]:
    try:
        status = json.loads(body)
    except ValueError:
        return {}
    # A proxy may respond with a page of its own. Only a Status object is used.
    return status if isinstance(status, dict) and status.get("kind") == "Status" else {}


def _is_schema_mismatch(status: dict[str, Any]) -> bool:
    """Server-side apply returns 500 for an object that does not match its schema. A retry cannot succeed."""
    return str(status.get("message")).startswith("failed to create typed patch object")


def _forbidden_error(
    status: dict[str, Any], causes: list[dict[str, Any]], text: str, action: str
) -> Forbidden:
    if "exceeded quota" in str(status.get("message")):
        _, _, subject = action.partition(" ")
        return QuotaExceeded(text, subject)
    if any(cause.get("reason") == "NamespaceTerminating" for cause in causes):
        return NamespaceTerminating(text)
    return Forbidden(text)


def _retry_after_seconds(header: str | None, status: dict[str, Any]) -> float | None:
    value = header or (status.get("details") or {}).get("retryAfterSeconds")
    try:
        seconds = float(value) if value else None
    except (TypeError, ValueError):
        return None
    # A wrong clock or a broken proxy must not stop the operator for a day.
    return None if seconds is None else min(max(seconds, 0.0), 300.0)


def _message(status: dict[str, Any], causes: list[dict[str, Any]], status_code: int) -> str:
    if status_code in (400, 422) and causes:
        return _join(
            f"{cause.get('field', '')}: {_without_value(str(cause.get('message', '')))}" for cause in causes
        )
    message = str(status.get("message") or "")
    return _join([_without_value(message) if status_code == 422 else message])


def _without_value(message: str) -> str:
    """Return `Invalid value: "hunter2": must be ...` without the value in the middle."""
    prefix, colon, suffix = message.partition(" value: ")
    if not colon or prefix.rpartition(" ")[2] == "Required":
        return message
    if suffix.startswith('"'):
        try:
            # Go's quoting is almost that of JSON. Where it is not, the whole rest is dropped.
            _, end = json.JSONDecoder().raw_decode(suffix)
        except ValueError:
            return f"{prefix} value"
        return f"{prefix} value{suffix[end:]}"
    _, colon, detail = suffix.rpartition(": ")
    return f"{prefix} value: {detail}" if colon else f"{prefix} value"


def _fields_and_reasons(causes: list[dict[str, Any]]) -> str:
    return _join(f"{cause.get('field', '')}: {cause.get('reason', '')}" for cause in causes)


def _join(sentences: Iterable[str]) -> str:
    # The first line only, without duplicates: the lines below may contain whole objects.
    return "; ".join(dict.fromkeys(sentence.split("\n", 1)[0] for sentence in sentences))[:MAX_MESSAGE_CHARS]
