"""What Helm prints at the end: the next command, which works as it stands."""

import shutil
from pathlib import Path

import pytest
import yaml

from mlflow_operator import api
from tests.chart.rendering import Values, render
from tests.generate import CHART, CHARTS


@pytest.fixture
def chart(tmp_path: Path) -> Path:
    """The operator's chart, with notes to be read."""
    return noted(CHART, tmp_path)


def noted(chart: Path, folder: Path) -> Path:
    """A chart whose one object carries the notes: `helm template` leaves them out."""
    copy = folder / chart.name
    shutil.copytree(chart, copy, ignore=shutil.ignore_patterns("*.yaml", "NOTES.txt"))
    for name in ("Chart.yaml", "values.yaml"):
        shutil.copy(chart / name, copy)
    notes = (chart / "templates" / "NOTES.txt").read_text()
    wrapped = f'{{{{- define "notes" }}}}{notes}{{{{- end }}}}\nnotes: {{{{ include "notes" . | toJson }}}}\n'
    (copy / "templates" / "notes.yaml").write_text(wrapped)
    return copy


def printed(chart: Path, values: Values | None = None) -> str:
    """The notes for these values."""
    (only,) = render(values, str(chart))
    return str(only["notes"])


def test_the_server_in_the_notes_is_one(chart: Path) -> None:
    """Pasted into a shell, it is taken."""
    notes = printed(chart)
    document = notes.split("<<'END'\n", 1)[1].split("\n  END\n", 1)[0]
    server = api.parse(yaml.safe_load(document))
    assert f"mlflowserver/{server.metadata.name}" in notes
    assert f"port-forward -n default service/{server.metadata.name} 5000" in notes


def test_the_notes_say_where_to_look_when_it_fails(chart: Path) -> None:
    """The conditions name the cause and the next step."""
    assert "kubectl describe -n default mlflowserver/tracking" in printed(chart)


def test_the_notes_stay_within_what_is_watched(chart: Path) -> None:
    """A server elsewhere would never be looked at."""
    notes = printed(chart, {"watchNamespaces": ["team-a", "team-b"]})
    assert "these namespaces: team-a, team-b" in notes
    assert notes.count("-n team-a ") == 4
    assert "-n default" not in notes


@pytest.mark.parametrize("chart_of", CHARTS, ids=lambda chart: chart.name)
def test_the_notes_fit_a_screen(chart_of: Path, tmp_path: Path) -> None:
    """What scrolls away is not read."""
    lines = printed(noted(chart_of, tmp_path)).splitlines()
    assert len(lines) <= 24
    assert max(map(len, lines)) <= 100


@pytest.mark.parametrize(
    ("values", "warning"),
    [({"crds": {"keep": False}}, "deletes every MLflowServer"), ({"replicas": 0}, "no operator runs")],
)
def test_the_notes_warn_of_what_surprises(chart: Path, values: Values, warning: str) -> None:
    """Only where it is so."""
    assert warning in printed(chart, values)
    assert warning not in printed(chart)
