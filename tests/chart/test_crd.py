"""The CRD in the chart of the operator."""

import yaml

from mlflow_operator.api.crd import as_yaml, custom_resource_definition
from tests.chart.rendering import get_object, render
from tests.generate import CHART

KEEP_ANNOTATION = {"helm.sh/resource-policy": "keep"}


def test_crd_file_of_the_chart_is_up_to_date() -> None:
    """`make generate` writes the file."""
    assert (CHART / "files" / "crd.yaml").read_text() == as_yaml()


def test_helm_renders_the_crd_unchanged_with_keep_annotation() -> None:
    """The annotation prevents that `helm uninstall` deletes the CRD and all servers."""
    expected = custom_resource_definition()
    expected["metadata"]["annotations"] = KEEP_ANNOTATION
    # A YAML round trip, because the rendered CRD is parsed from YAML, too.
    assert get_object(render(), "CustomResourceDefinition") == yaml.safe_load(yaml.safe_dump(expected))


def test_crds_keep_false_omits_the_annotation() -> None:
    """Without the annotation, `helm uninstall` deletes the CRD."""
    crd = get_object(render({"crds": {"keep": False}}), "CustomResourceDefinition")
    assert crd == yaml.safe_load(as_yaml())


def test_crds_enabled_false_omits_the_crd() -> None:
    """For users who apply manifests/crd.yaml themselves."""
    kinds = {obj["kind"] for obj in render({"crds": {"enabled": False}})}
    assert "CustomResourceDefinition" not in kinds


def test_chart_has_no_crds_directory() -> None:
    """Helm installs CRDs in crds/ once and never upgrades them."""
    assert not (CHART / "crds").exists()
