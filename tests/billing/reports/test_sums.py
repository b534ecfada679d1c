"""Sums equal those of the ledger, to the micro-credit, however many days have a report."""

import random
from collections import defaultdict
from datetime import UTC, datetime, timedelta
from itertools import pairwise

import pytest

from billing.ingestion.refunds import refund
from billing.models import DailyUsage, ReportedUsage, UsageEvent
from billing.reports.daily_usage import report_day, report_what_was_booked
from billing.reports.sums import NOTHING, Span, Sums, Used, cut, midnight
from tests.billing.world import account_of, book, usage_event

pytestmark = pytest.mark.django_db
TODAY = midnight(datetime.now(UTC).date())
DAY = timedelta(days=1)
WEEK = Span(TODAY - 7 * DAY, TODAY + DAY)
RUNS = [f"00000000-0000-4000-8000-00000000000{number}" for number in range(3)]


def some_events(project, count, seed=1):
    """Return a week of events with several models, users and runs, and odd amounts."""
    chance = random.Random(seed)
    return [
        usage_event(
            project,
            f"0.0{chance.randint(1, 10**9)}",
            at=WEEK.start + timedelta(seconds=chance.randint(0, 7 * 86_400)),
            distinct_id=f"slack:T1:U{chance.randint(1, 3)}",
            properties={
                "$ai_model": chance.choice(["small", "large"]),
                "ai_product": chance.choice(["slack_app", "slack_app_routing"]),
                "task_run_id": chance.choice([*RUNS, None]),
            },
        )
        for _ in range(count)
    ]


def in_ledger(account, span, *names):
    """Return the same sums, added up event by event."""
    sums = defaultdict(lambda: NOTHING)
    for event in UsageEvent.objects.filter(account=account):
        if span.start <= event.occurred_at < span.end:
            key = tuple(getattr(event, name) for name in names)
            sums[key] += Used(1, event.credits_micro)
    return dict(sums)


@pytest.fixture
def account(project, stranger):
    """An account with a week of usage, some of it booked since the report was made."""
    book(*some_events(project, 60), *some_events(stranger, 20, seed=2))
    report_what_was_booked()
    ReportedUsage.objects.update(booked_before=datetime.now(UTC))  # as if ten minutes had passed
    reported = UsageEvent.objects.filter(project=project).first()
    book(*some_events(project, 5, seed=3))
    refund(reported)
    return account_of(project.organization)


SPANS = [
    WEEK,
    Span(WEEK.start + timedelta(hours=5), WEEK.start + timedelta(hours=30)),
    Span(WEEK.start + DAY, WEEK.start + 2 * DAY),
    Span(WEEK.start + timedelta(minutes=1), WEEK.end - timedelta(minutes=1)),
]


@pytest.mark.parametrize("span", SPANS)
@pytest.mark.parametrize("keys", [(), ("product",), ("model", "distinct_id"), ("task_run_id",)])
def test_a_sum_equals_that_of_the_ledger(account, span, keys):
    assert Sums(account, span).by([span], *keys) == in_ledger(account, span, *keys)


def test_reported_days_are_not_read_from_the_ledger(account, django_assert_num_queries):
    ReportedUsage.objects.update(booked_before=datetime.now(UTC) + DAY)
    DailyUsage.objects.filter(credits_micro__gt=0).update(credits_micro=1)

    sums = Sums(account, WEEK)
    with django_assert_num_queries(1):
        [used] = sums.by([Span(WEEK.start, WEEK.end - DAY)]).values()

    assert used.credits_micro < 100


def test_each_piece_has_its_own_sum(account):
    pieces = cut(WEEK, [WEEK.start + timedelta(hours=36)])
    found = Sums(account, WEEK).each_by(pieces, "product")

    assert len(pieces) == 9
    for piece, sums in zip(pieces, found, strict=True):
        expected = in_ledger(account, piece, "product")
        assert {(product,): used for product, used in sums.items()} == expected


def test_without_any_report_everything_comes_from_the_ledger(project):
    book(*some_events(project, 10))
    account = account_of(project.organization)

    assert Sums(account, WEEK).by([WEEK]) == in_ledger(account, WEEK)


def test_a_day_reported_before_reports_had_runs_is_reported_again(project):
    book(*some_events(project, 10))
    report_day(WEEK.start.date())
    report_what_was_booked()

    assert DailyUsage.objects.exclude(task_run_id=None).count() > 0
    assert ReportedUsage.objects.count() == 1


def test_a_report_that_was_missed_for_a_week_is_caught_up(project):
    report_what_was_booked()
    long_ago = datetime.now(UTC) - 7 * DAY
    ReportedUsage.objects.update(booked_before=long_ago)
    book(*some_events(project, 10))

    report_what_was_booked()

    assert sum(DailyUsage.objects.values_list("events", flat=True)) == 10
    assert ReportedUsage.objects.get().booked_before > long_ago


@pytest.mark.parametrize("hours", [1, 24, 25, 49])
def test_pieces_join_without_a_gap_and_end_at_midnights(hours):
    span = Span(WEEK.start + timedelta(hours=3), WEEK.start + timedelta(hours=3 + hours))
    pieces = cut(span)
    assert (pieces[0].start, pieces[-1].end) == span
    for one, other in pairwise(pieces):
        assert one.end == other.start == midnight(other.start.date())
