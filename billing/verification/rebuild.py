"""Rebuild an account's projections from the ledger, the limits and the grants."""

from collections.abc import Iterator
from datetime import datetime

from django.db import transaction
from django.db.models import Min, Sum
from django.utils import timezone

from billing.account_locks import lock_accounts
from billing.decisions.cap_usage import recount
from billing.decisions.enforcement import enforce
from billing.decisions.timeline import Timeline, load_timelines
from billing.models import Account, AccountGroup, UsageEvent, UsageTotal, new_ledger_epoch


def rebuild(account_id: int, *, new_epoch: bool = False) -> None:
    """Recompute an account's totals and group bookings from the ledger, then decide and publish.

    Use `new_epoch` after the database was restored from a backup, which can set versions back.
    Gateways then accept the account's lower versions as newer than those they know.
    """
    with transaction.atomic():
        [account] = lock_accounts([account_id])
        now = timezone.now()
        timeline = load_timelines([account_id])[account_id]
        UsageTotal.objects.filter(account=account).delete()
        UsageTotal.objects.bulk_create(
            UsageTotal(account=account, starts_at=start, ends_at=end, usage_micro=micro)
            for start, end, micro in totals_of_ledger(account, timeline)
        )
        AccountGroup.objects.filter(account=account).delete()
        AccountGroup.objects.bulk_create(
            AccountGroup(account=account, group=group, booked_micro=micro)
            for group, micro in bookings_of_ledger(account).items()
        )
        if account.caps_version:
            recount(account, timeline.period_at(now))
            account.caps_version += 1
        account.booked = UsageEvent.objects.filter(account=account).exists()
        if new_epoch:
            account.ledger_epoch = new_ledger_epoch()
            account.save(update_fields=["ledger_epoch"])
        enforce([account], now, republish=True)


def totals_of_ledger(
    account: Account, timeline: Timeline
) -> Iterator[tuple[datetime, datetime, int]]:
    """Yield the start, end and micro-credits of each stretch in which the account has events."""
    events = UsageEvent.objects.filter(account=account).order_by()
    first = events.aggregate(at=Min("occurred_at"))["at"]
    while first is not None:
        start, end = timeline.stretch_at(first)
        within = events.filter(occurred_at__gte=start, occurred_at__lt=end)
        yield start, end, within.aggregate(micro=Sum("credits_micro"))["micro"]
        first = events.filter(occurred_at__gte=end).aggregate(at=Min("occurred_at"))["at"]


def bookings_of_ledger(account: Account) -> dict[str, int]:
    """Return the micro-credits booked for each gateway group."""
    events = UsageEvent.objects.filter(account=account).exclude(group="").order_by()
    return dict(events.values_list("group").annotate(micro=Sum("debited_micro")))
