"""Findings on a screen, or for a program."""

import json
import textwrap
from collections import Counter
from collections.abc import Iterable, Sequence
from itertools import groupby

from mlflow_operator.doctor.finding import COULD_NOT_ASK, Finding, State, exit_code

_WORDS = {
    State.OK: "ok",
    State.NOTE: "note",
    State.WAIT: "wait",
    State.UNKNOWN: "?",
    State.FAULT: "FAULT",
}
_NARROWEST = 60


def table(here: str, findings: Sequence[Finding], width: int) -> str:
    """A block a subject, a line a check, and beneath what to do. `width`: columns of the screen."""
    column = max((len(finding.check) for finding in findings), default=0)
    lines = [here]
    for subject, of_subject in groupby(findings, key=lambda finding: finding.subject):
        lines += ["", subject]
        for finding in of_subject:
            lines += _entry(finding, column, max(width, _NARROWEST))
    return "\n".join([*lines, "", summary(findings)]) + "\n"


def _entry(finding: Finding, column: int, width: int) -> Iterable[str]:
    head = f"  {_WORDS[finding.state]:<6} {finding.check:<{column}}  "
    yield from _wrapped(finding.found, head, " " * len(head), width)
    if finding.next:
        yield from _wrapped(finding.next, " " * (len(head) - 3) + "-> ", " " * len(head), width)


def _wrapped(text: str, head: str, indent: str, width: int) -> Iterable[str]:
    """The lines of `text` as they are, each folded; words are never broken, so that commands can be copied."""
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
    """One sentence for all of it."""
    counted = Counter(finding.state for finding in findings)
    said = [
        f"{counted[state]} {words}"
        for state, words in (
            (State.FAULT, "at fault"),
            (State.WAIT, "on the way"),
            (State.UNKNOWN, "not looked at"),
        )
        if counted[state]
    ]
    if not counted[State.FAULT] and not counted[State.WAIT]:
        said.insert(0, "All well" if not counted[State.UNKNOWN] else "All well that was looked at")
    return f"{', '.join(said)}."


def as_json(version: str, here: str, findings: Sequence[Finding]) -> str:
    """The same for programs. Members are only ever added."""
    return _json(
        {
            "version": version,
            "cluster": here,
            "exitCode": exit_code(findings),
            "findings": [
                {
                    "subject": finding.subject,
                    "check": finding.check,
                    "state": finding.state.value,
                    "found": finding.found,
                    "next": finding.next,
                }
                for finding in findings
            ],
        }
    )


def failure_as_json(version: str, why: str) -> str:
    """That nothing could be asked."""
    return _json({"version": version, "exitCode": COULD_NOT_ASK, "error": why, "findings": []})


def _json(answer: dict[str, object]) -> str:
    return json.dumps(answer, indent=2, ensure_ascii=False) + "\n"
