"""What a decision is made from besides the account's own row: limits, grants and totals.

The inputs are loaded once. `add_usage` and `add_bookings` write to the database and update the
loaded copy as well. The caller locks the accounts, or accepts that they may change meanwhile.
"""

from collections import defaultdict
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from datetime import datetime

from billing.decisions.timeline import Timeline, load_timelines
from billing.models import AccountGroup, UsageTotal

Stretch = tuple[datetime, datetime]
"""Start (inclusive) and end (exclusive) of a stretch of time. See `billing.decisions.burndown`."""


@dataclass(frozen=True, slots=True)
class DecisionInputs:
    """One account's limits and grants, usage by the start of each stretch, and bookings by group.

    Amounts are in micro-credits.
    """

    timeline: Timeline
    usage: dict[datetime, int]
    booked: dict[str, int]


def load_inputs(account_ids: Iterable[int]) -> dict[int, DecisionInputs]:
    """Return the inputs of each account. Takes four queries in all."""
    ids = list(account_ids)
    usage: dict[int, dict[datetime, int]] = defaultdict(dict)
    totals = UsageTotal.objects.filter(account__in=ids).order_by()
    for pk, starts_at, micro in totals.values_list("account_id", "starts_at", "usage_micro"):
        usage[pk][starts_at] = micro
    booked: dict[int, dict[str, int]] = defaultdict(dict)
    groups = AccountGroup.objects.filter(account__in=ids).order_by("pk")
    for pk, group, micro in groups.values_list("account_id", "group", "booked_micro"):
        booked[pk][group] = micro
    timelines = load_timelines(ids)
    return {pk: DecisionInputs(timelines[pk], usage[pk], booked[pk]) for pk in ids}


def add_usage(
    inputs: Mapping[int, DecisionInputs], amounts: Mapping[tuple[int, Stretch], int]
) -> None:
    """Add micro-credits to the usage totals, by account id and stretch."""
    rows = []
    for (pk, (starts_at, ends_at)), micro in amounts.items():
        usage = inputs[pk].usage
        usage[starts_at] = usage.get(starts_at, 0) + micro
        rows.append(
            UsageTotal(
                account_id=pk, starts_at=starts_at, ends_at=ends_at, usage_micro=usage[starts_at]
            )
        )
    UsageTotal.objects.bulk_create(
        rows,
        update_conflicts=True,
        unique_fields=["account", "starts_at"],
        update_fields=["usage_micro"],
    )


def add_bookings(
    inputs: Mapping[int, DecisionInputs], amounts: Mapping[tuple[int, str], int]
) -> None:
    """Add micro-credits to the bookings, by account id and gateway group."""
    rows = []
    for (pk, group), micro in amounts.items():
        booked = inputs[pk].booked
        booked[group] = booked.get(group, 0) + micro
        rows.append(AccountGroup(account_id=pk, group=group, booked_micro=booked[group]))
    AccountGroup.objects.bulk_create(
        rows,
        update_conflicts=True,
        unique_fields=["account", "group"],
        update_fields=["booked_micro"],
    )
