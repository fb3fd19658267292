"""Generates the pages in docs/reference from the code, so that they cannot become outdated."""

from collections.abc import Mapping
from pathlib import Path

from tests.cluster.settings import ROOT
from tests.reference import api, cli, conditions, metrics, mlflow_versions, roles

FOLDER = ROOT / "docs" / "reference"


def pages() -> Mapping[Path, str]:
    """Return every page with its text."""
    return {
        FOLDER / "api.md": api.server_page(),
        FOLDER / "platform-api.md": api.platform_page(),
        FOLDER / "cli.md": cli.page(),
        FOLDER / "conditions.md": conditions.page(),
        FOLDER / "metrics.md": metrics.page(),
        FOLDER / "mlflow-versions.md": mlflow_versions.page(),
        FOLDER / "roles.md": roles.page(),
    }
