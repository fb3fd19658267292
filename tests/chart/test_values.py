"""Values of the operator's chart: documented, used, and validated by a schema."""

from collections.abc import Iterator
from typing import Any

import pytest
import yaml

from tests.chart.rendering import ALL_VALUES, render_error
from tests.generate import CHART

TEXT = (CHART / "values.yaml").read_text()
DEFAULTS = yaml.safe_load(TEXT)


MAPS = {"resources", "podLabels", "podAnnotations"}
"""Values that templates use as a whole, even if the default is not empty."""


def value_paths(values: dict[str, Any], path: str = "") -> Iterator[str]:
    """Paths of all values. Maps that templates use as a whole count as one value."""
    for key, value in values.items():
        if isinstance(value, dict) and value and key not in MAPS:
            yield from value_paths(value, f"{path}.{key}")
        else:
            yield f"{path}.{key}"


PATHS = list(value_paths(DEFAULTS))


@pytest.mark.parametrize(
    ("values", "field", "message"),
    [
        ({"replica": 2}, "replica", "not allowed"),
        ({"image": {"tags": "1"}}, "/image", "tags"),
        ({"metrics": {"service": {"enable": True}}}, "/metrics/service", "enable"),
        ({"crds": {"keep": "no"}}, "/crds/keep", "want boolean"),
        ({"crds": None, "replicaCount": "two"}, "/replicaCount", "want integer"),
        ({"replicaCount": -1}, "/replicaCount", "minimum"),
        ({"replicaCount": 1.5}, "/replicaCount", "want integer"),
        ({"image": {"tag": 1.0}}, "/image/tag", "want string"),
        ({"image": {"repository": ""}}, "/image/repository", ""),
        ({"image": {"pullPolicy": "always"}}, "/image/pullPolicy", "IfNotPresent"),
        ({"imagePullSecrets": ["login"]}, "/imagePullSecrets/0", "want object"),
        ({"watchNamespaces": "team-a"}, "/watchNamespaces", "want array"),
        ({"watchNamespaces": ["team-*"]}, "/watchNamespaces/0", "pattern"),
        ({"watchNamespaces": ["a", "a"]}, "/watchNamespaces", "equal"),
        ({"adminSecrets": {"platform": ["admin"]}}, "adminSecrets", "not allowed"),
        ({"platformSecrets": {"platform": "admin"}}, "/platformSecrets/platform", "want array"),
        ({"platformSecrets": {"platform": []}}, "/platformSecrets/platform", "minItems"),
        ({"images": {"mlflow": "example.com/mlflow:v3.17.2"}}, "/images/mlflow", "pattern"),
        ({"images": {"mlflowDigests": {"3.17.2": "sha256:1"}}}, "/images/mlflowDigests/3.17.2", "pattern"),
        ({"images": {"mlflowDigests": {"latest": "sha256:" + "0" * 64}}}, "latest", "pattern"),
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
def test_invalid_value_is_rejected(values: dict[str, Any], field: str, message: str) -> None:
    """Helm validates values before it sends anything to the cluster. The message names the field and the rule."""
    error = render_error(values)
    assert field in error
    assert message in error


def test_valid_values_are_accepted() -> None:
    """The schema accepts every value that the templates support."""
    assert not render_error(ALL_VALUES)


@pytest.mark.parametrize("path", PATHS)
def test_every_value_is_used_by_a_template(path: str) -> None:
    """A value without effect misleads users."""
    templates = "".join(file.read_text() for file in (CHART / "templates").iterdir())
    assert f".Values{path}" in templates


def test_every_value_is_documented() -> None:
    """In a comment above the value, from which helm-docs generates the README."""
    root = yaml.compose(TEXT)
    assert isinstance(root, yaml.MappingNode)
    assert set(_undocumented(root, "")) == set()


def test_all_values_contains_every_value() -> None:
    """ALL_VALUES contains a value for every key except watchNamespaces."""
    assert set(ALL_VALUES) - {"global"} == set(DEFAULTS) - {"watchNamespaces"}


def _undocumented(node: yaml.MappingNode, path: str) -> Iterator[str]:
    lines = TEXT.splitlines()
    for key, value in node.value:
        first = key.start_mark.line
        while first and lines[first - 1].lstrip().startswith("#"):
            first -= 1
        if any(line.lstrip().startswith("# -- ") for line in lines[first : key.start_mark.line]):
            continue
        if isinstance(value, yaml.MappingNode) and value.value:
            yield from _undocumented(value, f"{path}.{key.value}")
        else:
            yield f"{path}.{key.value}"
