"""Output of the findings as a table or as JSON."""

import json
import textwrap
from collections import Counter
from collections.abc import Iterable, Sequence
from itertools import groupby

from mlflow_operator.doctor.finding import EXIT_ERROR, Finding, State, exit_code

_LABELS = {
    State.OK: "ok",
    State.NOTE: "note",
    State.PENDING: "pending",
    State.UNKNOWN: "unknown",
    State.FAILED: "FAILED",
}
_MIN_WIDTH = 60


def table(header: str, findings: Sequence[Finding], width: int) -> str:
    """One block per subject, one line per check, the next step below it. `width` is the terminal's width in columns."""
    check_width = max((len(finding.check) for finding in findings), default=0)
    lines = [header]
    for subject, of_subject in groupby(findings, key=lambda finding: finding.subject):
        lines += ["", subject]
        for finding in of_subject:
            lines += _entry(finding, check_width, max(width, _MIN_WIDTH))
    return "\n".join([*lines, "", summary(findings)]) + "\n"


def _entry(finding: Finding, check_width: int, width: int) -> Iterable[str]:
    head = f"  {_LABELS[finding.state]:<7} {finding.check:<{check_width}}  "
    yield from _wrapped(finding.message, head, " " * len(head), width)
    if finding.next_step:
        yield from _wrapped(finding.next_step, " " * (len(head) - 3) + "-> ", " " * len(head), width)


def _wrapped(text: str, head: str, indent: str, width: int) -> Iterable[str]:
    """Wrap each line of `text`. Words are never broken, so that commands can be copied."""
    for number, line in enumerate(text.splitlines() or [""]):
        yield from textwrap.wrap(
            line,
            width,
            initial_indent=head if number == 0 else indent,
            subsequent_indent=indent,
            break_long_words=False,
            break_on_hyphens=False,
        ) or [head.rstrip()]


def summary(findings: Iterable[Finding]) -> str:
    """Summarize all findings in one line."""
    counts = Counter(finding.state for finding in findings)
    parts = [
        f"{counts[state]} {label}"
        for state, label in (
            (State.FAILED, "failed"),
            (State.PENDING, "pending"),
            (State.UNKNOWN, "unknown"),
        )
        if counts[state]
    ]
    if not counts[State.FAILED] and not counts[State.PENDING]:
        parts.insert(0, "All checks passed" if not counts[State.UNKNOWN] else "No check failed")
    return f"{', '.join(parts)}."


def as_json(version: str, header: str, findings: Sequence[Finding]) -> str:
    """The findings as JSON. Released fields are never removed."""
    return _json(
        {
            "version": version,
            "cluster": header,
            "exitCode": exit_code(findings),
            "findings": [
                {
                    "subject": finding.subject,
                    "check": finding.check,
                    "state": finding.state.value,
                    "message": finding.message,
                    "nextStep": finding.next_step,
                }
                for finding in findings
            ],
        }
    )


def error_as_json(version: str, message: str) -> str:
    """The error as JSON if the installation could not be checked."""
    return _json({"version": version, "exitCode": EXIT_ERROR, "error": message, "findings": []})


def _json(document: dict[str, object]) -> str:
    return json.dumps(document, indent=2, ensure_ascii=False) + "\n"
