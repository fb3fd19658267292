"""Quantities are compared by value, as the API server means them."""

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
def test_nonsense_is_refused_and_the_way_out_named(text: str) -> None:
    with pytest.raises(ValueError, match="write it like"):
        quantity.parse(text)


def test_kubernetes_spells_kilo_small_only() -> None:
    """`1K` is no quantity to the API server, though every other decimal suffix above is a capital."""
    assert quantity.parse("1k") == 1000


@given(st.integers(min_value=0, max_value=10**12))
def test_the_same_value_in_other_words_is_equal(thousandths: int) -> None:
    assert quantity.compare(f"{thousandths}m", str(Decimal(thousandths) / 1000)) == 0


@given(st.integers(0, 10**6), st.integers(0, 10**6))
def test_order_is_that_of_the_values(one: int, other: int) -> None:
    assert quantity.compare(f"{one}Ki", str(other * 1024)) == (one > other) - (one < other)


def test_what_is_no_quantity_equals_only_itself() -> None:
    assert quantity.equal("many", "many")
    assert not quantity.equal("many", "1")
    assert not quantity.equal("1", None)
