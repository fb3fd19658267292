"""Recognizes common causes in the log of a failed step: a full disk, an unreachable package index or registry."""

import re
import shutil
from dataclasses import dataclass
from pathlib import Path

TAIL_CHARACTERS = 20_000
"""Only the end of a log is searched: the cause is near the end, and a compiler's log can have megabytes."""


@dataclass(frozen=True)
class _Problem:
    pattern: re.Pattern[str]
    sentence: str

    def describe(self, text: str) -> str | None:
        found = self.pattern.search(text)
        return self.sentence.format(*found.groups()) if found else None


def _problem(pattern: str, sentence: str) -> _Problem:
    return _Problem(re.compile(pattern, re.IGNORECASE), sentence)


DISK_FULL = "The disk is full. Free at least 15 GB (make clean-cache frees the cache), "
MINIMUM_FREE_BYTES = 50 * 2**20
"""Below this, programs fail, and many do not report the reason."""

CONTINUE = "then run the same command again: finished steps are kept."
KNOWN = (
    _problem(
        r"no space left on device|disk quota exceeded|not enough free space",
        f"{DISK_FULL}{CONTINUE}",
    ),
    _problem(
        r"local registry does not answer|lookup mlflow-operator-registry",
        f"The local registry does not answer. See `docker logs mlflow-operator-registry`, {CONTINUE}",
    ),
    _problem(
        r"cannot connect to the docker daemon",
        f"The docker engine does not answer. See logs/dockerd.log in the cache, {CONTINUE}",
    ),
    *(
        _problem(
            pattern,
            f"A registry or package index cannot be reached ({{0}}). Check the network, {CONTINUE}",
        )
        for pattern in (
            r"could not resolve (?:host: )?'?([\w.-]+)",
            r"lookup ([\w.-]+).*?(?:no such host|server misbehaving)",
            r"failed to fetch \w+://([\w.-]+)",
            r"host='([\w.-]+)', port=\d+\).*(?:max retries|timed out)",
            r"error sending request for url \(\w+://([\w.-]+)",
            r"dial tcp (\S+): (?:connect|i/o)",
            r"\w+://([\w.-]+)\S*: (?:context deadline exceeded|net/http: request canceled|.*Client\.Timeout exceeded)",
            r"no matching distribution found for (\S+)",
            r"(network is unreachable|temporary failure in name resolution)",
        )
    ),
)


def full_disk(*folders: Path) -> str | None:
    """Return the message about a full disk if one of these folders has no space left, otherwise None."""
    free = [shutil.disk_usage(folder).free for folder in folders if folder.exists()]
    return f"{DISK_FULL}{CONTINUE}" if any(space < MINIMUM_FREE_BYTES for space in free) else None


def diagnose(text: str) -> str | None:
    """Return a line with the problem and the next action if the log shows a known problem, otherwise None."""
    tail = text[-TAIL_CHARACTERS:]
    described = (problem.describe(tail) for problem in KNOWN)
    return next((sentence for sentence in described if sentence), None)
