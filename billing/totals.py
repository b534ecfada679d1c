"""Running totals per stretch of time: kept while booking, cut anew when limits or grants change.

All functions want the account's row locked by the caller.
"""

from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping
from datetime import datetime

from django.db.models import Sum

from billing.models import Account, UsageEvent, UsageTotal
from billing.timeline import Timeline

Stretch = tuple[datetime, datetime]
"""Start (inclusive) and end (exclusive)."""


def load_usage(account_ids: Iterable[int]) -> dict[int, dict[datetime, int]]:
    """Return each account's totals by the start of their stretch, in one query."""
    usage: dict[int, dict[datetime, int]] = defaultdict(dict)
    rows = UsageTotal.objects.filter(account__in=list(account_ids)).order_by()
    for account_id, starts_at, micro in rows.values_list("account", "starts_at", "usage_micro"):
        usage[account_id][starts_at] = micro
    return usage


def add(amounts: Mapping[tuple[int, Stretch], int]) -> None:
    """Add amounts to the totals of accounts (by id) and stretches."""
    if not amounts:
        return
    there = {
        (row.account_id, row.starts_at): row
        for row in UsageTotal.objects.filter(
            account__in={account_id for account_id, _ in amounts},
            starts_at__in={start for _, (start, _) in amounts},
        )
    }
    changed = []
    made = []
    for (account_id, (start, end)), micro in amounts.items():
        row = there.get((account_id, start))
        if row is None:
            made.append(
                UsageTotal(account_id=account_id, starts_at=start, ends_at=end, usage_micro=micro)
            )
        elif micro:
            row.usage_micro += micro
            changed.append(row)
    UsageTotal.objects.bulk_create(made)
    UsageTotal.objects.bulk_update(changed, ["usage_micro"])


def recut(account: Account, timeline: Timeline) -> None:
    """Make the account's totals fit stretches that were cut anew.

    Only the ledger between the first and the last total that no longer fits is summed again, and of
    that not the first new stretch: it gets what the others leave.
    """
    rows = list(UsageTotal.objects.filter(account=account).order_by("starts_at"))
    misfits = [
        row for row in rows if timeline.stretch_at(row.starts_at) != (row.starts_at, row.ends_at)
    ]
    if not misfits:
        return
    low = min(row.starts_at for row in misfits)
    high = max(row.ends_at for row in misfits)
    while True:
        within = [row for row in rows if row.starts_at < high and low < row.ends_at]
        edges = [(row.starts_at, row.ends_at) for row in within]
        edges += [timeline.stretch_at(low), _stretch_before(high, timeline)]
        reach = min(start for start, _ in edges), max(end for _, end in edges)
        if reach == (low, high):
            break
        low, high = reach
    first, *others = _stretches(low, high, timeline)
    sums = {stretch: ledger_sum(account, *stretch) for stretch in others}
    sums[first] = sum(row.usage_micro for row in within) - sum(sums.values())
    UsageTotal.objects.filter(pk__in=[row.pk for row in within]).delete()
    UsageTotal.objects.bulk_create(
        UsageTotal(account=account, starts_at=start, ends_at=end, usage_micro=micro)
        for (start, end), micro in sums.items()
        if micro
    )


def ledger_sum(account: Account, start: datetime, end: datetime) -> int:
    """Return the credits of the account's events that occurred from `start` to before `end`."""
    events = UsageEvent.objects.filter(account=account, occurred_at__gte=start, occurred_at__lt=end)
    return events.order_by().aggregate(micro=Sum("credits_micro"))["micro"] or 0


def _stretches(low: datetime, high: datetime, timeline: Timeline) -> Iterator[Stretch]:
    while low < high:
        stretch = timeline.stretch_at(low)
        yield stretch
        low = stretch[1]


def _stretch_before(instant: datetime, timeline: Timeline) -> Stretch:
    return timeline.stretch_at(instant - datetime.resolution)
