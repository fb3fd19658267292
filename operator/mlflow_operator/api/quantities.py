"""Amounts of storage, CPU and memory, in Kubernetes' notation."""

import re
from decimal import Decimal
from typing import Annotated

from pydantic import Field, WithJsonSchema

from mlflow_operator.api.model import Model
from mlflow_operator.api.rules import Rule

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


def amount(quantity: str | int) -> Decimal:
    """Return a quantity as a number of its base unit (bytes, cores); ValueError if it is none."""
    found = _PATTERN.fullmatch(str(quantity))
    if found is None:
        raise ValueError(f"{quantity!r} is no quantity")
    number, unit = found.group(1), found.group(2) or ""
    if unit in _UNITS:
        return Decimal(number) * _UNITS[unit]
    return Decimal(f"{number}{unit}")


def is_quantity(text: str | int) -> bool:
    """Tell whether the API server would read `text` as a quantity."""
    return _PATTERN.fullmatch(str(text)) is not None


NO_SIZE = "is no size for a volume: write a quantity of at least 1Mi, such as 10Gi"

StorageSize = Annotated[
    str,
    Field(max_length=32),
    Rule(
        "isQuantity(self) && !quantity(self).isLessThan(quantity('1Mi'))",
        NO_SIZE,
        message_expression=f'"\'" + self + "\' {NO_SIZE}"',
        holds=lambda size: is_quantity(size) and amount(size) >= 1024**2,
    ),
]

NO_AMOUNT = "holds a value that is no quantity: write CPU as 500m or 2 and memory as 512Mi or 2Gi"

Amount = Annotated[
    str | int,
    WithJsonSchema({"x-kubernetes-int-or-string": True, "maxLength": 32, "description": "A quantity."}),
]

ResourceList = Annotated[
    dict[Annotated[str, Field(max_length=63)], Amount],
    Field(max_length=8),
    Rule(
        "self.all(name, type(self[name]) == int ? self[name] >= 0 : "
        "(isQuantity(self[name]) && quantity(self[name]).asApproximateFloat() >= 0.0))",
        NO_AMOUNT,
        holds=lambda amounts: all(is_quantity(a) and amount(a) >= 0 for a in amounts.values()),
    ),
]


class Resources(Model):
    """What containers ask for and may take."""

    requests: ResourceList = Field(default_factory=dict)
    """What the scheduler sets aside: `cpu`, `memory`, `ephemeral-storage`."""
    limits: ResourceList = Field(default_factory=dict)
    """What a container may take at most. A container over its memory limit is killed."""

    rules = (
        Rule(
            "!has(self.requests) || !has(self.limits) || self.requests.all(name, !(name in self.limits) || "
            "!isQuantity(string(self.requests[name])) || !isQuantity(string(self.limits[name])) || "
            "quantity(string(self.requests[name])).compareTo(quantity(string(self.limits[name]))) <= 0)",
            "requests are above limits: no pod can be made so; lower requests or raise limits",
            holds=lambda it: all(
                amount(wanted) <= amount(it.limits[name])
                for name, wanted in it.requests.items()
                if name in it.limits
            ),
        ),
    )
