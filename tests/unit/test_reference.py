"""The generated reference pages are complete. tests/chart checks that they are up to date."""

import pytest

from mlflow_operator.api.mlflowserver import Spec
from mlflow_operator.api.schema import structural_schema
from mlflow_operator.status.conditions import ConditionType, Reason
from tests.reference import api, conditions


def test_every_field_of_the_spec_has_an_example() -> None:
    """An object shows the examples of its fields instead."""
    page = api.page()
    entries = [
        entry
        for entry in api.fields(structural_schema(Spec))
        if entry.schema.get("type") != "object" and not api.has_fields(api.inner_schema(entry.schema))
    ]
    rows = {line.split("`")[1]: line for line in page.splitlines() if line.startswith("| `")}
    missing = [entry.path for entry in entries if rows[entry.path].rstrip(" |").endswith("|")]
    assert entries
    assert missing == []


@pytest.mark.parametrize("enum", [ConditionType, Reason])
def test_every_member_has_a_docstring(enum: type[ConditionType] | type[Reason]) -> None:
    assert conditions.docstrings(enum).keys() == enum.__members__.keys()
