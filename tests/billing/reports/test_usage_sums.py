"""The sums of all accounts equal the ledger, however often and late they are made."""

import io
from datetime import UTC, date, datetime, timedelta

import pytest
from django.core.management import call_command
from django.db.models import Sum
from django.utils import timezone

from billing import organizations, tasks
from billing.ingestion.refunds import refund
from billing.models import UsageEvent, UsageSum
from billing.reports.usage_sums import overall_usage, sum_differences
from tests.billing.world import CREDIT, book, usage_event

pytestmark = pytest.mark.django_db
NOW = datetime(2026, 11, 23, 14, 0, tzinfo=UTC)
NOVEMBER, OCTOBER = date(2026, 11, 1), date(2026, 10, 1)


class Clock:
    now = NOW

    def __call__(self):
        return self.now


@pytest.fixture
def clock(monkeypatch):
    clock = Clock()
    monkeypatch.setattr(timezone, "now", clock)
    return clock


def in_ledger():
    return UsageEvent.objects.aggregate(micro=Sum("credits_micro"))["micro"] or 0


def test_what_is_not_summed_yet_is_read_from_the_ledger(project, clock):
    book(usage_event(project, at=NOW), usage_event(project, at=NOW - timedelta(days=30)))

    november = overall_usage(NOVEMBER, 5)

    assert not UsageSum.objects.exists()
    assert november.this.used.credits_micro == november.last.used.credits_micro == 12 * CREDIT
    assert november.this.days[NOW.date()]["ai_credits"].events == 1
    assert [row.key for row in november.users.top] == ["slack:T1:U1"]
    assert november.organizations.top[0].key == str(project.organization_id)


def test_sums_and_later_events_add_up_to_the_ledger(project, stranger, clock):
    for minutes in range(0, 60, 7):
        clock.now = NOW + timedelta(minutes=minutes)
        late = clock.now - timedelta(days=minutes)
        book(
            usage_event(project, at=clock.now, distinct_id=f"u{minutes}"),
            usage_event(stranger, "0.30", at=late, properties={"$ai_model": "other"}),
        )
        tasks.sum_usage()
        tasks.sum_usage()  # again: nothing is added twice
    clock.now -= timedelta(hours=2)
    tasks.sum_usage()  # a clock that was set back adds nothing twice either
    clock.now += timedelta(hours=2)
    refund(UsageEvent.objects.order_by("occurred_at").first(), actor="ops", reason="test")

    usages = [overall_usage(month, 3) for month in (NOVEMBER, OCTOBER)]

    assert sum(usage.this.used.credits_micro for usage in usages) == in_ledger()
    assert usages[0].last == usages[1].this
    assert UsageSum.objects.exists()
    for usage in usages:
        for ranking in (usage.organizations, usage.users, usage.models):
            assert ranking.total == usage.this.used
            shown = sum(row.used.credits_micro for row in ranking.top)
            assert shown + ranking.others_used.credits_micro == usage.this.used.credits_micro
    november = usages[0]
    assert [row.key for row in november.models.top] == ["other", "claude-sonnet-4-5"]
    assert len(november.users.top) == 3
    assert november.users.others == 7


def test_one_who_used_most_lately_is_ranked_first(project, clock):
    book(*(usage_event(project, "0.20", at=NOW, distinct_id=f"u{n}") for n in range(9)))
    clock.now += timedelta(hours=1)
    tasks.sum_usage()
    clock.now += timedelta(minutes=1)
    book(*(usage_event(project, at=NOW, distinct_id="late") for _ in range(3)))
    book(usage_event(project, at=NOW, distinct_id="u8"))

    november = overall_usage(NOVEMBER, 2)

    assert [row.key for row in november.users.top] == ["late", "u8"]
    assert november.users.others == 8


def test_an_organization_of_another_bucket_is_counted_too(clock):
    project = organizations.create_project(organizations.create_organization("Desk"), "Code")
    book(usage_event(project, at=NOW, properties={"ai_product": "posthog_code"}))
    november = overall_usage(NOVEMBER, 2).this
    assert november.days[NOW.date()].keys() == {"posthog_code_credits"}
    assert november.used_before(NOW.date()).events == 0


def test_wrong_sums_are_reported_and_made_again(project, clock):
    book(usage_event(project, at=NOW), usage_event(project, at=NOW - timedelta(days=30)))
    clock.now += timedelta(hours=1)
    tasks.sum_usage()
    assert list(sum_differences()) == []
    UsageSum.objects.filter(kind="user", since=OCTOBER).update(credits_micro=1)
    assert list(sum_differences()) == ["the sums by user since 2026-10-01 differ from the ledger"]

    call_command("rebuild_quota", stdout=io.StringIO())

    assert list(sum_differences()) == []
    assert overall_usage(OCTOBER, 5).users.top[0].used.credits_micro == 12 * CREDIT
