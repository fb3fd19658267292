"""helm-unittest suites of the charts, and the content of the packaged charts."""

from pathlib import Path

import pytest

from tests.generate import CHARTS, tool


@pytest.mark.parametrize("chart", CHARTS, ids=lambda chart: chart.name)
def test_helm_unittest_suites_pass(chart: Path) -> None:
    """All suites run. With `--strict`, unknown fields in a suite are errors."""
    output = tool("helm-unittest", "--strict", str(chart))
    suites = len([*(chart / "tests").glob("*_test.yaml")])
    assert f"Test Suites: {suites} passed, {suites} total" in output
    assert suites


@pytest.mark.parametrize("chart", CHARTS, ids=lambda chart: chart.name)
def test_chart_package_excludes_tests_and_readme_template(chart: Path) -> None:
    """Users of a chart do not need them."""
    ignored = set((chart / ".helmignore").read_text().splitlines())
    # Not `templates/tests`, which contains the pod of `helm test`.
    assert {"/tests/", "README.md.gotmpl"} <= ignored
    assert "tests/" not in ignored
