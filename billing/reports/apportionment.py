"""Round the rows of a table so that they add up to its rounded total.

This is the largest remainder method: every row is rounded down, and the units that are missing from
the total go to the rows that lost most.
"""

from collections.abc import Sequence

from billing.credits import display, dollars
from quota.resources import MICRO

HUNDREDTH = MICRO // 100


def apportion(amounts: Sequence[int], units: int, per_unit: int) -> list[int]:
    """Return each amount in whole units of `per_unit`. They add up to `units`.

    `units` must be the sum of the amounts in units, rounded up or down.
    """
    parts = [amount // per_unit for amount in amounts]
    by_loss = sorted(range(len(parts)), key=lambda at: (-(amounts[at] % per_unit), at))
    for at in by_loss[: units - sum(parts)]:
        parts[at] += 1
    return parts


def percents(amounts: Sequence[int]) -> list[int]:
    """Return the share of each amount in percent. They add up to 100 unless the total is 0.

    Amounts below zero, such as refunds, have no share.
    """
    positive = [max(amount, 0) for amount in amounts]
    total = sum(positive)
    if not total:
        return [0] * len(amounts)
    return apportion([amount * 100 for amount in positive], 100, total)


def displayed(amounts: Sequence[int]) -> list[str]:
    """Return each amount in credits with two decimals, as a column that adds up to its total.

    An amount that isn't zero is never shown as zero, so `<0.01` counts as zero in the sum.
    """
    hundredths = apportion(amounts, rounded(sum(amounts), HUNDREDTH), HUNDREDTH)
    return [
        display(part * HUNDREDTH if part else amount)
        for amount, part in zip(amounts, hundredths, strict=True)
    ]


def displayed_dollars(amounts: Sequence[int]) -> list[str]:
    """Return what each amount is worth, in dollars and cents, as a column that adds up."""
    cents = apportion(amounts, rounded(sum(amounts), MICRO), MICRO)
    return [
        dollars(part * MICRO if part else amount)
        for amount, part in zip(amounts, cents, strict=True)
    ]


def rounded(micro: int, unit: int) -> int:
    """Return an amount in whole units, rounded as `display` and `dollars` round it.

    They round half to even, but show what is less than a unit as less than a unit.
    """
    if abs(micro) < unit:
        return 0
    down, rest = divmod(micro, unit)
    if rest * 2 == unit:
        return down + down % 2
    return down + (rest * 2 > unit)
