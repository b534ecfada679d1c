"""Running totals that are not what the ledger says, found while everything goes on.

Only stretches of time that are not over are compared: they are what decisions are made from. The
rest is `verify_ledger`'s. One statement sees ledger and totals as they are at one instant.
"""

from collections.abc import Collection
from datetime import datetime

from django.db.models import Exists, F, OuterRef, Subquery, Sum
from django.db.models.functions import Coalesce

from billing.models import Account, UsageEvent, UsageTotal


def drifted(account_ids: Collection[int], now: datetime) -> set[int]:
    """Return those of some accounts whose totals the ledger does not bear out; reads only."""
    within = UsageEvent.objects.filter(
        account=OuterRef("account"),
        occurred_at__gte=OuterRef("starts_at"),
        occurred_at__lt=OuterRef("ends_at"),
    )
    sums = within.order_by().values("account").annotate(micro=Sum("credits_micro"))
    totals = UsageTotal.objects.filter(account__in=account_ids, ends_at__gt=now).order_by()
    wrong = totals.annotate(ledger=Coalesce(Subquery(sums.values("micro")), 0))
    found = set(wrong.exclude(usage_micro=F("ledger")).values_list("account_id", flat=True))
    used = UsageEvent.objects.filter(
        account=OuterRef("pk"), occurred_at__gte=OuterRef("period_start"), credits_micro__gt=0
    )
    kept = UsageTotal.objects.filter(account=OuterRef("pk"), ends_at__gt=OuterRef("period_start"))
    lost = Account.objects.filter(~Exists(kept), Exists(used), pk__in=account_ids, booked=True)
    return found | set(lost.values_list("pk", flat=True))
