"""The check of a release: all files name its version, and the changelog describes it."""

from pathlib import Path

import pytest

from tests import release
from tests.cluster.settings import ROOT

CHANGELOG = """# Changelog

## Unreleased

## [1.2.0] - 2026-01-31

### Added

- A feature.

## 1.1.0

- Older.
"""


def test_all_files_name_the_same_version() -> None:
    assert len(set(release.versions(ROOT).values())) == 1


@pytest.mark.parametrize(
    ("version", "expected"), [("1.2.0", "### Added\n\n- A feature."), ("1.1.0", "- Older.")]
)
def test_notes_are_the_section_of_the_version(version: str, expected: str) -> None:
    assert release.notes(CHANGELOG, version) == expected


@pytest.mark.parametrize("version", ["1.2", "2.0.0", "1x2x0"])
def test_version_without_section_has_no_notes(version: str) -> None:
    assert release.notes(CHANGELOG, version) is None


def test_inconsistent_release_names_each_file(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    monkeypatch.setattr(release, "NOTES", tmp_path / "notes.md")
    assert release.main(["9.9.9"]) == 1
    message = capsys.readouterr().err
    assert "pyproject.toml is " in message
    assert "CHANGELOG.md has no section 9.9.9" in message
    assert not (tmp_path / "notes.md").exists()
