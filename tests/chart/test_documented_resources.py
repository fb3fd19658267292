"""The resources in the code blocks of the documentation are valid: every field exists, and every value is accepted."""

import re
from textwrap import dedent

import yaml

from mlflow_operator import api
from mlflow_operator.api import mlflowplatform
from mlflow_operator.kube.objects import Object
from tests.chart.kubeconform import TESTED_KUBERNETES, schema_errors
from tests.cluster.settings import ROOT

PAGES = [ROOT / "README.md", *sorted(ROOT.glob("docs/**/*.md")), *sorted(ROOT.glob("charts/*/README.md"))]


def documented_resources() -> list[Object]:
    """The complete resources of the operator in blocks of YAML and in commands."""
    found = []
    for page in PAGES:
        blocks = re.findall(
            r"^( *)```(?:yaml|sh)\n(.*?)^\1```", page.read_text(), flags=re.MULTILINE | re.DOTALL
        )
        text = "\n---\n".join(dedent(block) for _, block in blocks)
        documents = re.findall(
            r"^apiVersion: mlflow-operator\.dev/.*?(?=^---|^END|\Z)", text, flags=re.MULTILINE | re.DOTALL
        )
        found += [yaml.safe_load(document) for document in documents]
    return found


def test_documented_resources_are_valid() -> None:
    resources = documented_resources()
    assert {resource["kind"] for resource in resources} == {api.KIND, mlflowplatform.KIND}
    assert schema_errors(resources, TESTED_KUBERNETES) == []
    for resource in resources:
        if resource["kind"] == api.KIND:
            resource["metadata"].setdefault("namespace", "team-a")
            api.parse(resource)
        else:
            mlflowplatform.parse(resource)
