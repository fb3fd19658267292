"""Quantities are parsed and compared by value, like in the API server."""

from decimal import Decimal

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mlflow_operator.kube import quantity


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("0.5", "0.5"),
        ("500m", "0.5"),
        ("2", "2"),
        (2, "2"),
        (0.25, "0.25"),
        ("1Ki", "1024"),
        ("10Gi", str(10 * 1024**3)),
        ("1G", "1000000000"),
        ("1k", "1000"),
        ("1e3", "1000"),
        ("1E3", "1000"),
        ("1E", "1000000000000000000"),
        ("100n", "0.0000001"),
        (".5Gi", str(512 * 1024**2)),
        ("+1.", "1"),
        ("-1", "-1"),
    ],
)
def test_value_is_exact(text: str | float, value: str) -> None:
    assert quantity.parse(text) == Decimal(value)


@pytest.mark.parametrize(
    "text",
    [
        "",
        "Gi",
        "1 Gi",
        "1gi",
        "1K",
        "ten",
        "1e",
        "1.2.3",
        "0x10",
        "1e999999999",
        "9" * 1000,
        "\u0661",
        "1Gi\n",
    ],
)
def test_invalid_quantity_raises_with_examples(text: str) -> None:
    with pytest.raises(ValueError, match="write it like"):
        quantity.parse(text)


def test_kilo_suffix_is_lowercase_only() -> None:
    """The API server rejects `1K`, although all larger decimal suffixes are uppercase."""
    assert quantity.parse("1k") == 1000


@given(st.integers(min_value=0, max_value=10**12))
def test_different_notations_of_a_value_are_equal(thousandths: int) -> None:
    assert quantity.compare(f"{thousandths}m", str(Decimal(thousandths) / 1000)) == 0


@given(st.integers(0, 10**6), st.integers(0, 10**6))
def test_comparison_is_by_value(left: int, right: int) -> None:
    assert quantity.compare(f"{left}Ki", str(right * 1024)) == (left > right) - (left < right)


def test_invalid_quantity_equals_only_itself() -> None:
    assert quantity.equal("many", "many")
    assert not quantity.equal("many", "1")
    assert not quantity.equal("1", None)
