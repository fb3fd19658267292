"""The pages for users keep up with the code."""

import re
from pathlib import Path

import pytest

from mlflow_operator.status.conditions import ConditionType, Reason

ROOT = Path(__file__).parents[2]
PAGES = sorted(
    [
        *ROOT.glob("*.md"),
        *ROOT.glob("docs/*.md"),
        *ROOT.glob("charts/*/README.md"),
        *ROOT.glob("manifests/*/README.md"),
    ]
)
TROUBLE = ROOT / "docs" / "when-something-is-wrong.md"


def rows(heading: str) -> set[str]:
    """First cells of the first table under a heading, code marks taken off."""
    section = TROUBLE.read_text().split(heading, 1)[1].split("\n## ", 1)[0]
    return set(re.findall(r"^\| `(\w+)` \|", section, flags=re.MULTILINE))


def test_every_reason_is_explained() -> None:
    """And none that no longer exists."""
    assert rows("## Reasons") == {reason.value for reason in Reason}


def test_every_condition_is_explained() -> None:
    """And none that no longer exists."""
    assert rows("# When something is wrong") == {kind.value for kind in ConditionType}


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_links_lead_somewhere(page: Path) -> None:
    """Relative ones: a file or folder of this repository."""
    links = re.findall(r"\]\(([^)#]+)(?:#[^)]*)?\)", page.read_text())
    broken = [link for link in links if "://" not in link and not (page.parent / link).exists()]
    assert not broken
