"""Logs: one JSON object a line on stderr, each saying which MLflowServer it is about."""

import logging
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from datetime import UTC, datetime
from typing import Any, TextIO

from pythonjsonlogger.json import JsonFormatter

_ABOUT: ContextVar[tuple[str, str] | None] = ContextVar("about", default=None)

QUIET = ("aiohttp", "asyncio", "boto3", "botocore", "kopf", "kubernetes", "s3transfer", "urllib3")
"""Loggers of others, heard from WARNING on: below it they tell of each request and each event."""


@contextmanager
def about(namespace: str, name: str) -> Iterator[None]:
    """All that is logged inside, by tasks started inside too, is about this MLflowServer."""
    token = _ABOUT.set((namespace, name))
    try:
        yield
    finally:
        _ABOUT.reset(token)


def setup(level: str = "INFO", plain: bool = False, stream: TextIO | None = None) -> None:
    """Send all logs of this process to `stream` (default: stderr). Replaces what was set up before.

    `plain`: text for a terminal instead of JSON. ValueError: no such level.
    """
    handler = logging.StreamHandler(stream or sys.stderr)
    handler.setFormatter(_Plain() if plain else _Json())
    handler.addFilter(_as_trouble)
    root = logging.getLogger()
    root.handlers[:] = [handler]
    root.setLevel(level)
    for name in QUIET:
        # Not at DEBUG either: botocore would print what it signs, kopf whole objects.
        logging.getLogger(name).setLevel(logging.WARNING)


def _as_trouble(record: logging.LogRecord) -> bool:
    """What befalls kopf's own requests is the network's or the API server's trouble, and no fault to report.

    kopf calls each a request that failed an error, though it tries again. Handlers are ours, and their errors
    (logger `kopf.objects`) stay what they are.
    """
    if record.name.startswith("kopf._") and record.levelno > logging.WARNING:
        record.levelno, record.levelname = logging.WARNING, "WARNING"
        record.exc_info, record.exc_text = None, None
    return True


class _Json(JsonFormatter):
    """Only the fields named here: what a library adds to its records may be anything, settings included."""

    def __init__(self) -> None:
        super().__init__(json_ensure_ascii=True)

    def add_fields(
        self, log_data: dict[str, Any], record: logging.LogRecord, message_dict: dict[str, Any]
    ) -> None:
        log_data["timestamp"] = _timestamp(record)
        log_data["level"] = record.levelname
        log_data["logger"] = record.name
        log_data["message"] = record.getMessage()
        which = _which(record)
        if which:
            log_data["namespace"], log_data["name"] = which
        if record.exc_info:
            log_data["traceback"] = self.formatException(record.exc_info)


class _Plain(logging.Formatter):
    def format(self, record: logging.LogRecord) -> str:
        which = _which(record)
        where = f" {'/'.join(which)}" if which else ""
        text = f"{_timestamp(record)} {record.levelname:<7}{where} {record.getMessage()}"
        return f"{text}\n{self.formatException(record.exc_info)}" if record.exc_info else text


def _which(record: logging.LogRecord) -> tuple[str, str] | None:
    # kopf knows the object of its own records.
    reference = getattr(record, "k8s_ref", None)
    if isinstance(reference, dict) and reference.get("name"):
        return str(reference.get("namespace") or ""), str(reference["name"])
    return _ABOUT.get()


def _timestamp(record: logging.LogRecord) -> str:
    moment = datetime.fromtimestamp(record.created, UTC)
    return f"{moment:%Y-%m-%dT%H:%M:%S}.{moment.microsecond // 1000:03}Z"
