"""The documentation matches the code, and its links are valid."""

import os
import re
import shutil
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


def without_code_blocks(markdown: str) -> str:
    """The text without examples, in which a comment looks like a heading."""
    return re.sub(r"^ *```.*?^ *```", "", markdown, flags=re.MULTILINE | re.DOTALL)


def anchors(markdown: str) -> set[str]:
    """The anchors that GitHub creates for the headings of a page."""
    headings = re.findall(r"^#+ (.+)$", without_code_blocks(markdown), flags=re.MULTILINE)
    texts = (re.sub(r"\[([^\]]*)\]\([^)]*\)", r"\1", heading) for heading in headings)
    return {re.sub(r"[^\w\- ]", "", text.strip().lower()).replace(" ", "-") for text in texts}


def broken_links(page: Path, markdown: str) -> list[str]:
    """The relative links of a page that lead to no file, directory or heading of this repository."""
    broken = []
    for link in re.findall(r"\]\(([^)\s]+)\)", without_code_blocks(markdown)):
        path, _, anchor = link.partition("#")
        target = page.parent / path
        if "://" in link:
            continue
        if not target.exists() or (
            anchor and anchor not in anchors(target.read_text() if path else markdown)
        ):
            broken.append(link)
    return broken


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_relative_links_are_valid(page: Path) -> None:
    """They lead to a file, a directory or a heading of this repository, also from docs/ to other pages and back."""
    assert broken_links(page, page.read_text()) == []


@pytest.mark.parametrize(
    ("page", "link"),
    [
        ("README.md", "docs/guides/connect.md#no-such-heading"),
        ("docs/architecture.md", "../CONTRIBUTING.md#no-such-heading"),
        ("docs/architecture.md", "../no-such-page.md"),
        ("CONTRIBUTING.md", "#no-such-heading"),
    ],
)
def test_broken_links_are_found(page: str, link: str) -> None:
    assert broken_links(ROOT / page, f"# Title\n\n[broken]({link})\n[valid](#title)") == [link]


def build_site(directory: Path, site: Path) -> subprocess.CompletedProcess[str]:
    """Run MkDocs. In strict mode, each warning is an error. `--quiet` would hide warnings, and they would pass."""
    return subprocess.run(
        (sys.executable, "-m", "mkdocs", "build", "--site-dir", str(site)),
        cwd=directory,
        env={**os.environ, "NO_MKDOCS_2_WARNING": "1"},
        capture_output=True,
        text=True,
        check=False,
    )


def test_site_has_no_broken_link_or_anchor(tmp_path: Path) -> None:
    done = build_site(ROOT, tmp_path)
    assert done.returncode == 0, done.stderr
    assert (tmp_path / "guides" / "connect" / "index.html").exists()


def test_broken_anchor_fails_the_build(tmp_path: Path) -> None:
    shutil.copy(ROOT / "mkdocs.yml", tmp_path)
    shutil.copytree(ROOT / "docs", tmp_path / "docs")
    with (tmp_path / "docs" / "architecture.md").open("a") as page:
        page.write("\n[broken](guides/connect.md#no-such-heading)\n")
    done = build_site(tmp_path, tmp_path / "site")
    assert done.returncode != 0
    assert "no-such-heading" in done.stderr
