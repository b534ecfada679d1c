"""The daily report equals the sums of the ledger, whenever and however often it is made."""

import csv
import json
from datetime import UTC, datetime, timedelta

import pytest
from django.core.management import CommandError, call_command
from django.db.models import Sum

from billing import tasks
from billing.ingestion import quarantine
from billing.models import DailyUsage, QuarantinedEvent, UsageEvent
from billing.reports.daily_usage import report_day
from tests.billing.world import CREDIT, book, held, usage_event

pytestmark = pytest.mark.django_db
NOON = datetime.now(UTC).replace(hour=12, minute=0, second=0, microsecond=0) - timedelta(days=2)


def row(**key):
    return DailyUsage.objects.get(**key)


def test_it_groups_by_day_project_product_model_and_user(project, stranger):
    book(
        usage_event(project, at=NOON),
        usage_event(project, "0.20", at=NOON),
        usage_event(project, at=NOON, distinct_id="slack:T1:U2"),
        usage_event(project, at=NOON, properties={"ai_product": "posthog_code"}),
        usage_event(project, at=NOON, properties={"$ai_billable": False}),
        usage_event(project, at=NOON, properties={"$ai_model": "claude-haiku-4-5"}),
        usage_event(project, at=NOON - timedelta(days=1)),
        usage_event(stranger, at=NOON),
    )

    assert report_day(NOON.date()) == 6

    usual = {"resource": "ai_credits", "model": "claude-sonnet-4-5", "distinct_id": "slack:T1:U1"}
    found = row(project=project, **usual)
    assert (found.events, found.credits_micro, found.input_tokens) == (2, 36 * CREDIT, 2400)
    assert found.organization == project.organization
    assert row(project=project, resource="").credits_micro == 0
    assert row(project=stranger).credits_micro == 12 * CREDIT


def test_a_repeated_report_is_the_same_and_includes_late_events(project):
    book(usage_event(project, at=NOON))
    report_day(NOON.date())
    report_day(NOON.date())
    assert row().events == 1

    book(usage_event(project, at=NOON), usage_event(project, at=NOON, distinct_id="late"))
    report_day(NOON.date())

    assert DailyUsage.objects.aggregate(events=Sum("events"))["events"] == 3


def test_beat_reports_every_day_with_new_bookings(project):
    book(*(usage_event(project, at=NOON - timedelta(days=days)) for days in (0, 3, 30)))

    tasks.report_usage()

    assert DailyUsage.objects.count() == 3
    sums = (
        DailyUsage.objects.aggregate(micro=Sum("credits_micro"))["micro"],
        UsageEvent.objects.aggregate(micro=Sum("credits_micro"))["micro"],
    )
    assert sums[0] == sums[1] == 36 * CREDIT


def test_a_discarded_event_is_in_no_report(project):

    book(held(usage_event(project, "NaN"), CREDIT))
    quarantine.discard(QuarantinedEvent.objects.get())

    assert report_day(datetime.now(UTC).date()) == 0


def test_it_can_be_exported_as_csv(project, tmp_path):
    book(usage_event(project, "0.000000013", at=NOON))
    path = tmp_path / "report.csv"
    until = NOON + timedelta(days=1)

    call_command(
        "usage_report",
        "--since",
        f"{NOON:%Y-%m-%d}",
        "--until",
        f"{until:%Y-%m-%d}",
        "--output",
        str(path),
    )

    [line] = csv.DictReader(path.read_text().splitlines())
    assert (line["day"], line["project_id"]) == (f"{NOON:%Y-%m-%d}", str(project.pk))
    assert (line["credits"], line["credits_micro"]) == ("0.000002", "2")
    assert json.loads(line["events"]) == 1


@pytest.mark.parametrize(
    "words",
    [("2026-11-02", "2026-11-01"), ("yesterday", "2026-11-01"), ("2020-01-01", "2026-01-01")],
)
def test_invalid_days_are_refused(db, words):
    with pytest.raises(CommandError):
        call_command("usage_report", "--since", words[0], "--until", words[1])


def test_a_count_beyond_any_call_breaks_no_report(project):
    huge = {"$ai_input_tokens": 2**63 - 1}
    book(usage_event(project, properties=huge), usage_event(project, properties=huge))

    report_day(datetime.now(UTC).date())

    assert DailyUsage.objects.get().input_tokens == 0
