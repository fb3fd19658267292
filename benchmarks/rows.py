"""The result of a figure: rows of the table, with all samples."""

import statistics
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any, Literal


@dataclass(frozen=True)
class Row:
    """One row. `ours`, `against` and `ratio` are printed as they are; `met` is None if there is no target."""

    figure: str
    ours: str
    against: str = ""
    ratio: str = ""
    wanted: str = ""
    met: bool | None = None
    samples: dict[str, list[float]] | None = None

    def as_json(self) -> dict[str, Any]:
        """For the file with the results."""
        return asdict(self)


def spread(samples: Sequence[float], unit: str) -> str:
    """The median, the minimum and the maximum: `12.3 s (12.1-12.9)`."""
    middle = f"{number(statistics.median(samples))} {unit}".rstrip()
    return middle if len(samples) < 2 else f"{middle} ({number(min(samples))}-{number(max(samples))})"


def number(value: float) -> str:
    """Three significant digits; integers as they are."""
    if value == int(value) or abs(value) >= 100:
        return f"{value:.0f}"
    return f"{value:.1f}" if abs(value) >= 10 else f"{value:.2f}"


def at_most(
    figure: str, ours: Sequence[float], against: Sequence[float], limit: float, *, unit: str = "s", what: str
) -> Row:
    """The median of ours may be at most `limit` times that of `what`."""
    return _compared(figure, ours, against, unit=unit, what=what, sign="<=", limit=limit)


def at_least(
    figure: str, ours: Sequence[float], against: Sequence[float], limit: float, *, unit: str, what: str
) -> Row:
    """The median of ours must be at least `limit` times that of `what`."""
    return _compared(figure, ours, against, unit=unit, what=what, sign=">=", limit=limit)


def below(figure: str, ours: Sequence[float], limit: float, unit: str) -> Row:
    """Every sample must stay below `limit`."""
    return Row(
        figure,
        spread(ours, unit),
        wanted=f"< {limit:g} {unit}".rstrip(),
        met=max(ours) < limit,
        samples={"ours": [*ours]},
    )


def none_of(figure: str, ours: Sequence[float]) -> Row:
    """The sum of all samples must be 0."""
    return Row(figure, number(sum(ours)), wanted="0", met=not any(ours), samples={"ours": [*ours]})


def at_least_one(figure: str, count: int) -> Row:
    """A control: it shows that what is counted elsewhere can be seen at all."""
    return Row(figure, str(count), wanted=">= 1", met=count >= 1, samples={"ours": [float(count)]})


def reported(figure: str, samples: Sequence[float], unit: str) -> Row:
    """A figure without a target."""
    return Row(figure, spread(samples, unit), samples={"ours": [*samples]})


def _compared(
    figure: str,
    ours: Sequence[float],
    against: Sequence[float],
    *,
    unit: str,
    what: str,
    sign: Literal["<=", ">="],
    limit: float,
) -> Row:
    ratio = statistics.median(ours) / statistics.median(against)
    return Row(
        figure,
        spread(ours, unit),
        f"{spread(against, unit)}, {what}",
        f"{ratio:.2f}",
        f"{sign} {limit:g}",
        ratio <= limit if sign == "<=" else ratio >= limit,
        {"ours": [*ours], "against": [*against]},
    )
