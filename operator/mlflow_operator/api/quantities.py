"""Amounts of storage, CPU and memory, in Kubernetes' notation."""

import re
from decimal import Decimal
from typing import Annotated

from pydantic import Field, WithJsonSchema

from mlflow_operator.api.model import Model
from mlflow_operator.api.rules import Rule, text

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
    text(
        "isQuantity(self) && !quantity(self).isLessThan(quantity('1Mi'))",
        NO_SIZE,
        lambda size: is_quantity(size) and amount(size) >= 1024**2,
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


def _within_limit(name: str) -> Rule:
    wanted, limit = f"string(self.requests['{name}'])", f"string(self.limits['{name}'])"
    return Rule(
        "!has(self.requests) || !has(self.limits) || "
        f"!('{name}' in self.requests) || !('{name}' in self.limits) || "
        f"!isQuantity({wanted}) || !isQuantity({limit}) || "
        f"quantity({wanted}).compareTo(quantity({limit})) <= 0",
        f"requests.{name} is above limits.{name}, and no pod can be made so: lower the one or raise the other",
        field=".requests",
        holds=lambda it: (
            not {name} <= it.requests.keys() & it.limits.keys()
            or amount(it.requests[name]) <= amount(it.limits[name])
        ),
    )


class Resources(Model):
    """What containers ask for and may take."""

    requests: ResourceList = Field(default_factory=dict)
    """What the scheduler sets aside: `cpu`, `memory`, `ephemeral-storage`."""
    limits: ResourceList = Field(default_factory=dict)
    """What a container may take at most. A container over its memory limit is killed."""

    # One name at a time: going over all of them costs more than Kubernetes 1.30 lets a rule cost.
    rules = (_within_limit("cpu"), _within_limit("memory"), _within_limit("ephemeral-storage"))
