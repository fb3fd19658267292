"""What others say, fit to be quoted in a condition: short, and the same each time it is said.

Containers begin their lines with the time, kubelet and the network name a port that is another one with each try. In a
condition each of these would be a write to the API server and an Event, again and again, for nothing new.
"""

import re

_LINES, _CHARACTERS = 5, 600

_TIME = re.compile(
    r"\[?\d{4}[-/]\d\d[-/]\d\d[T ]\d\d:\d\d:\d\d(?:[.,]\d+)?"  # 2026/11/21 14:00:00, 2026-11-21T14:00:00.123
    r"(?:Z| (?:UTC|GMT)\b| ?[+-]\d\d:?\d\d\b)?\]? *"  # Z, UTC, +0000
)
_PASSING = (
    (re.compile(r"\[\d+\]"), "[…]"),  # a process, as uvicorn and Postgres write it
    (re.compile(r"\b(pid|process)([ :=]+)\d+", re.IGNORECASE), r"\1\2…"),
    (re.compile(r"\b0x[0-9a-fA-F]{6,}\b"), "0x…"),
    (re.compile(r"\b(read|write|dial) (tcp|udp) \S+->"), r"\1 \2 "),  # the near end of a connection
)


def strip_volatile(said: str) -> str:
    """`said` without what is different each time: times, process ids, addresses in memory, ports of our own end."""
    said = _TIME.sub("", said)
    for passing, instead in _PASSING:
        said = passing.sub(instead, said)
    return said


_STATEMENT, _LINK = "[SQL:", "(Background on this error at: "


def _without_statement(said: str) -> str:
    """SQLAlchemy ends each error with the statement, dozens of lines of it, and a link: the cause stands above.

    Where the beginning was cut off, all that is left above the link is statement.
    """
    above, link, below = said.rpartition(_LINK)
    if not link:
        return said
    cause, begun, _ = above.partition(_STATEMENT)
    return (cause if begun else "") + below.partition("\n")[2]


def last_lines(said: str | None) -> str:
    """The end of a container's output: five lines and 600 characters at most; empty where it said nothing."""
    lines = [
        line.rstrip() for line in strip_volatile(_without_statement(said or "")).splitlines() if line.strip()
    ]
    return "\n".join(lines[-_LINES:])[-_CHARACTERS:]


def as_sentence(said: str | None) -> str:
    """The first line, closed by a full stop."""
    lines = strip_volatile(said or "").strip().splitlines()
    return f"{lines[0][:_CHARACTERS].rstrip('.')}." if lines else "no reason given."
