"""The result of a figure: rows of the table with all samples."""

import statistics
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any, Literal


@dataclass(frozen=True)
class Row:
    """A row of the table, with formatted values. `met` is None if there is no target."""

    figure: str
    operator: str
    baseline: str = ""
    ratio: str = ""
    target: str = ""
    met: bool | None = None
    samples: dict[str, list[float]] | None = None

    def as_json(self) -> dict[str, Any]:
        """Serialize for the file with the results."""
        return asdict(self)


def spread(samples: Sequence[float], unit: str) -> str:
    """Format the median, the minimum and the maximum: `12.3 s (12.1-12.9)`."""
    median = f"{format_number(statistics.median(samples))} {unit}".rstrip()
    return (
        median
        if len(samples) < 2
        else f"{median} ({format_number(min(samples))}-{format_number(max(samples))})"
    )


def format_number(value: float) -> str:
    """Format with three significant digits; integers without decimals."""
    if value == int(value) or abs(value) >= 100:
        return f"{value:.0f}"
    return f"{value:.1f}" if abs(value) >= 10 else f"{value:.2f}"


def ratio_at_most(
    figure: str,
    samples: Sequence[float],
    baseline: Sequence[float],
    limit: float,
    *,
    unit: str = "s",
    baseline_name: str,
) -> Row:
    """Row whose median must be at most `limit` times the baseline's median."""
    return _compared(
        figure, samples, baseline, unit=unit, baseline_name=baseline_name, sign="<=", limit=limit
    )


def ratio_at_least(
    figure: str,
    samples: Sequence[float],
    baseline: Sequence[float],
    limit: float,
    *,
    unit: str,
    baseline_name: str,
) -> Row:
    """Row whose median must be at least `limit` times the baseline's median."""
    return _compared(
        figure, samples, baseline, unit=unit, baseline_name=baseline_name, sign=">=", limit=limit
    )


def must_be_below(figure: str, samples: Sequence[float], limit: float, unit: str) -> Row:
    """Row whose samples must all be below `limit`."""
    return Row(
        figure,
        spread(samples, unit),
        target=f"< {limit:g} {unit}".rstrip(),
        met=max(samples) < limit,
        samples={"operator": [*samples]},
    )


def must_be_zero(figure: str, samples: Sequence[float]) -> Row:
    """Row whose samples must all be 0."""
    return Row(
        figure,
        format_number(sum(samples)),
        target="0",
        met=not any(samples),
        samples={"operator": [*samples]},
    )


def must_be_positive(figure: str, count: int) -> Row:
    """Row of a control: it shows that the measurement of another row detects events at all."""
    return Row(figure, str(count), target=">= 1", met=count >= 1, samples={"operator": [float(count)]})


def without_target(figure: str, samples: Sequence[float], unit: str) -> Row:
    """Row without a target."""
    return Row(figure, spread(samples, unit), samples={"operator": [*samples]})


def _compared(
    figure: str,
    samples: Sequence[float],
    baseline: Sequence[float],
    *,
    unit: str,
    baseline_name: str,
    sign: Literal["<=", ">="],
    limit: float,
) -> Row:
    ratio = statistics.median(samples) / statistics.median(baseline)
    return Row(
        figure,
        spread(samples, unit),
        f"{spread(baseline, unit)}, {baseline_name}",
        f"{ratio:.2f}",
        f"{sign} {limit:g}",
        ratio <= limit if sign == "<=" else ratio >= limit,
        {"operator": [*samples], "baseline": [*baseline]},
    )
