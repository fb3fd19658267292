"""docs/reference/conditions.md: condition types and reasons, from their enums and the docstrings of the members."""

import ast
import inspect
from enum import StrEnum

from mlflow_operator.status.conditions import PLATFORM_CONDITIONS, ConditionType, Reason
from tests.reference.markdown import NOTICE, code, table

_INTRODUCTION = f"""\
# Conditions and reasons

{NOTICE}

`kubectl describe mlflowserver NAME` shows the conditions of a server, and `kubectl describe mlflowplatform NAME` those
of a platform. The operator publishes an Event for each change.
Scripts and alerts can rely on types and reasons; messages can change between versions.
[Troubleshooting](../operations/troubleshooting.md) explains what to do for each reason.
"""


def page() -> str:
    """Return the page."""
    return "\n".join(
        [
            _INTRODUCTION,
            "## MLflowServer\n",
            table(("Type", "Meaning"), _rows(ConditionType)),
            "## MLflowPlatform\n",
            table(("Type", "Meaning"), ((code(name), text) for name, text in PLATFORM_CONDITIONS.items())),
            "## Reasons\n",
            table(("Reason", "Meaning"), _rows(Reason)),
        ]
    )


def _rows(enum: type[StrEnum]) -> list[tuple[str, str]]:
    """Each member's value and docstring. Raises KeyError for a member without a docstring."""
    documented = docstrings(enum)
    return [(code(member.value), documented[member.name]) for member in enum]


def docstrings(enum: type[StrEnum]) -> dict[str, str]:
    """Return the string below each member of an enum, by the member's name."""
    tree = ast.parse(inspect.getsource(enum))
    definition = tree.body[0]
    assert isinstance(definition, ast.ClassDef)
    found = {}
    for statement, following in zip(definition.body, definition.body[1:], strict=False):
        match statement, following:
            case ast.Assign(targets=[ast.Name(id=name)]), ast.Expr(value=ast.Constant(value=str(text))):
                found[name] = inspect.cleandoc(text)
    return found
