"""How long each tier may take."""

import tomllib
from collections.abc import Mapping
from pathlib import Path

FILE = Path(__file__).with_name("budgets.toml")
DEFAULT_SUITE = "test"
TOTAL = "total"


def of_suite(suite: str, text: str | None = None) -> Mapping[str, float]:
    """Seconds per tier and in total. KeyError: the file does not know the suite."""
    known = tomllib.loads(FILE.read_text() if text is None else text)
    return {**known[DEFAULT_SUITE], **known[suite]}
