"""The CRDs in the chart of the operator."""

import yaml

from mlflow_operator.api.crd import CUSTOM_RESOURCES, as_yaml, custom_resource_definition
from mlflow_operator.kube.objects import Object
from tests.chart.rendering import Values, render
from tests.generate import CHART

KEEP_ANNOTATION = {"helm.sh/resource-policy": "keep"}


def test_crd_file_of_the_chart_is_up_to_date() -> None:
    """`make generate` writes the file."""
    assert (CHART / "files" / "crd.yaml").read_text() == as_yaml()


def rendered_crds(values: Values | None = None) -> list[Object]:
    """The CRDs that Helm renders."""
    return [obj for obj in render(values) if obj["kind"] == "CustomResourceDefinition"]


def test_helm_renders_the_crds_unchanged_with_keep_annotation() -> None:
    """The annotation prevents that `helm uninstall` deletes the CRDs and all servers."""
    expected = [*map(custom_resource_definition, CUSTOM_RESOURCES)]
    for crd in expected:
        crd["metadata"]["annotations"] = KEEP_ANNOTATION
    # A YAML round trip, because the rendered CRDs are parsed from YAML, too.
    assert rendered_crds() == yaml.safe_load(yaml.safe_dump(expected))


def test_crds_keep_false_omits_the_annotation() -> None:
    """Without the annotation, `helm uninstall` deletes the CRDs."""
    assert rendered_crds({"crds": {"keep": False}}) == [*yaml.safe_load_all(as_yaml())]


def test_crds_enabled_false_omits_the_crd() -> None:
    """For users who apply manifests/crd.yaml themselves."""
    kinds = {obj["kind"] for obj in render({"crds": {"enabled": False}})}
    assert "CustomResourceDefinition" not in kinds


def test_chart_has_no_crds_directory() -> None:
    """Helm installs CRDs in crds/ once and never upgrades them."""
    assert not (CHART / "crds").exists()
