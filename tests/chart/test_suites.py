"""The suites beside the templates, in helm-unittest's language: what a change of a template is tried with first."""

from pathlib import Path

import pytest

from tests.generate import CHARTS, tool


@pytest.mark.parametrize("chart", CHARTS, ids=lambda chart: chart.name)
def test_the_chart_s_own_suites_pass(chart: Path) -> None:
    """All of them, and none is skipped for a field that it misspells."""
    told = tool("helm-unittest", "--strict", str(chart))
    suites = len([*(chart / "tests").glob("*_test.yaml")])
    assert f"Test Suites: {suites} passed, {suites} total" in told
    assert suites


@pytest.mark.parametrize("chart", CHARTS, ids=lambda chart: chart.name)
def test_suites_and_templates_of_readmes_are_not_shipped(chart: Path) -> None:
    """Who installs the chart has no use for them."""
    assert {"tests/", "README.md.gotmpl"} <= set((chart / ".helmignore").read_text().splitlines())
