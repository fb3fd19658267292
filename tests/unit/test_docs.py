"""The documentation matches the code, and its links are valid."""

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from mlflow_operator.status.conditions import ConditionType, Reason

ROOT = Path(__file__).parents[2]
PAGES = sorted(
    [
        *ROOT.glob("*.md"),
        *ROOT.glob("docs/**/*.md"),
        *ROOT.glob("charts/*/README.md"),
        *ROOT.glob("tests/**/README.md"),
        *ROOT.glob("manifests/*/README.md"),
    ]
)
TROUBLESHOOTING = ROOT / "docs" / "operations" / "troubleshooting.md"


def first_column(heading: str) -> set[str]:
    """First cells of the tables under a heading, without code marks."""
    section = TROUBLESHOOTING.read_text().split(heading, 1)[1].split("\n## ", 1)[0]
    return set(re.findall(r"^\| `(\w+)` \|", section, flags=re.MULTILINE))


def test_every_condition_reason_is_documented() -> None:
    """No other reason is documented."""
    assert first_column("## Reasons") == {reason.value for reason in Reason}


def test_every_condition_type_is_documented() -> None:
    """No other condition type is documented."""
    assert first_column("## Conditions") == {condition_type.value for condition_type in ConditionType}


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_relative_links_are_valid(page: Path) -> None:
    """They lead to a file or directory of this repository."""
    links = re.findall(r"\]\(([^)#]+)(?:#[^)]*)?\)", page.read_text())
    broken = [link for link in links if "://" not in link and not (page.parent / link).exists()]
    assert not broken


def test_site_has_no_broken_link_or_anchor(tmp_path: Path) -> None:
    """In strict mode, each warning of MkDocs is an error."""
    command = (sys.executable, "-m", "mkdocs", "build", "--quiet", "--site-dir", str(tmp_path))
    done = subprocess.run(
        command,
        cwd=ROOT,
        env={**os.environ, "NO_MKDOCS_2_WARNING": "1"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert (tmp_path / "guides" / "connect" / "index.html").exists()
