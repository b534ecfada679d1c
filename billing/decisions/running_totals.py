"""Recut running totals after limits or grants have changed an account's stretches of time.

The caller must lock the account's row.
"""

from collections.abc import Iterator
from datetime import datetime

from django.db.models import Sum

from billing.decisions.decision_inputs import Stretch
from billing.decisions.timeline import Timeline
from billing.models import Account, UsageEvent, UsageTotal


def recut_totals(account: Account, timeline: Timeline) -> None:
    """Make the account's totals fit its new stretches.

    Sums the ledger again only between the first and the last total that no longer fits. The first
    new stretch isn't summed: it gets what is left after the others.
    """
    rows = list(UsageTotal.objects.filter(account=account).order_by("starts_at"))
    misfits = [
        row for row in rows if timeline.stretch_at(row.starts_at) != (row.starts_at, row.ends_at)
    ]
    if not misfits:
        return
    low = min(row.starts_at for row in misfits)
    high = max(row.ends_at for row in misfits)
    stretches = list(_stretches(low, high, timeline))
    # The outer stretches can reach beyond `low` and `high`. Only damaged totals could begin there.
    (begin, _), (_, end) = stretches[0], stretches[-1]
    within = [row for row in rows if begin <= row.starts_at < end]
    first, *others = stretches
    sums = {stretch: ledger_sum(account, *stretch) for stretch in others}
    sums[first] = sum(row.usage_micro for row in within) - sum(sums.values())
    UsageTotal.objects.filter(pk__in=[row.pk for row in within]).delete()
    UsageTotal.objects.bulk_create(
        UsageTotal(account=account, starts_at=start, ends_at=end, usage_micro=micro)
        for (start, end), micro in sums.items()
        if micro
    )


def ledger_sum(account: Account, start: datetime, end: datetime) -> int:
    """Return the micro-credits of the account's events from `start` (inclusive) to `end`."""
    events = UsageEvent.objects.filter(account=account, occurred_at__gte=start, occurred_at__lt=end)
    return events.order_by().aggregate(micro=Sum("credits_micro"))["micro"] or 0


def _stretches(low: datetime, high: datetime, timeline: Timeline) -> Iterator[Stretch]:
    while low < high:
        stretch = timeline.stretch_at(low)
        yield stretch
        low = stretch[1]
