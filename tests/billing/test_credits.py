"""Dollars are converted to credits exactly, and credits are never displayed misleadingly."""

from decimal import Decimal

import pytest
from hypothesis import given
from hypothesis import strategies as st

from billing.credits import (
    MAXIMUM_MICRO,
    InvalidCost,
    credits_micro,
    display,
    display_share,
    dollars,
    exact,
    exact_cost,
    exact_dollars,
    exact_sum,
    parse_credits,
    provider_dollars,
)
from quota.resources import AI_CREDITS, POSTHOG_CODE_CREDITS


@pytest.mark.case("C1", "C3")
@pytest.mark.parametrize(
    ("cost", "resource", "micro"),
    [
        ("0.10", AI_CREDITS, 12_000_000),
        ("0.10", POSTHOG_CODE_CREDITS, 10_000_000),
        ("0", AI_CREDITS, 0),
        ("0.00000000000001", AI_CREDITS, 0),
        # Halves are rounded to even: 0.5, 1.5 and 2.5 micro-credits.
        ("0.000000005", POSTHOG_CODE_CREDITS, 0),
        ("0.000000015", POSTHOG_CODE_CREDITS, 2),
        ("0.000000025", POSTHOG_CODE_CREDITS, 2),
        ("-0.10", AI_CREDITS, -12_000_000),
        ("999999.999999999999999999", AI_CREDITS, 120_000_000_000_000),
    ],
)
def test_a_cost_becomes_credits_rounded_once_half_to_even(cost, resource, micro):
    assert credits_micro(Decimal(cost), resource) == micro


@pytest.mark.parametrize(
    "written",
    ["0.10", "1E-7", "1.2e-3", "0E-8", "00.5", "12", "1000000", "1e-40", Decimal("0.1"), 3],
)
def test_a_cost_is_read_exactly_as_written(written):
    assert exact_cost(written) == Decimal(written)


@pytest.mark.case("C2")
@pytest.mark.parametrize(
    "written",
    [
        "",
        " 1",
        "1 ",
        "1,0",
        "1_0",
        ".5",
        "5.",
        "0x10",
        "NaN",
        "Infinity",
        "-Infinity",
        "sNaN",
        "1e999999",
        "1e-999999",
        "1e7",
        "1000000.01",
        "1e-41",
        "١",
        "9" * 5000,
        Decimal("NaN"),
        Decimal("1e999999"),
        Decimal("1e9999999"),
        Decimal("1e-999999"),
        10**50,
        True,
        None,
        0.1,
        [],
        {},
    ],
)
def test_an_invalid_amount_of_money_is_refused(written):
    with pytest.raises(InvalidCost):
        exact_cost(written)


@given(st.decimals(0, 1000, places=12), st.decimals(0, 1000, places=12))
def test_rounding_never_takes_more_than_half_a_micro_credit(one, other):
    for cost in (one, other):
        exact = cost * 120 * 1_000_000
        assert abs(credits_micro(cost, AI_CREDITS) - exact) <= Decimal("0.5")
    if one <= other:
        assert credits_micro(one, AI_CREDITS) <= credits_micro(other, AI_CREDITS)


@pytest.mark.case("C2")
@pytest.mark.parametrize(
    ("micro", "shown"),
    [
        (None, "–"),
        (0, "0.00"),
        (1, "<0.01"),
        (9_999, "<0.01"),
        (10_000, "0.01"),
        (-1, ">-0.01"),
        (-9_999, ">-0.01"),
        (-10_000, "-0.01"),
        (-20_000, "-0.02"),
        (2_000_000_000, "2,000.00"),
    ],
)
def test_an_amount_other_than_zero_is_never_shown_as_zero(micro, shown):
    assert display(micro) == shown


@pytest.mark.parametrize(
    ("micro", "shown"),
    [
        (0, "$0.00"),
        (1, "<$0.01"),
        (999_999, "<$0.01"),
        (1_000_000, "$0.01"),
        (-1, ">-$0.01"),
        (-999_999, ">-$0.01"),
        (-1_000_000, "-$0.01"),
        (200_000_000_000, "$2,000.00"),
    ],
)
def test_a_worth_other_than_zero_is_never_shown_as_zero(micro, shown):
    assert dollars(micro) == shown


@pytest.mark.parametrize(
    ("credits", "shown"), [(0, "$0.00"), (120, "$1.00"), (-60, "-$0.50"), (240_000, "$2,000.00")]
)
def test_what_the_provider_charges_is_the_worth_without_the_markup(credits, shown):
    assert provider_dollars(credits * 1_000_000, AI_CREDITS) == shown


def test_an_exact_worth_has_all_its_digits():
    assert exact_dollars(123_456_789) == "1.23456789"


@pytest.mark.parametrize(
    ("percent", "part", "shown"),
    [(None, 5, "–"), (0, 0, "0 %"), (0, 1, "<1 %"), (1, 9, "1 %"), (50, 9, "50 %")],
)
def test_a_share_other_than_zero_is_never_shown_as_zero(percent, part, shown):
    assert display_share(percent, part) == shown


@pytest.mark.parametrize(
    ("micro", "text"),
    [(0, "0"), (1, "0.000001"), (500_000, "0.5"), (10_000_000, "10"), (-1_500_000, "-1.5")],
)
def test_the_exact_amount_is_written_without_needless_zeros(micro, text):
    assert exact(micro) == text


@pytest.mark.parametrize(("text", "micro"), [("2000", 2_000_000_000), ("0.5", 500_000), ("0", 0)])
def test_credits_are_read_as_people_write_them(text, micro):
    assert parse_credits(text) == micro


@pytest.mark.parametrize(
    "text", ["", "-1", "+1", "1e3", "NaN", "ten", "1.0000001", "1,5", "9" * 13, "999999999999"]
)
def test_malformed_credits_are_refused(text):
    with pytest.raises(ValueError):
        parse_credits(text)


def test_costs_add_up_exactly():
    assert exact_sum([]) == 0
    assert exact_sum([Decimal("1e-40"), Decimal(1_000_000), Decimal("-0.1")]) == Decimal(
        "999999.9000000000000000000000000000000000000001"
    )


def test_the_most_that_can_be_granted_can_be_typed():
    assert parse_credits("100000000000") == MAXIMUM_MICRO
    with pytest.raises(ValueError, match="maximum"):
        parse_credits("100000000000.000001")
