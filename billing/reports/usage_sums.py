"""What all accounts used together, and who used most, without reading the whole ledger.

Sums of days and months are kept in `UsageSum`. A task adds what was booked since its last run. It
goes by the time of booking, so late events and refunds aren't missed. They count for the day of the
usage they belong to. Readers add the events of the last minutes themselves, so that what they show
is exact.
"""

from collections import defaultdict
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from datetime import UTC, date, datetime, timedelta
from operator import attrgetter
from typing import Any

from django.db import transaction
from django.db.models import Count, Sum
from django.db.models.functions import TruncDate
from django.utils import timezone

from billing.consistent_read import consistent_read
from billing.models import SummedUsage, UsageEvent, UsageSum
from billing.reports.ranking import Ranking, rank_all
from billing.reports.sums import NOTHING, Used

SURELY_COMMITTED = timedelta(minutes=10)
"""After this time, a booking is assumed to be committed. A booking takes seconds at most."""

_EVER = datetime.min.replace(tzinfo=UTC)
_BATCH = 500
Kind = UsageSum.Kind
Key = tuple[str, date, str]
"""A kind, a day or the first day of a month, and the key of a sum."""


@dataclass(frozen=True, slots=True)
class MonthUsage:
    """What all accounts used in a month, by day and bucket."""

    month: date
    days: Mapping[date, Mapping[str, Used]]

    @property
    def used(self) -> Used:
        """What was used in the whole month."""
        return self.used_before(next_month(self.month))

    def used_before(self, day: date) -> Used:
        """Return what was used on the days before this one."""
        sums = (sum(of.values(), NOTHING) for at, of in self.days.items() if at < day)
        return sum(sums, NOTHING)


@dataclass(frozen=True, slots=True)
class OverallUsage:
    """What all accounts used in a month and in the one before, and who used most in the month."""

    this: MonthUsage
    last: MonthUsage
    organizations: Ranking
    users: Ranking
    models: Ranking


def month_of(day: date) -> date:
    """Return the first day of the day's month."""
    return day.replace(day=1)


def next_month(month: date) -> date:
    """Return the first day of the next month."""
    return month_of(month + timedelta(days=31))


def overall_usage(month: date, count: int) -> OverallUsage:
    """Return the usage of a month, given by its first day, and the `count` who used most."""
    with consistent_read():
        recent = _sums_of_ledger(_summed_before(), None)
        this = _month(month, recent)
        return OverallUsage(
            this,
            _month(month_of(month - timedelta(days=1)), recent),
            *(
                _ranking(kind, this, recent, count)
                for kind in (Kind.ORGANIZATION, Kind.USER, Kind.MODEL)
            ),
        )


def sum_what_was_booked(until: datetime | None = None) -> None:
    """Add what was booked since the last time, up to `until` or to what is surely committed."""
    until = until or timezone.now() - SURELY_COMMITTED
    before = _summed_before()
    if until <= before:
        return
    added = _sums_of_ledger(before, until)  # before the lock: it can be the whole ledger
    with transaction.atomic():
        if _summed_before(lock=True) != before:
            return  # another process was faster
        _add(added)
        SummedUsage.objects.update_or_create(pk=1, defaults={"booked_before": until})


def sum_again() -> None:
    """Make all sums again from the ledger."""
    with transaction.atomic():
        _summed_before(lock=True)
        until = timezone.now() - SURELY_COMMITTED
        UsageSum.objects.all().delete()
        _add(_sums_of_ledger(_EVER, until))
        SummedUsage.objects.update_or_create(pk=1, defaults={"booked_before": until})


def sum_differences() -> Iterator[str]:
    """Yield a sentence for each day or month whose sums differ from the ledger."""
    wanted = _sums_of_ledger(_EVER, _summed_before())
    stored = {(row.kind, row.since, row.key): _used(row) for row in UsageSum.objects.order_by()}
    wrong = {
        key[:2]
        for key in wanted.keys() | stored.keys()
        if wanted.get(key, NOTHING) != stored.get(key, NOTHING)
    }
    for kind, since in sorted(wrong):
        yield f"the sums by {kind} since {since} differ from the ledger"


def _month(month: date, recent: Mapping[Key, Used]) -> MonthUsage:
    days: dict[date, dict[str, Used]] = defaultdict(dict)
    of_month = UsageSum.objects.filter(
        kind=Kind.DAY, since__gte=month, since__lt=next_month(month)
    ).order_by("since", "key")
    for row in of_month:
        days[row.since][row.key] = _used(row)
    for (kind, since, key), used in recent.items():
        if kind == Kind.DAY and month_of(since) == month:
            days[since][key] = days[since].get(key, NOTHING) + used
    return MonthUsage(month, days)


def _ranking(kind: str, usage: MonthUsage, recent: Mapping[Key, Used], count: int) -> Ranking:
    added = {
        key: used for (of, since, key), used in recent.items() if (of, since) == (kind, usage.month)
    }
    rows = UsageSum.objects.filter(kind=kind, since=usage.month)
    # Nobody else can be among the first `count`: the others used less, and nothing lately.
    first = rows.order_by("-credits_micro")[: count + len(added)]
    known = {row.key: _used(row) for row in (*first, *rows.filter(key__in=list(added)))}
    candidates = {
        key: known.get(key, NOTHING) + added.get(key, NOTHING) for key in known.keys() | added
    }
    keys = rows.count() + len(added.keys() - known.keys())
    return rank_all(candidates, count, total=usage.used, keys=keys)


def _used(row: UsageSum) -> Used:
    return Used(row.events, row.credits_micro)


def _summed_before(*, lock: bool = False) -> datetime:
    rows = SummedUsage.objects.select_for_update() if lock else SummedUsage.objects
    summed = rows.filter(pk=1).first()
    return summed.booked_before if summed else _EVER


def _sums_of_ledger(since: datetime, until: datetime | None) -> dict[Key, Used]:
    """Return the sums of what was booked from `since` to before `until`, for every kind."""
    events = UsageEvent.objects.filter(account__isnull=False, project__isnull=False).order_by()
    if since > _EVER:
        events = events.filter(booked_at__gte=since)
    if until is not None:
        events = events.filter(booked_at__lt=until)
    grouped = (
        events.annotate(day=TruncDate("occurred_at", tzinfo=UTC))
        .values_list("day", "account__resource", "account__organization", "distinct_id", "model")
        .annotate(number=Count("uuid"), micro=Sum("credits_micro"))
    )
    sums: dict[Key, Used] = defaultdict(Used)
    for day, resource, organization, user, model, number, micro in grouped.iterator():
        used, month = Used(number, micro), month_of(day)
        sums[Kind.DAY, day, resource] += used
        sums[Kind.ORGANIZATION, month, str(organization)] += used
        sums[Kind.USER, month, user] += used
        sums[Kind.MODEL, month, model] += used
    return sums


def _add(sums: Mapping[Key, Used]) -> None:
    by_group: dict[tuple[str, date], dict[str, Used]] = defaultdict(dict)
    for (kind, since, key), used in sums.items():
        by_group[kind, since][key] = used
    for (kind, since), keys in by_group.items():
        names = list(keys)
        for at in range(0, len(names), _BATCH):
            _add_to_group(kind, since, {name: keys[name] for name in names[at : at + _BATCH]})


def _add_to_group(kind: str, since: date, sums: Mapping[str, Used]) -> None:
    rows = UsageSum.objects.filter(kind=kind, since=since, key__in=list(sums))
    known: dict[str, Any] = {row.key: row for row in rows}
    changed = [known.get(key) or UsageSum(kind=kind, since=since, key=key) for key in sums]
    for row in changed:
        row.events += sums[row.key].events
        row.credits_micro += sums[row.key].credits_micro
    UsageSum.objects.bulk_create(
        sorted(changed, key=attrgetter("key")),
        update_conflicts=True,
        unique_fields=["kind", "since", "key"],
        update_fields=["events", "credits_micro"],
    )
