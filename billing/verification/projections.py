"""Compare an account's projections with its ledger. Read-only: `rebuild_quota` repairs accounts."""

from collections import Counter
from collections.abc import Iterable, Iterator
from datetime import date

from django.db.models import Sum
from django.utils import timezone

from billing.decisions.cap_usage import SubjectUsage, counts_of_ledger, load_caps
from billing.decisions.timeline import Timeline, load_timelines
from billing.models import Account, AccountGroup, DailyUsage, UsageEvent, UsageTotal
from billing.reports.daily_usage import reported_days, usage_of_all_days
from billing.verification.comparison import compare
from billing.verification.rebuild import bookings_of_ledger, totals_of_ledger
from quota.models import CapState


def differences(account: Account) -> Iterator[str]:
    """Yield a sentence for each difference between an account's projections and its ledger."""
    timeline = load_timelines([account.pk])[account.pk]
    expected = {start: (end, micro) for start, end, micro in totals_of_ledger(account, timeline)}
    stored = {
        total.starts_at: (total.ends_at, total.usage_micro)
        for total in UsageTotal.objects.filter(account=account)
    }
    for start in sorted(expected.keys() | stored.keys()):
        wanted, found = expected.get(start, (None, 0)), stored.get(start, (None, 0))
        if wanted != found and (wanted[1] or found[1]):
            yield f"total from {start:%Y-%m-%d %H:%M}: ledger {wanted[1]}, total {found[1]}"
    bookings = bookings_of_ledger(account)
    booked = dict(AccountGroup.objects.filter(account=account).values_list("group", "booked_micro"))
    for group in sorted(bookings.keys() | booked.keys()):
        if bookings.get(group, 0) != booked.get(group, 0):
            yield f"group {group}: ledger {bookings.get(group, 0)}, booked {booked.get(group, 0)}"
    yield from _cap_differences(account, timeline)
    if account.booked != UsageEvent.objects.filter(account=account).exists():
        yield "the flag whether anything was ever booked is wrong"
    compared = compare([account], timezone.now())
    if compared.outdated:
        yield "the published state is not what would be decided now"
    yield from compared.misstated.values()


def _cap_differences(account: Account, timeline: Timeline) -> Iterator[str]:
    caps = load_caps([account]).get(account.pk)
    if caps is None:
        return
    period = timeline.period_at(timezone.now())
    if account.period_start != period.start:
        return  # counted again at the first decision of the new period
    stored = {
        (row.scope, row.subject): (row.cap_micro, row.usage_micro, row.booked, row.exhausted)
        for row in CapState.objects.filter(
            organization=account.organization_id, resource=account.resource
        )
    }
    expected = {
        subject: _cap_state(caps.cap_of(subject), counted)
        for subject, counted in counts_of_ledger(account, caps, period).items()
    }
    for scope, subject in sorted(expected.keys() | stored.keys()):
        wanted, found = expected.get((scope, subject)), stored.get((scope, subject))
        if wanted != found:
            yield f"cap of {scope} {subject}: ledger {wanted}, stored {found}"


def _cap_state(
    cap: int | None, counted: SubjectUsage
) -> tuple[int | None, int, dict[str, int], bool]:
    exhausted = cap is not None and counted.usage >= cap
    return cap, counted.usage, dict(counted.booked), exhausted


def report_differences() -> Iterator[str]:
    """Yield a sentence for each day whose usage report should be complete but isn't."""
    wanted = _fingerprints(usage_of_all_days())
    stored = _fingerprints(DailyUsage.objects.order_by().iterator(chunk_size=2000))
    for day in sorted(reported_days(wanted.keys() | stored.keys())):
        if wanted[day] != stored[day]:
            yield f"the usage report of {day} differs from the ledger"


def _fingerprints(rows: Iterable[DailyUsage]) -> Counter[date]:
    """Return a number for each day that depends on all its rows, but not on their order."""
    numbers: Counter[date] = Counter()
    columns = [field.attname for field in DailyUsage._meta.concrete_fields[1:]]
    for row in rows:
        numbers[row.day] += hash(tuple(getattr(row, name) for name in columns))
    return numbers


def ledger_sum() -> int:
    """Return the sum of the whole ledger in micro-credits."""
    return UsageEvent.objects.aggregate(micro=Sum("credits_micro"))["micro"] or 0


def totals_sum() -> int:
    """Return the sum of all running totals in micro-credits."""
    return UsageTotal.objects.aggregate(micro=Sum("usage_micro"))["micro"] or 0
