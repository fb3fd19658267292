"""Results of the checks."""

from collections.abc import Iterable
from dataclasses import dataclass
from enum import StrEnum


class State(StrEnum):
    """State of a check. The values are those of `-o json`."""

    OK = "ok"
    NOTE = "note"
    """Intended by the user, but worth knowing."""
    PENDING = "pending"
    """In progress."""
    UNKNOWN = "unknown"
    """Cannot be checked from here or with this account."""
    FAILED = "failed"


@dataclass(frozen=True)
class Finding:
    """One line of the report.

    `subject` is the object (`cluster`, `operator a/b`, `server a/b`). `next_step` is what the user can do, if anything.
    """

    subject: str
    check: str
    state: State
    message: str
    next_step: str = ""


@dataclass(frozen=True)
class Unobserved:
    """Placeholder for a part of the cluster that could not be read. `reason` is a sentence."""

    reason: str


EXIT_OK, EXIT_FAILED, EXIT_ERROR = 0, 1, 2
"""Exit codes: all checks passed, a check failed, the installation could not be checked."""


def exit_code(findings: Iterable[Finding]) -> int:
    """Return the exit code. A pending check counts as failed: a script may wait for a server.

    Checks with an unknown result do not count, because an account with few permissions would always fail.
    """
    return EXIT_FAILED if any(f.state in (State.FAILED, State.PENDING) for f in findings) else EXIT_OK
