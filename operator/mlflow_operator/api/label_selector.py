"""Label selectors of Kubernetes, with the validation of Kubernetes."""

import re
from enum import StrEnum
from typing import Annotated

from pydantic import Field

from mlflow_operator.api.markers import ListAtomic
from mlflow_operator.api.model import Model
from mlflow_operator.api.rules import Rule, cel_string, matches
from mlflow_operator.api.string_types import LabelKey, LabelValue

_NAME_PATTERN = r"[A-Za-z0-9]([A-Za-z0-9_.-]{0,61}[A-Za-z0-9])?"
_DOMAIN_PATTERN = r"[a-z0-9]([a-z0-9-]*[a-z0-9])?(\.[a-z0-9]([a-z0-9-]*[a-z0-9])?)*"
_KEY_PATTERN = f"({_DOMAIN_PATTERN}/)?{_NAME_PATTERN}"
_VALUE_PATTERN = f"({_NAME_PATTERN})?"

_INVALID_KEY = (
    "is not a valid label key: use letters, digits, '-', '_' and '.', at most 63 characters, optionally after a DNS "
    "name and '/', such as example.com/team"
)
_INVALID_VALUE = (
    "is not a valid label value: use at most 63 letters, digits, '-', '_' and '.', and begin and end with a letter or "
    "digit"
)

SelectorKey = Annotated[LabelKey, matches(_KEY_PATTERN, _INVALID_KEY)]
SelectorValue = Annotated[LabelValue, matches(_VALUE_PATTERN, _INVALID_VALUE)]


def _is_label(key: str, value: str) -> bool:
    return bool(re.fullmatch(_KEY_PATTERN, key) and re.fullmatch(_VALUE_PATTERN, value))


class SelectorOperator(StrEnum):
    """How an expression compares a label with values."""

    IN = "In"
    NOT_IN = "NotIn"
    EXISTS = "Exists"
    DOES_NOT_EXIST = "DoesNotExist"


_WITH_VALUES = frozenset({SelectorOperator.IN, SelectorOperator.NOT_IN})


class LabelSelectorRequirement(Model):
    """Requirement for one label."""

    key: Annotated[SelectorKey, Field(examples=["example.com/team"])]
    """Key of the label."""
    operator: SelectorOperator
    """How the label is compared. In: its value is one of `values`. NotIn: it is not set, or its value is none of
    `values`. Exists: it is set. DoesNotExist: it is not set.
    """
    values: Annotated[
        tuple[SelectorValue, ...], Field(max_length=64, examples=[["research", "vision"]]), ListAtomic()
    ] = ()
    """Values that In and NotIn compare with. Must not be set with Exists and DoesNotExist."""

    rules = (
        Rule(
            "(self.operator in ['In', 'NotIn']) == (has(self.values) && self.values.size() > 0)",
            "values are required by operator In and NotIn, and not allowed with Exists and DoesNotExist: add values, "
            "or remove them, or use another operator",
            field=".operator",
            holds=lambda requirement: (requirement.operator in _WITH_VALUES) == bool(requirement.values),
        ),
    )


class LabelSelector(Model):
    """Label selector. All requirements must be met. `{}` selects everything."""

    match_labels: Annotated[
        dict[LabelKey, LabelValue],
        Field(max_length=16, examples=[{"example.com/tracking": "true"}]),
        Rule(
            f"self.all(key, key.matches({cel_string(f'^(?:{_KEY_PATTERN})$')}) && "
            f"self[key].matches({cel_string(f'^(?:{_VALUE_PATTERN})$')}))",
            "must contain valid labels only: use at most 63 letters, digits, '-', '_' and '.', and optionally a DNS "
            "name and '/' before a key, such as example.com/team: research",
            holds=lambda labels: all(_is_label(key, value) for key, value in labels.items()),
        ),
    ] = Field(default_factory=dict)
    """Labels that must be set to these values."""
    match_expressions: Annotated[
        tuple[LabelSelectorRequirement, ...], Field(max_length=16), ListAtomic()
    ] = ()
    """Further requirements for labels."""
