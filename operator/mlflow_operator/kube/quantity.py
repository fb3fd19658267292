"""Kubernetes quantities (`500m`, `2Gi`, `1e3`), parsed exactly.

The API server rewrites what it is given into a canonical form (`0.5` comes back as `500m`), so two
quantities are compared by value, never by text.
"""

import re
from decimal import Decimal

_SHAPE = re.compile(r"([+-]?(?:[0-9]+(?:\.[0-9]*)?|\.[0-9]+))(?:([KMGTPE]i|[numkMGTPE])|[eE]([+-]?[0-9]+))?")

_SUFFIXES = {
    "": Decimal(1),
    **{
        suffix: Decimal(10) ** power
        for suffix, power in zip("numkMGTPE", (-9, -6, -3, 3, 6, 9, 12, 15, 18), strict=True)
    },
    **{f"{suffix}i": Decimal(1024) ** power for power, suffix in enumerate("KMGTPE", start=1)},
}

MAX_CHARS = 40
"""Characters; more than any sensible quantity, and it bounds what a stranger's text may cost to parse."""


def parse(quantity: str | int | float) -> Decimal:
    """The value in base units (bytes, cores). ValueError: no quantity."""
    text = str(quantity)
    shape = _SHAPE.fullmatch(text) if len(text) <= MAX_CHARS else None
    if shape is None:
        raise ValueError(f"{text[:MAX_CHARS]!r} is no quantity; write it like 500m, 2 or 10Gi")
    number, suffix, exponent = shape.groups()
    if exponent is not None:
        # The API server itself allows no more; an exponent of a million digits must not be computed.
        if abs(int(exponent)) > 30:
            raise ValueError(f"{text!r} is no sensible quantity; write it like 500m, 2 or 10Gi")
        return Decimal(number).scaleb(int(exponent))
    return Decimal(number) * _SUFFIXES[suffix or ""]


def compare(one: str | int | float, other: str | int | float) -> int:
    """-1, 0 or 1: `one` is smaller than, equal to or larger than `other`. ValueError: no quantities."""
    left, right = parse(one), parse(other)
    return (left > right) - (left < right)


def equal(one: object, other: object) -> bool:
    """Whether two values say the same quantity; what can't be parsed equals only itself."""
    if not isinstance(one, str | int | float) or not isinstance(other, str | int | float):
        return one == other
    try:
        return compare(one, other) == 0
    except ValueError:
        return one == other
