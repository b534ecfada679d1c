"""The daily usage report: sums of the ledger per day, project, product, model, user and run."""

from collections.abc import Iterable, Iterator
from datetime import UTC, date, datetime, timedelta
from itertools import chain

from django.db import transaction
from django.db.models import Count, DateField, F, QuerySet, Sum, Value
from django.db.models.functions import Coalesce, TruncDate
from django.utils import timezone

from billing.models import Account, DailyUsage, ReportedUsage, UsageEvent

SURELY_COMMITTED = timedelta(minutes=10)
"""After this time, a booking is assumed to be committed. A booking takes seconds at most."""

_KEY = ("project", "account__resource", "product", "model", "distinct_id", "task_run_id")
_EVER = datetime.min.replace(tzinfo=UTC)
_TOKENS = (
    "input_tokens",
    "output_tokens",
    "cache_read_input_tokens",
    "cache_creation_input_tokens",
)


def report_what_was_booked() -> None:
    """Make the report again for every day with events that were booked since the last run.

    If a run dies half-way, the next one repeats all of it.
    """
    now = timezone.now()
    reported = ReportedUsage.objects.filter(pk=1).first()
    for day in days_booked_since(reported.booked_before if reported else _EVER):
        report_day(day)
    booked_before = now - SURELY_COMMITTED
    ReportedUsage.objects.update_or_create(pk=1, defaults={"booked_before": booked_before})


def reported_days(days: Iterable[date]) -> set[date]:
    """Return the days whose report is known to be complete. Omits all others."""
    reported = ReportedUsage.objects.filter(pk=1).first()
    if reported is None:
        return set()
    return set(days).difference(days_booked_since(reported.booked_before))


def report_day(day: date) -> int:
    """Make the report of a UTC day again from the ledger, and return its number of rows.

    Idempotent. An event that is booked meanwhile is in this report or in the next one of this day.
    """
    with transaction.atomic():
        list(_lock(day))
        rows = usage_of_day(day)
        DailyUsage.objects.filter(day=day).delete()
        DailyUsage.objects.bulk_create(rows, batch_size=500)
    return len(rows)


def usage_of_day(day: date) -> list[DailyUsage]:
    """Return the report of a day, computed from the ledger and not stored."""
    return list(chain.from_iterable(_reported(events) for events in _events(day)))


def usage_of_all_days() -> Iterator[DailyUsage]:
    """Yield the reports of all days, computed in one pass over the ledger and not stored."""
    events = UsageEvent.objects.filter(project__isnull=False).order_by()
    return _reported(events.annotate(day=TruncDate("occurred_at", tzinfo=UTC)))


def days_booked_since(instant: datetime) -> list[date]:
    """Return the days with events that were booked since the instant, including late ones."""
    events = UsageEvent.objects.filter(booked_at__gte=instant).order_by()
    days = events.annotate(day=TruncDate("occurred_at", tzinfo=UTC)).values_list("day", flat=True)
    return sorted(day for day in days.distinct() if day is not None)


def _lock(day: date) -> QuerySet[DailyUsage]:
    # If two processes report the same day, the second waits for these rows. If there are no rows
    # yet, it fails on the unique key.
    return DailyUsage.objects.select_for_update().filter(day=day).order_by("pk")


def _events(day: date) -> Iterator[QuerySet[UsageEvent]]:
    """Yield the day's events by account, to use the index. Events without account come last."""
    start = datetime(day.year, day.month, day.day, tzinfo=UTC)
    within = (
        UsageEvent.objects.filter(
            occurred_at__gte=start,
            occurred_at__lt=start + timedelta(days=1),
            project__isnull=False,
        )
        .annotate(day=Value(day, DateField()))
        .order_by()
    )
    for account in Account.objects.order_by("pk").values_list("pk", flat=True):
        yield within.filter(account=account)
    yield within.filter(account=None)


def _reported(events: QuerySet[UsageEvent]) -> Iterator[DailyUsage]:
    sums = {f"sum_{name}": Coalesce(Sum(name), 0) for name in _TOKENS}
    grouped = events.values("day", *_KEY, "project__organization").annotate(
        events=Count("uuid"), credits_micro=Sum(F("credits_micro")), **sums
    )
    for found in grouped.iterator():
        yield DailyUsage(
            day=found["day"],
            organization_id=found["project__organization"],
            project_id=found["project"],
            resource=found["account__resource"] or "",
            product=found["product"],
            model=found["model"],
            distinct_id=found["distinct_id"],
            task_run_id=found["task_run_id"],
            events=found["events"],
            credits_micro=found["credits_micro"],
            **{name: found[f"sum_{name}"] for name in _TOKENS},
        )
