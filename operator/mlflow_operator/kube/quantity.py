"""Parse and compare Kubernetes quantities (`500m`, `2Gi`, `1e3`) exactly.

The API server stores quantities in canonical form (`0.5` becomes `500m`), so quantities must be compared by value,
never by text.
"""

from decimal import Decimal

from mlflow_operator.api.quantities import parse_quantity

MAX_CHARS = 40
"""Longer than any reasonable quantity. It bounds the cost of parsing untrusted text."""

_MAX_MAGNITUDE = 60
"""Powers of ten of the largest and the smallest quantity. A number with a million digits must not be computed."""


def parse(quantity: str | int | float) -> Decimal:
    """Return the value in base units (bytes, cores). Raises ValueError if the text is not a quantity."""
    text = str(quantity)
    value = parse_quantity(text) if len(text) <= MAX_CHARS else None
    if value is None or (value and abs(value.adjusted()) > _MAX_MAGNITUDE):
        raise ValueError(f"{text[:MAX_CHARS]!r} is not a valid quantity; write it like 500m, 2 or 10Gi")
    return value


def compare(left: str | int | float, right: str | int | float) -> int:
    """Return -1, 0 or 1 if `left` is less than, equal to or greater than `right`. Raises ValueError as `parse` does."""
    left_value, right_value = parse(left), parse(right)
    return (left_value > right_value) - (left_value < right_value)


def equal(left: object, right: object) -> bool:
    """Whether two values are the same quantity. A value that cannot be parsed equals only itself."""
    if not isinstance(left, str | int | float) or not isinstance(right, str | int | float):
        return left == right
    try:
        return compare(left, right) == 0
    except ValueError:
        return left == right
