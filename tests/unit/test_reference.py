"""The generated reference pages are complete. tests/chart checks that they are up to date."""

import re

import pytest
from pydantic import BaseModel

from mlflow_operator.api import mlflowplatform
from mlflow_operator.api.mlflowserver import Spec
from mlflow_operator.api.schema import structural_schema
from mlflow_operator.api.status import Status
from mlflow_operator.status.conditions import ConditionType, Reason
from tests.reference import api, conditions


def rows(section: str, page: str | None = None) -> dict[str, list[str]]:
    """The cells of each row of the tables in a section of a page, by the path of the field."""
    text = (page or api.server_page()).split(f"\n## {section}\n", 1)[1].split("\n## ", 1)[0]
    cells = [re.split(r"(?<!\\)\|", line)[1:-1] for line in text.splitlines() if line.startswith("| `")]
    return {row[0].split("`")[1]: [cell.strip() for cell in row] for row in cells}


@pytest.mark.parametrize(
    ("section", "model", "page"),
    [
        ("spec", Spec, api.server_page()),
        ("status", Status, api.server_page()),
        ("spec", mlflowplatform.Spec, api.platform_page()),
        ("status", mlflowplatform.Status, api.platform_page()),
    ],
    ids=["server spec", "server status", "platform spec", "platform status"],
)
def test_every_field_has_an_example(section: str, model: type[BaseModel], page: str) -> None:
    """An object shows the examples of its fields instead, unless the schema does not know its fields."""
    entries = [
        entry
        for entry in api.fields(structural_schema(model))
        if not api.has_fields(api.inner_schema(entry.schema))
    ]
    documented = rows(section, page)
    assert entries
    assert [entry.path for entry in entries if not documented[entry.path][-1]] == []


def test_examples_include_fields_that_are_copied_to_the_pod() -> None:
    opaque = {
        entry.path
        for entry in api.fields(structural_schema(Spec))
        if entry.schema.get("x-kubernetes-preserve-unknown-fields")
    }
    prefix = "podTemplate.spec"
    assert opaque >= {f"{prefix}.affinity", f"{prefix}.topologySpreadConstraints[].labelSelector"}
    assert all(rows("spec")[path][-1] for path in opaque)


def test_every_default_is_in_its_column() -> None:
    """The description does not repeat it."""
    documented = rows("spec")
    with_default = [
        entry.path
        for entry in api.fields(structural_schema(Spec))
        if entry.path in documented
        and ("default" in entry.schema or "Defaults to" in entry.schema.get("description", ""))
    ]
    assert len(with_default) > 50
    assert [path for path in with_default if not documented[path][2]] == []
    assert [path for path, row in documented.items() if "Defaults to" in row[3]] == []


@pytest.mark.parametrize("enum", [ConditionType, Reason])
def test_every_member_has_a_docstring(enum: type[ConditionType] | type[Reason]) -> None:
    assert conditions.docstrings(enum).keys() == enum.__members__.keys()
