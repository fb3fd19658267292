"""The chart's values: each documented, each of use, and a slip in one refused with its name."""

from collections.abc import Iterator
from typing import Any

import pytest
import yaml

from tests.chart.rendering import EVERYTHING, refusal
from tests.generate import CHART

TEXT = (CHART / "values.yaml").read_text()
DEFAULTS = yaml.safe_load(TEXT)


def leaves(values: dict[str, Any], path: str = "") -> Iterator[str]:
    """The paths of all values, those of maps that are given as a whole included."""
    for key, value in values.items():
        if isinstance(value, dict) and value and key != "resources":
            yield from leaves(value, f"{path}.{key}")
        else:
            yield f"{path}.{key}"


PATHS = list(leaves(DEFAULTS))


@pytest.mark.parametrize(
    ("values", "field", "why"),
    [
        ({"replica": 2}, "replica", "not allowed"),
        ({"image": {"tags": "1"}}, "/image", "tags"),
        ({"metrics": {"service": {"enabled": True}}}, "/metrics/service", "enabled"),
        ({"crds": {"keep": "no"}}, "/crds/keep", "want boolean"),
        ({"crds": None, "replicas": "two"}, "/replicas", "want integer"),
        ({"replicas": -1}, "/replicas", "minimum"),
        ({"replicas": 1.5}, "/replicas", "want integer"),
        ({"image": {"tag": 1.0}}, "/image/tag", "want string"),
        ({"image": {"repository": ""}}, "/image/repository", ""),
        ({"image": {"pullPolicy": "always"}}, "/image/pullPolicy", "IfNotPresent"),
        ({"imagePullSecrets": ["login"]}, "/imagePullSecrets/0", "want object"),
        ({"watchNamespaces": "team-a"}, "/watchNamespaces", "want array"),
        ({"watchNamespaces": ["team-*"]}, "/watchNamespaces/0", "pattern"),
        ({"watchNamespaces": ["a", "a"]}, "/watchNamespaces", "equal"),
        ({"adminSecrets": {"platform": "admin"}}, "/adminSecrets/platform", "want array"),
        ({"adminSecrets": {"platform": []}}, "/adminSecrets/platform", "minItems"),
        ({"images": {"mlflow": "example.com/mlflow:v3.17.2"}}, "/images/mlflow", "pattern"),
        ({"images": {"postgres": "-x"}}, "/images/postgres", "pattern"),
        ({"clusterDomain": "cluster.local."}, "/clusterDomain", "pattern"),
        ({"log": {"level": "INFO"}}, "/log/level", "'info'"),
        ({"log": {"format": "xml"}}, "/log/format", "'json'"),
        ({"resources": {"limit": {}}}, "/resources", "limit"),
        ({"nodeSelector": {"gpu": True}}, "/nodeSelector/gpu", "want string"),
        ({"podAnnotations": {"a": 1}}, "/podAnnotations/a", "want string"),
        ({"tolerations": [{"effects": "NoSchedule"}]}, "/tolerations/0", "effects"),
        ({"podDisruptionBudget": {"maxUnavailable": "some"}}, "/podDisruptionBudget/maxUnavailable", ""),
        ({"serviceAccount": {"name": "Me"}}, "/serviceAccount/name", "pattern"),
        ({"extraEnv": {"A": "b"}}, "/extraEnv", "want array"),
        ({"extraEnv": [{"name": "A", "value": 1}]}, "/extraEnv/0/value", "want string"),
    ],
)
def test_a_slip_is_refused_by_name(values: dict[str, Any], field: str, why: str) -> None:
    """Before anything reaches the cluster; the message says where and what would do."""
    said = refusal(values)
    assert field in said
    assert why in said


def test_what_is_right_is_taken() -> None:
    """The schema refuses nothing that the templates can do."""
    assert not refusal(EVERYTHING)


@pytest.mark.parametrize("path", PATHS)
def test_every_value_has_a_use(path: str) -> None:
    """One that no template reads misleads."""
    templates = "".join(file.read_text() for file in (CHART / "templates").iterdir())
    assert f".Values{path}" in templates


def test_every_value_is_explained() -> None:
    """In the comment above it, where whoever edits the file reads it; references are made from these."""
    root = yaml.compose(TEXT)
    assert isinstance(root, yaml.MappingNode)
    assert set(_unexplained(root, "")) == set()


def test_no_value_escapes_the_test_of_all() -> None:
    """EVERYTHING differs from the defaults wherever it could be overlooked."""
    assert set(EVERYTHING) - {"global"} == set(DEFAULTS) - {"watchNamespaces"}


def _unexplained(node: yaml.MappingNode, path: str) -> Iterator[str]:
    lines = TEXT.splitlines()
    for key, value in node.value:
        above = key.start_mark.line
        while above and lines[above - 1].lstrip().startswith("#"):
            above -= 1
        if any(line.lstrip().startswith("# -- ") for line in lines[above : key.start_mark.line]):
            continue
        if isinstance(value, yaml.MappingNode) and value.value:
            yield from _unexplained(value, f"{path}.{key.value}")
        else:
            yield f"{path}.{key.value}"
