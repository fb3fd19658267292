"""Parse and compare Kubernetes quantities (`500m`, `2Gi`, `1e3`) exactly.

The API server stores quantities in canonical form (`0.5` becomes `500m`), so quantities must be compared by value,
never by text.
"""

import re
from decimal import Decimal

_PATTERN = re.compile(
    r"([+-]?(?:[0-9]+(?:\.[0-9]*)?|\.[0-9]+))(?:([KMGTPE]i|[numkMGTPE])|[eE]([+-]?[0-9]+))?"
)

_SUFFIXES = {
    "": Decimal(1),
    **{
        suffix: Decimal(10) ** power
        for suffix, power in zip("numkMGTPE", (-9, -6, -3, 3, 6, 9, 12, 15, 18), strict=True)
    },
    **{f"{suffix}i": Decimal(1024) ** power for power, suffix in enumerate("KMGTPE", start=1)},
}

MAX_CHARS = 40
"""Longer than any reasonable quantity. It bounds the cost of parsing untrusted text."""


def parse(quantity: str | int | float) -> Decimal:
    """Return the value in base units (bytes, cores). Raises ValueError if the text is not a quantity."""
    text = str(quantity)
    match = _PATTERN.fullmatch(text) if len(text) <= MAX_CHARS else None
    if match is None:
        raise ValueError(f"{text[:MAX_CHARS]!r} is not a quantity; write it like 500m, 2 or 10Gi")
    number, suffix, exponent = match.groups()
    if exponent is not None:
        # The limit of the API server. An exponent with a million digits must not be computed.
        if abs(int(exponent)) > 30:
            raise ValueError(f"{text!r} is not a valid quantity; write it like 500m, 2 or 10Gi")
        return Decimal(number).scaleb(int(exponent))
    return Decimal(number) * _SUFFIXES[suffix or ""]


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
