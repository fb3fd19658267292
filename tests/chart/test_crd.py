"""The definition of MLflowServer in the chart: the models' own, and safe from an uninstall."""

import yaml

from mlflow_operator.api.crd import as_yaml, custom_resource_definition
from tests.chart.rendering import only, render
from tests.generate import CHART

KEEP = {"helm.sh/resource-policy": "keep"}


def test_the_chart_s_copy_is_what_the_models_say() -> None:
    """To the letter; `make generate` writes it."""
    assert (CHART / "files" / "crd.yaml").read_text() == as_yaml()


def test_helm_installs_it_unchanged_and_keeps_it() -> None:
    """Going through a template engine costs it nothing, and `helm uninstall` no server."""
    wanted = custom_resource_definition()
    wanted["metadata"]["annotations"] = KEEP
    # YAML and back: what is compared is what a reader of the text gets.
    assert only(render(), "CustomResourceDefinition") == yaml.safe_load(yaml.safe_dump(wanted))


def test_it_can_be_let_go() -> None:
    """crds.keep false: without the annotation Helm deletes it with the rest."""
    found = only(render({"crds": {"keep": False}}), "CustomResourceDefinition")
    assert found == yaml.safe_load(as_yaml())


def test_it_can_be_left_to_others() -> None:
    """crds.install false: as for whoever applies manifests/crd.yaml."""
    kinds = {obj["kind"] for obj in render({"crds": {"install": False}})}
    assert "CustomResourceDefinition" not in kinds


def test_it_is_no_part_of_helm_s_crds_folder() -> None:
    """What is there is installed once and never upgraded."""
    assert not (CHART / "crds").exists()
