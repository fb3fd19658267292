"""`python -m tests.release VERSION`: check that a release is consistent, and write out/release-notes.md."""

import re
import sys
import tomllib
from collections.abc import Mapping
from pathlib import Path

import yaml

from tests.cluster.settings import ROOT

NOTES = ROOT / "out" / "release-notes.md"


def versions(root: Path) -> Mapping[str, str]:
    """Return the version in each file that names it."""
    project = tomllib.loads((root / "pyproject.toml").read_text())["project"]
    charts = {path: yaml.safe_load(path.read_text()) for path in sorted(root.glob("charts/*/Chart.yaml"))}
    found = {"pyproject.toml": str(project["version"])}
    for path, chart in charts.items():
        found[f"{path.relative_to(root)} (version)"] = str(chart["version"])
    operator_chart = charts[root / "charts" / "mlflow-operator" / "Chart.yaml"]
    return found | {"charts/mlflow-operator/Chart.yaml (appVersion)": str(operator_chart["appVersion"])}


def notes(changelog: str, version: str) -> str | None:
    """Return the section of a version in the changelog; None if there is none."""
    heading = rf"^## \[?{re.escape(version)}\]?(?: - \d{{4}}-\d{{2}}-\d{{2}})?\n"
    section = re.search(rf"{heading}(.*?)(?=^## |\Z)", changelog, re.MULTILINE | re.DOTALL)
    return section[1].strip() if section else None


def main(arguments: list[str]) -> int:
    """Exit codes: 0 if the release is consistent, 1 if it is not, 2 for wrong usage."""
    if len(arguments) != 1:
        print("usage: python -m tests.release VERSION", file=sys.stderr)
        return 2
    (version,) = arguments
    wrong = {place: found for place, found in versions(ROOT).items() if found != version}
    for place, found in wrong.items():
        print(f"{place} is {found}, and the release is {version}. Set it to {version}.", file=sys.stderr)
    text = notes((ROOT / "CHANGELOG.md").read_text(), version)
    if text is None:
        print(
            f"CHANGELOG.md has no section {version}. Rename the section Unreleased, and add a new one above it.",
            file=sys.stderr,
        )
    if wrong or text is None:
        return 1
    NOTES.parent.mkdir(exist_ok=True)
    NOTES.write_text(f"{text}\n")
    print(f"wrote {NOTES.relative_to(ROOT)}")
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
