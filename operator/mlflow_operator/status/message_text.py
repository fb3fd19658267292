"""Parts of messages: numbers, and output of other programs, which is short and identical for each repetition.

Log lines start with a timestamp, and network errors contain a source port that differs with each attempt. In a
condition each such difference would cause a write to the API server and an Event without new information.
"""

import re

_MAX_LINES, _MAX_CHARS = 5, 600

_TIMESTAMP = re.compile(
    r"\[?\d{4}[-/]\d\d[-/]\d\d[T ]\d\d:\d\d:\d\d(?:[.,]\d+)?"  # 2026/11/21 14:00:00, 2026-11-21T14:00:00.123
    r"(?:Z| (?:UTC|GMT)\b| ?[+-]\d\d:?\d\d\b)?\]? *"  # Z, UTC, +0000
)
_VOLATILE = (
    (re.compile(r"\[\d+\]"), "[…]"),  # process id in the format of uvicorn and Postgres
    (re.compile(r"\b(pid|process)([ :=]+)\d+", re.IGNORECASE), r"\1\2…"),
    (re.compile(r"\b0x[0-9a-fA-F]{6,}\b"), "0x…"),
    # source address and port of a connection
    (re.compile(r"\b(read|write|dial) (tcp|udp) \S+->"), r"\1 \2 "),
)


def strip_volatile(text: str) -> str:
    """Remove the parts that differ with each attempt: timestamps, process ids, memory addresses and source ports."""
    text = _TIMESTAMP.sub("", text)
    for pattern, replacement in _VOLATILE:
        text = pattern.sub(replacement, text)
    return text


_STATEMENT, _BACKGROUND_LINK = "[SQL:", "(Background on this error at: "


def _without_statement(text: str) -> str:
    """Remove the SQL statement and the link from an error of SQLAlchemy.

    SQLAlchemy prints dozens of lines of SQL after the cause of the error, followed by a link. If the beginning of the
    output is truncated, everything above the link is SQL.
    """
    above, link, below = text.rpartition(_BACKGROUND_LINK)
    if not link:
        return text
    cause, statement_start, _ = above.partition(_STATEMENT)
    return (cause if statement_start else "") + below.partition("\n")[2]


def last_lines(text: str | None) -> str:
    """Return the end of a container's output, at most 5 lines and 600 characters; empty if there is no output."""
    lines = [
        line.rstrip() for line in strip_volatile(_without_statement(text or "")).splitlines() if line.strip()
    ]
    return "\n".join(lines[-_MAX_LINES:])[-_MAX_CHARS:]


def as_sentence(text: str | None) -> str:
    """Return the first line, terminated by a period."""
    lines = strip_volatile(text or "").strip().splitlines()
    return f"{lines[0][:_MAX_CHARS].rstrip('.')}." if lines else "no reason given."


def pluralize(number: int, noun: str) -> str:
    """`1 run`, `2 runs`."""
    return f"{number} {noun}" if number == 1 else f"{number} {noun}s"
