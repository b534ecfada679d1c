"""Rounded rows add up to their rounded total, and shares to 100 %."""

from hypothesis import given
from hypothesis import strategies as st

from billing.credits import display, dollars
from billing.reports.apportionment import (
    HUNDREDTH,
    apportion,
    displayed,
    displayed_dollars,
    percents,
    rounded,
)

AMOUNTS = st.lists(st.integers(-(10**12), 10**12), max_size=30)


@given(AMOUNTS)
def test_rows_add_up_to_the_displayed_total(amounts):
    parts = apportion(amounts, rounded(sum(amounts), HUNDREDTH), HUNDREDTH)

    assert sum(parts) == rounded(sum(amounts), HUNDREDTH)
    assert all(
        abs(part * HUNDREDTH - amount) < HUNDREDTH
        for part, amount in zip(parts, amounts, strict=True)
    )


@given(st.integers(-(10**14), 10**14) | st.integers(-20_000, 20_000))
def test_a_single_row_is_displayed_like_the_total(micro):
    assert displayed([micro]) == [display(micro)]
    assert displayed_dollars([micro]) == [dollars(micro)]


@given(AMOUNTS)
def test_shares_add_up_to_100(amounts):
    assert sum(percents(amounts)) == (100 if any(amount > 0 for amount in amounts) else 0)


def test_three_thirds():
    third = 333_333
    assert displayed([third, third, third + 1]) == ["0.33", "0.33", "0.34"]
    assert percents([1, 1, 1]) == [34, 33, 33]


def test_an_amount_that_is_not_zero_is_not_displayed_as_zero():
    assert displayed([4_000, 0, 5_996_000]) == ["<0.01", "0.00", "6.00"]
