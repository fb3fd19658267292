"""What a check has to say."""

from collections.abc import Iterable
from dataclasses import dataclass
from enum import StrEnum


class State(StrEnum):
    """How things stand; the words of `-o json`."""

    OK = "well"
    NOTE = "note"
    """As somebody wants it, and worth knowing."""
    WAIT = "wait"
    """On its way."""
    UNKNOWN = "unknown"
    """Could not be looked at from here, by this account."""
    FAULT = "fault"


@dataclass(frozen=True)
class Finding:
    """One line of the table.

    `subject`: whose (`cluster`, `operator a/b`, `server a/b`). `next`: what to do, if anything.
    """

    subject: str
    check: str
    state: State
    found: str
    next: str = ""


@dataclass(frozen=True)
class Unobserved:
    """In the place of something that could not be looked at: why, in a sentence."""

    why: str


ALL_WELL, AT_FAULT, COULD_NOT_ASK = 0, 1, 2
"""Exit codes."""


def exit_code(findings: Iterable[Finding]) -> int:
    """What has not arrived yet counts as at fault: who waits for a server in a script wants to know.

    What could not be looked at does not count: an account that sees little would never hear anything else.
    """
    return AT_FAULT if any(f.state in (State.FAULT, State.WAIT) for f in findings) else ALL_WELL
