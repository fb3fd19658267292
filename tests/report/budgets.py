"""Time budgets of the tiers."""

import tomllib
from collections.abc import Mapping
from pathlib import Path

FILE = Path(__file__).with_name("budgets.toml")
DEFAULT_SUITE = "test"
TOTAL = "total"


def of_suite(suite: str, text: str | None = None) -> Mapping[str, float]:
    """Return the budgets in seconds per tier and in total. Raises KeyError for an unknown suite."""
    budgets = tomllib.loads(FILE.read_text() if text is None else text)
    return {**budgets[DEFAULT_SUITE], **budgets[suite]}
