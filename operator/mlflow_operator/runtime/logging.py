"""Logging setup: one JSON object per line on stderr, with the name and namespace of the resource it concerns."""

import logging
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from datetime import UTC, datetime
from typing import Any, TextIO

from pythonjsonlogger.json import JsonFormatter

_CURRENT_RESOURCE: ContextVar[tuple[str, str] | None] = ContextVar("current_resource", default=None)

LIBRARY_LOGGERS = ("aiohttp", "asyncio", "boto3", "botocore", "kopf", "kubernetes", "s3transfer", "urllib3")
"""Loggers of libraries, limited to WARNING and above; below that they log every request and every event."""


@contextmanager
def resource_context(namespace: str, name: str) -> Iterator[None]:
    """Add this resource to all records logged inside the context, also by tasks that are started inside.

    `namespace` is empty for an MLflowPlatform.
    """
    token = _CURRENT_RESOURCE.set((namespace, name))
    try:
        yield
    finally:
        _CURRENT_RESOURCE.reset(token)


def setup(level: str = "INFO", text: bool = False, stream: TextIO | None = None) -> None:
    """Send all logs of this process to `stream` (default: stderr). Replaces earlier handlers.

    `text`: write text for a terminal instead of JSON. Raises ValueError for an unknown level.
    """
    handler = logging.StreamHandler(stream or sys.stderr)
    handler.setFormatter(_TextFormatter() if text else _JSONFormatter())
    handler.addFilter(_downgrade_kopf_errors)
    root = logging.getLogger()
    root.handlers[:] = [handler]
    root.setLevel(level)
    for name in LIBRARY_LOGGERS:
        # Also with level DEBUG: botocore would log the requests that it signs, and kopf whole objects.
        logging.getLogger(name).setLevel(logging.WARNING)


_KOPF_CALLBACK = "request_cancel_callback"
"""Function of `kopf._cogs.clients.api` that is called when a watch ends."""


def _downgrade_kopf_errors(record: logging.LogRecord) -> bool:
    """Turn errors of kopf's own requests into warnings without a traceback. A logging filter; keeps every record.

    kopf logs each failed request as an error, although it retries. The cause is the network or the API server, not a
    bug of the operator. Errors of handlers (logger `kopf.objects`) stay errors, because handlers are operator code.

    If a watch ends while its request waits for a slow API server, kopf 1.45 fails to cancel the request: asyncio calls
    its callback outside of a task, and reports that as an error. The request ends with its timeout.
    """
    is_of_kopf = record.name.startswith("kopf._") or (
        record.name == "asyncio" and _KOPF_CALLBACK in record.getMessage()
    )
    if is_of_kopf and record.levelno > logging.WARNING:
        record.levelno, record.levelname = logging.WARNING, "WARNING"
        record.exc_info, record.exc_text = None, None
    return True


class _JSONFormatter(JsonFormatter):
    """JSON with a fixed list of fields. Libraries may add anything to their records, even settings with secrets."""

    def __init__(self) -> None:
        super().__init__(json_ensure_ascii=True)

    def add_fields(
        self, log_data: dict[str, Any], record: logging.LogRecord, message_dict: dict[str, Any]
    ) -> None:
        log_data["timestamp"] = _timestamp(record)
        log_data["level"] = record.levelname
        log_data["logger"] = record.name
        log_data["message"] = record.getMessage()
        namespace, name = _resource_of(record) or ("", "")
        log_data |= {key: text for key, text in (("namespace", namespace), ("name", name)) if text}
        if record.exc_info:
            log_data["traceback"] = self.formatException(record.exc_info)


class _TextFormatter(logging.Formatter):
    def format(self, record: logging.LogRecord) -> str:
        resource = "/".join(filter(None, _resource_of(record) or ()))
        resource_field = f" {resource}" if resource else ""
        text = f"{_timestamp(record)} {record.levelname:<7}{resource_field} {record.getMessage()}"
        return f"{text}\n{self.formatException(record.exc_info)}" if record.exc_info else text


def _resource_of(record: logging.LogRecord) -> tuple[str, str] | None:
    # kopf adds the object to its own records.
    reference = getattr(record, "k8s_ref", None)
    if isinstance(reference, dict) and reference.get("name"):
        return str(reference.get("namespace") or ""), str(reference["name"])
    return _CURRENT_RESOURCE.get()


def _timestamp(record: logging.LogRecord) -> str:
    created = datetime.fromtimestamp(record.created, UTC)
    return f"{created:%Y-%m-%dT%H:%M:%S}.{created.microsecond // 1000:03}Z"
