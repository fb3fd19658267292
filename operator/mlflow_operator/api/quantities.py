"""Kubernetes quantities: amounts of storage, CPU and memory."""

import re
from decimal import Decimal, InvalidOperation
from typing import Annotated

from pydantic import Field, WithJsonSchema

from mlflow_operator.api.model import Model
from mlflow_operator.api.rules import Rule, string_rule

_PATTERN = re.compile(
    r"([+-]?(?:[0-9]+(?:\.[0-9]*)?|\.[0-9]+))((?:[KMGTPE]i)|[numkMGTPE]|(?:[eE][+-]?[0-9]+))?"
)
_UNITS = {
    "": Decimal(1),
    "n": Decimal("1e-9"),
    "u": Decimal("1e-6"),
    "m": Decimal("1e-3"),
    **{unit: Decimal(1000) ** (power + 1) for power, unit in enumerate("kMGTPE")},
    **{f"{unit}i": Decimal(1024) ** (power + 1) for power, unit in enumerate("KMGTPE")},
}


def parse_quantity(quantity: str | int) -> Decimal:
    """Return a quantity in its base unit (bytes or cores). Raises ValueError if it is not a valid quantity."""
    match = _PATTERN.fullmatch(str(quantity))
    number, unit = (match.group(1), match.group(2) or "") if match else ("", "")
    try:
        return Decimal(number) * _UNITS[unit] if unit in _UNITS else Decimal(f"{number}{unit}")
    except InvalidOperation:
        # No number, or an exponent that no computer can hold.
        raise ValueError(f"{quantity!r} is not a valid quantity; write it like 500m, 2 or 10Gi") from None


def is_quantity(text: str | int) -> bool:
    """Return whether `text` is a quantity that can be computed."""
    try:
        parse_quantity(text)
    except ValueError:
        return False
    return True


INVALID_SIZE = "is not a valid volume size: use a quantity of at least 1Mi, such as 10Gi"

StorageSize = Annotated[
    str,
    Field(max_length=32),
    string_rule(
        "isQuantity(self) && !quantity(self).isLessThan(quantity('1Mi'))",
        INVALID_SIZE,
        lambda size: is_quantity(size) and parse_quantity(size) >= 1024**2,
    ),
]

INVALID_QUANTITY = "must contain valid quantities only: write CPU as 500m or 2, and memory as 512Mi or 2Gi"

Quantity = Annotated[
    str | int,
    WithJsonSchema({"x-kubernetes-int-or-string": True, "maxLength": 32, "description": "Quantity."}),
]

ResourceList = Annotated[
    dict[Annotated[str, Field(max_length=63)], Quantity],
    Field(max_length=8),
    Rule(
        "self.all(name, type(self[name]) == int ? self[name] >= 0 : "
        "(isQuantity(self[name]) && quantity(self[name]).asApproximateFloat() >= 0.0))",
        INVALID_QUANTITY,
        holds=lambda quantities: all(
            is_quantity(quantity) and parse_quantity(quantity) >= 0 for quantity in quantities.values()
        ),
    ),
]


def _request_within_limit(name: str) -> Rule:
    request, limit = f"string(self.requests['{name}'])", f"string(self.limits['{name}'])"
    return Rule(
        "!has(self.requests) || !has(self.limits) || "
        f"!('{name}' in self.requests) || !('{name}' in self.limits) || "
        f"!isQuantity({request}) || !isQuantity({limit}) || "
        f"quantity({request}).compareTo(quantity({limit})) <= 0",
        f"requests.{name} must not exceed limits.{name}: lower requests.{name} or raise limits.{name}",
        field=".requests",
        holds=lambda resources: (
            not {name} <= resources.requests.keys() & resources.limits.keys()
            or parse_quantity(resources.requests[name]) <= parse_quantity(resources.limits[name])
        ),
    )


class Resources(Model):
    """Compute resources of a container."""

    requests: ResourceList = Field(default_factory=dict)
    """Minimum amounts that the scheduler reserves: `cpu`, `memory`, `ephemeral-storage`."""
    limits: ResourceList = Field(default_factory=dict)
    """Maximum amounts that the container may use. A container that exceeds its memory limit is killed."""

    # One rule for each name: a loop over all names exceeds the cost limit of Kubernetes 1.30 for a rule.
    rules = (
        _request_within_limit("cpu"),
        _request_within_limit("memory"),
        _request_within_limit("ephemeral-storage"),
    )
