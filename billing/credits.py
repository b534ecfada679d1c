"""Convert exactly between dollars, credits and micro-credits, without floats.

1 credit is one cent of a call's price, which is the provider's price plus the bucket's markup.
1 credit is 1,000,000 micro-credits.
"""

import re
from collections.abc import Iterable
from decimal import ROUND_HALF_EVEN, Context, Decimal

from quota.resources import MICRO, RESOURCES

MAXIMUM_MICRO = 10**17
"""A hundred billion credits. This fits the database's integers, with room for sums."""

_MAXIMUM_COST = Decimal(1_000_000)
_COST = re.compile(r"[+-]?\d{1,60}(\.\d{1,60})?([eE][+-]?\d{1,3})?", re.ASCII)
_CREDITS = re.compile(r"\d{1,12}(\.\d{1,6})?", re.ASCII)
_SHOWN = MICRO // 100  # the smallest amount that two decimals show
_EXACT = Context(prec=200, rounding=ROUND_HALF_EVEN)


class InvalidCost(ValueError):
    """The value is not a valid amount of money."""


def exact_cost(value: object) -> Decimal:
    """Return the exact amount of dollars from decimal text or a JSON number.

    Raises `InvalidCost` if the value is not a finite amount, has more than 40 decimals or exceeds a
    million dollars. The caller checks the sign.
    """
    if isinstance(value, str):
        if not _COST.fullmatch(value):
            raise InvalidCost("not a decimal amount")
        cost = Decimal(value)
    elif isinstance(value, Decimal) or type(value) is int:
        cost = Decimal(value)
    else:
        raise InvalidCost("not a decimal amount")
    # Check the exponent first: 1e999999 written out in full would fill the memory.
    exponent = cost.as_tuple().exponent
    if not isinstance(exponent, int):
        raise InvalidCost("not a finite amount")
    if exponent < -40 or cost.adjusted() > 6 or abs(cost) > _MAXIMUM_COST:
        raise InvalidCost("beyond what one call can cost")
    return cost


def exact_sum(costs: Iterable[Decimal]) -> Decimal:
    """Return the exact sum of costs in dollars."""
    total = Decimal(0)
    for cost in costs:
        total = _EXACT.add(total, cost)
    return total


def credits_micro(cost: Decimal, resource: str) -> int:
    """Return the micro-credits of a cost in dollars, rounded once, half to even."""
    exact = _EXACT.multiply(cost, RESOURCES[resource].credits_per_usd * MICRO)
    return int(exact.to_integral_value(context=_EXACT))


def parse_credits(text: str) -> int:
    """Return the micro-credits of an amount of credits, as a person types it.

    Raises `ValueError` if it is not a plain number with at most six decimals.
    """
    if not _CREDITS.fullmatch(text):
        raise ValueError(f"{text!r} is not an amount of credits, such as 2000 or 0.5")
    micro = int(Decimal(text) * MICRO)
    if micro > MAXIMUM_MICRO:
        raise ValueError(f"{text} credits is more than the maximum of 100,000,000,000")
    return micro


def dollars(micro: int) -> str:
    """Return what an amount of credits is worth, for people: 1 credit is 1 cent."""
    if 0 < micro < MICRO:
        return "<$0.01"
    if -MICRO < micro < 0:
        return ">-$0.01"
    amount = Decimal(micro) / MICRO / 100
    return f"{'-' if amount < 0 else ''}${abs(amount):,.2f}"


def exact_dollars(micro: int) -> str:
    """Return what an amount of credits is worth, with all its digits."""
    return f"{Decimal(micro) / MICRO / 100:f}"


def provider_dollars(micro: int, resource: str) -> str:
    """Return what the provider charges for credits of a bucket: their worth without markup."""
    cost = Decimal(micro) / MICRO / RESOURCES[resource].credits_per_usd
    return f"{'-' if cost < 0 else ''}${abs(cost):,.2f}"


def exact(micro: int) -> str:
    """Return the exact amount of credits as text that `parse_credits` accepts."""
    text = f"{Decimal(micro) / MICRO:f}"
    return text.rstrip("0").rstrip(".") if "." in text else text


def display_share(percent: int | None, part: int) -> str:
    """Return a share in percent for people. `part` is the amount that it is the share of."""
    if percent is None:
        return "–"
    return "<1 %" if percent == 0 and part > 0 else f"{percent} %"


def display(micro: int | None) -> str:
    """Return an amount for people, with two decimals. Shows 0.00 only for exactly zero."""
    if micro is None:
        return "–"
    if 0 < micro < _SHOWN:
        return "<0.01"
    if -_SHOWN < micro < 0:
        return ">-0.01"
    return f"{Decimal(micro) / MICRO:,.2f}"
