"""Does everything agree with the ledger? Reads only; `rebuild_quota` repairs what it finds."""

from collections.abc import Iterator
from contextlib import contextmanager
from decimal import Decimal

from django.db import connection
from django.db.models import Count, Sum
from django.utils import timezone

from billing.cap_usage import counts_of_ledger, load_caps
from billing.credits import credits_micro
from billing.enforcement import outdated
from billing.models import Account, AccountGroup, UsageEvent, UsageTotal
from billing.rebuild import bookings_of_ledger, totals_of_ledger
from billing.timeline import Timeline, load_timelines
from quota.models import CapState


@contextmanager
def one_view() -> Iterator[None]:
    """Read the database as it is at one instant, without keeping anybody from writing.

    Without it, what is booked while the ledger is read looks like a difference. Within a
    transaction it changes nothing.
    """
    if connection.in_atomic_block:
        yield
        return
    on_postgresql = connection.vendor == "postgresql"
    with connection.cursor() as cursor:
        cursor.execute(
            "BEGIN ISOLATION LEVEL REPEATABLE READ READ ONLY" if on_postgresql else "BEGIN DEFERRED"
        )
        try:
            yield
        finally:
            cursor.execute("ROLLBACK")


def differences(account: Account) -> Iterator[str]:
    """Yield a sentence for each thing about an account that the ledger does not bear out."""
    timeline = load_timelines([account.pk])[account.pk]
    expected = {start: (end, micro) for start, end, micro in totals_of_ledger(account, timeline)}
    kept = {
        total.starts_at: (total.ends_at, total.usage_micro)
        for total in UsageTotal.objects.filter(account=account)
    }
    for start in sorted(expected.keys() | kept.keys()):
        wanted, found = expected.get(start, (None, 0)), kept.get(start, (None, 0))
        if wanted != found and (wanted[1] or found[1]):
            yield f"total from {start:%Y-%m-%d %H:%M}: ledger {wanted[1]}, total {found[1]}"
    bookings = bookings_of_ledger(account)
    booked = dict(AccountGroup.objects.filter(account=account).values_list("group", "booked_micro"))
    for group in sorted(bookings.keys() | booked.keys()):
        if bookings.get(group, 0) != booked.get(group, 0):
            yield f"group {group}: ledger {bookings.get(group, 0)}, booked {booked.get(group, 0)}"
    yield from _cap_differences(account, timeline)
    if outdated([account], timezone.now()):
        yield "the published state is not what would be decided now"


def _cap_differences(account: Account, timeline: Timeline) -> Iterator[str]:
    caps = load_caps([account]).get(account.pk)
    if caps is None:
        return
    period = timeline.period_at(timezone.now())
    if account.period_start != period.start:
        return  # counted anew as soon as the new period is decided about
    kept = {
        (row.scope, row.subject): (row.cap_micro, row.usage_micro, row.booked)
        for row in CapState.objects.filter(
            organization=account.organization_id, resource=account.resource
        )
    }
    expected = {
        subject: (caps.of(subject), counted.usage, dict(counted.booked))
        for subject, counted in counts_of_ledger(account, caps, period).items()
    }
    for scope, subject in sorted(expected.keys() | kept.keys()):
        wanted, found = expected.get((scope, subject)), kept.get((scope, subject))
        if wanted != found:
            yield f"cap of {scope} {subject}: ledger {wanted}, kept {found}"


def ledger_faults() -> Iterator[str]:
    """Yield a sentence for each row of the ledger that contradicts itself, and for doubled keys."""
    rows = UsageEvent.objects.order_by()
    doubled = rows.values("uuid").annotate(times=Count("uuid")).filter(times__gt=1)
    for uuid in doubled.values_list("uuid", flat=True):
        yield f"event {uuid} is in the ledger more than once"
    # An adjustment is the difference of amounts that were rounded each by itself.
    own = rows.filter(adjusts=None).exclude(kind=UsageEvent.Kind.DISCARDED)
    priced = own.values_list("uuid", "account__resource", "cost_usd", "credits_micro")
    for uuid, resource, cost, micro in priced.iterator(chunk_size=5000):
        wanted = credits_micro(Decimal(cost), resource) if resource else 0
        if wanted != micro:
            yield f"event {uuid}: {cost} dollars are {wanted} micro-credits, not {micro}"


def ledger_sum() -> int:
    """Return the sum of the whole ledger in micro-credits."""
    return UsageEvent.objects.aggregate(micro=Sum("credits_micro"))["micro"] or 0


def totals_sum() -> int:
    """Return the sum of all running totals in micro-credits."""
    return UsageTotal.objects.aggregate(micro=Sum("usage_micro"))["micro"] or 0
