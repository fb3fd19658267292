"""NOTES.txt of both charts: its commands are complete and valid."""

import shutil
from pathlib import Path

import pytest
import yaml

from mlflow_operator import api
from tests.chart.rendering import Values, render
from tests.generate import CHART, CHARTS


@pytest.fixture
def chart(tmp_path: Path) -> Path:
    """The chart of the operator, with readable notes."""
    return chart_with_readable_notes(CHART, tmp_path)


def chart_with_readable_notes(chart: Path, folder: Path) -> Path:
    """Copy a chart and replace its objects by one with the notes, which `helm template` does not print."""
    copy = folder / chart.name
    shutil.copytree(chart, copy, ignore=shutil.ignore_patterns("*.yaml", "NOTES.txt"))
    for name in ("Chart.yaml", "values.yaml"):
        shutil.copy(chart / name, copy)
    notes = (chart / "templates" / "NOTES.txt").read_text()
    template = (
        f'{{{{- define "notes" }}}}{notes}{{{{- end }}}}\nnotes: {{{{ include "notes" . | toJson }}}}\n'
    )
    (copy / "templates" / "notes.yaml").write_text(template)
    return copy


def render_notes(chart: Path, values: Values | None = None) -> str:
    """Render the notes with these values."""
    (obj,) = render(values, str(chart))
    return str(obj["notes"])


def test_manifest_in_the_notes_is_valid(chart: Path) -> None:
    """The models accept the MLflowServer in the notes, and the commands use its name."""
    notes = render_notes(chart)
    document = notes.split("<<'END'\n", 1)[1].split("\n  END\n", 1)[0]
    server = api.parse(yaml.safe_load(document))
    assert f"mlflowserver/{server.metadata.name}" in notes
    assert f"port-forward -n default service/{server.metadata.name} 5000" in notes


def test_notes_contain_the_troubleshooting_command(chart: Path) -> None:
    """`kubectl describe` shows the conditions with the cause and the next step."""
    assert "kubectl describe -n default mlflowserver/tracking" in render_notes(chart)


def test_notes_use_a_watched_namespace(chart: Path) -> None:
    """The operator would ignore a server in another namespace."""
    notes = render_notes(chart, {"watchNamespaces": ["team-a", "team-b"]})
    assert "these namespaces: team-a, team-b" in notes
    assert notes.count("-n team-a ") == 4
    assert "-n default" not in notes


@pytest.mark.parametrize("chart_dir", CHARTS, ids=lambda chart: chart.name)
def test_notes_fit_on_a_screen(chart_dir: Path, tmp_path: Path) -> None:
    """At most 24 lines of 100 characters."""
    lines = render_notes(chart_with_readable_notes(chart_dir, tmp_path)).splitlines()
    assert len(lines) <= 24
    assert max(map(len, lines)) <= 100


@pytest.mark.parametrize(
    ("values", "warning"),
    [
        ({"crds": {"keep": False}}, "deletes every MLflowServer"),
        ({"replicaCount": 0}, "no operator is running"),
    ],
)
def test_notes_warn_about_dangerous_values(chart: Path, values: Values, warning: str) -> None:
    """There is no warning with the default values."""
    assert warning in render_notes(chart, values)
    assert warning not in render_notes(chart)


def test_notes_report_a_cluster_without_the_admission_policy(chart: Path) -> None:
    """Nothing is reported if the policy is installed, or if an administrator has switched it off."""
    warning = "does not serve ValidatingAdmissionPolicy"
    old_cluster = ("apiregistration.k8s.io/v1",)
    (notes,) = render(None, str(chart), api_versions=old_cluster)
    assert warning in notes["notes"]
    assert warning not in render_notes(chart)
    switched_off = {"admissionPolicy": {"enabled": False}}
    (notes,) = render(switched_off, str(chart), api_versions=old_cluster)
    assert warning not in notes["notes"]
