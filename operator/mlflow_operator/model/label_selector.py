"""Evaluation of label selectors."""

from collections.abc import Mapping
from dataclasses import dataclass

from mlflow_operator.api.label_selector import LabelSelector, SelectorOperator


@dataclass(frozen=True)
class Selector:
    """Label selector. Every requirement must be met: a key, an operator and values."""

    requirements: tuple[tuple[str, SelectorOperator, frozenset[str]], ...]

    def selects(self, labels: Mapping[str, str]) -> bool:
        """Whether an object with these labels is selected."""
        return all(_is_met(labels, *requirement) for requirement in self.requirements)


def resolve(spec: LabelSelector) -> Selector:
    """Return the selector that `spec` describes."""
    return Selector(
        (
            *((key, SelectorOperator.IN, frozenset({value})) for key, value in spec.match_labels.items()),
            *(
                (requirement.key, requirement.operator, frozenset(requirement.values))
                for requirement in spec.match_expressions
            ),
        )
    )


def _is_met(labels: Mapping[str, str], key: str, operator: SelectorOperator, values: frozenset[str]) -> bool:
    match operator:
        case SelectorOperator.IN:
            return labels.get(key) in values
        case SelectorOperator.NOT_IN:
            return labels.get(key) not in values
        case SelectorOperator.EXISTS:
            return key in labels
        case SelectorOperator.DOES_NOT_EXIST:
            return key not in labels
