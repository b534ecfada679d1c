"""A refunded run costs nothing, whatever is booked for it later, and is refunded only once."""

import threading
from concurrent.futures import ThreadPoolExecutor
from datetime import timedelta
from uuid import UUID, uuid4

import pytest
from django.db import connection
from django.utils import timezone

from billing.allowances.audited_rows import audit_value
from billing.allowances.caps import set_cap
from billing.allowances.limits import set_limit
from billing.ingestion import quarantine, refunds
from billing.ingestion.refunds import refund_attempt, refund_run
from billing.metrics import REFUNDED_MICRO, RUN_REFUNDS
from billing.models import (
    AttemptRefund,
    AuditEntry,
    QuarantinedEvent,
    RunRefund,
    UsageEvent,
)
from billing.organizations import create_organization, create_project
from billing.reports.daily_usage import report_what_was_booked
from billing.reports.usage import given_back_to_task_runs, usage_of_run
from billing.verification.audit_faults import audit_trail_faults
from billing.verification.ledger_faults import ledger_faults
from billing.verification.projections import differences
from billing.verification.rebuild import rebuild
from projects.models import Organization, Project
from quota.caps import in_force
from quota.models import SetMember
from quota.resources import AI_CREDITS
from tests.billing.world import CREDIT, account_of, book, held, published, usage_event, used

pytestmark = pytest.mark.django_db
RUN = UUID("c9c4e0b1-3f38-4d5d-9b6a-6a1c0f1f6b52")
"""The run of all events of `usage_event`."""


def refund(project, run=RUN):
    refund_run(run, project, reason="SandboxMissing", actor="coding tasks")


def faults(project):
    """Return all faults, and make sure that a rebuild changes nothing."""
    account = account_of(project.organization)
    before = used(project.organization)
    rebuild(account.pk)
    assert used(project.organization) == before
    return [*differences(account_of(project.organization)), *ledger_faults(), *audit_trail_faults()]


def correction(event, cost):
    properties = event["properties"] | {"$ai_total_cost_usd": cost}
    return event | {"uuid": str(uuid4()), "properties": properties, "hold_id": event["uuid"]}


def test_what_a_run_cost_is_given_back_in_the_periods_of_its_events(project):
    last_month = timezone.now() - timedelta(days=35)
    book(usage_event(project, "0.10"), usage_event(project, "0.20", at=last_month))

    refund(project)

    assert usage_of_run(RUN) == used(project.organization) == 0
    assert given_back_to_task_runs([RUN]) == {RUN: 36 * CREDIT}
    times = UsageEvent.objects.filter(kind="refund").values_list("occurred_at", flat=True)
    assert sorted(at.month for at in times) == sorted({last_month.month, timezone.now().month})
    assert faults(project) == []


def test_a_run_is_refunded_once_however_often_that_is_asked(project):
    book(usage_event(project), usage_event(project))
    before = RUN_REFUNDS.labels("SandboxMissing")._value.get()

    for _ in range(3):
        refund(project)

    assert UsageEvent.objects.filter(kind="refund").count() == 2
    assert RUN_REFUNDS.labels("SandboxMissing")._value.get() == before + 1
    [entry] = AuditEntry.objects.filter(action=AuditEntry.Action.RUN_REFUNDED)
    assert (entry.actor, entry.reason) == ("coding tasks", "SandboxMissing")
    assert entry.details["credits_micro"] == 24 * CREDIT


def test_events_that_arrive_after_the_refund_are_given_back_too(project):
    refund(project)
    event = held(usage_event(project), 12 * CREDIT)
    before = REFUNDED_MICRO.labels("SandboxMissing")._value.get()

    book(event)
    book(event)

    assert used(project.organization) == 0
    assert UsageEvent.objects.filter(kind="refund").count() == 1
    assert REFUNDED_MICRO.labels("SandboxMissing")._value.get() == before + 12 * CREDIT
    [entry] = AuditEntry.objects.filter(action=AuditEntry.Action.EVENT_REFUNDED)
    assert (entry.organization, entry.details["credits_micro"]) == (
        project.organization,
        12 * CREDIT,
    )
    assert faults(project) == []


def test_texts_of_a_refund_are_cut_to_their_columns(project):
    since = timezone.now()
    texts = {"reason": "r" * 300, "actor": "a" * 300}
    refund_attempt(RUN, project, since, since + timedelta(hours=1), **texts)
    refund_run(RUN, project, **texts)

    for made in (AttemptRefund.objects.get(), RunRefund.objects.get()):
        assert (made.reason, made.actor) == ("r" * 200, "a" * 200)


def test_accounts_are_made_before_a_refund_so_that_it_can_lock_them(db):
    organization = Organization.objects.create(name="Imported")
    refund(Project.objects.create(organization=organization, name="Main"))
    assert organization.accounts.count() == 2


def test_an_event_that_waits_in_the_quarantine_is_given_back_when_it_is_booked(project):
    event = usage_event(project, properties={"organization_id": "nobody"})
    book(event)
    refund(project)
    quarantined = QuarantinedEvent.objects.get()

    quarantine.book_now(quarantined, project=project)

    assert used(project.organization) == 0
    assert faults(project) == []


def test_a_correction_of_a_refunded_event_changes_nothing(project):
    event = usage_event(project, "1")
    book(event)
    refund(project)

    book(correction(event, "0.50"))
    book(correction(event, "-0.25"))

    assert usage_of_run(RUN) == used(project.organization) == 0
    assert faults(project) == []


def test_a_correction_that_waits_for_a_late_event_is_part_of_its_cost(project):
    event = usage_event(project, "1")
    refund(project)

    book(correction(event, "-0.25"))
    book(event)

    assert used(project.organization) == 0
    assert given_back_to_task_runs([RUN]) == {RUN: 90 * CREDIT}
    assert faults(project) == []


def test_what_a_person_refunded_before_is_not_given_back_again(project):
    event = usage_event(project, "1")
    book(event, usage_event(project, "2"))
    refunds.refund(UsageEvent.objects.get(pk=event["uuid"]), actor="ann")

    refund(project)

    assert used(project.organization) == 0
    assert given_back_to_task_runs([RUN]) == {RUN: 360 * CREDIT}
    assert faults(project) == []


def test_other_runs_and_the_same_run_of_another_project_keep_their_cost(project, stranger):
    other = usage_event(project, properties={"task_run_id": str(uuid4())})
    book(other, usage_event(stranger))

    refund(project)
    book(usage_event(stranger), usage_event(project))

    assert used(project.organization) == 12 * CREDIT
    assert used(stranger.organization) == 24 * CREDIT
    assert faults(project) == []


def test_a_team_that_is_no_longer_over_its_limit_may_go_on(project):
    set_limit(project.organization, AI_CREDITS, 12 * CREDIT)
    set_cap(project.organization, AI_CREDITS, "user", 12 * CREDIT)
    book(held(usage_event(project), 12 * CREDIT))
    assert published(project.organization).limited
    assert SetMember.objects.filter(token=project.api_token, limited_until__gt=0).exists()

    refund(project)

    state = published(project.organization)
    assert (state.limited, state.remaining_micro) == (False, 12 * CREDIT)
    assert not SetMember.objects.filter(token=project.api_token, limited_until__gt=0).exists()
    [cap] = in_force(state, project.pk, "slack:T1:U1")
    assert cap.usage_micro == 0
    assert faults(project) == []


def test_the_daily_report_shows_what_is_left(project):
    book(usage_event(project))
    report_what_was_booked()

    refund(project)
    report_what_was_booked()

    assert faults(project) == []


def test_a_refund_that_is_not_complete_is_reported(project):
    book(usage_event(project))
    assert faults(project) == []
    RunRefund.objects.create(task_run_id=RUN, project=project, reason="x", made_at=timezone.now())

    assert list(ledger_faults()) == [
        f"run {RUN} was refunded, but still costs 12000000 micro-credits"
    ]


def test_a_lost_attempt_is_given_back_once_and_the_others_keep_their_cost(project):
    until = timezone.now()
    since = until - timedelta(minutes=5)
    times = (since - timedelta(minutes=1), since, until)
    earlier, lost, repeated = (usage_event(project, "1", at=at) for at in times)
    late = usage_event(project, "1", at=until - timedelta(seconds=1))
    book(earlier, lost)

    for _ in range(2):
        refund_attempt(RUN, project, since, until, reason="LostTurn")
    book(late, repeated)
    book(correction(lost, "0.50"))

    assert used(project.organization) == usage_of_run(RUN) == 240 * CREDIT
    assert given_back_to_task_runs([RUN]) == {}
    assert given_back_to_task_runs([RUN], with_attempts=True) == {RUN: 300 * CREDIT}
    assert faults(project) == []
    entry = AuditEntry.objects.get(action="attempt_refunded")
    assert entry.details["span"] == [audit_value(since), audit_value(until)]


def test_a_run_that_fails_after_a_lost_attempt_costs_nothing(project):
    now = timezone.now()
    book(usage_event(project, at=now - timedelta(minutes=1)))
    for minutes in (2, 1):
        since = now - timedelta(minutes=minutes)
        refund_attempt(RUN, project, since, since + timedelta(minutes=1), reason="LostTurn")
    book(usage_event(project))

    refund(project)
    book(usage_event(project, at=now - timedelta(minutes=1)))

    assert used(project.organization) == 0
    assert faults(project) == []


def test_a_refund_of_an_attempt_that_is_not_complete_is_reported(project):
    now = timezone.now()
    book(usage_event(project, at=now - timedelta(seconds=1)))
    AttemptRefund.objects.create(
        task_run_id=RUN,
        project=project,
        since=now - timedelta(hours=1),
        until=now,
        reason="x",
        made_at=now,
    )

    assert list(ledger_faults()) == [
        f"refund of an attempt at run {RUN} was made, but it still costs 12000000 micro-credits"
    ]
    assert list(audit_trail_faults()) == [
        f"an attempt at run {RUN} was refunded, but not as the audit trail says"
    ]


@pytest.mark.django_db(transaction=True)
def test_events_that_arrive_while_the_run_is_refunded_are_given_back():
    project = create_project(create_organization("Acme"), "Main")
    works = [lambda: book(usage_event(project)) for _ in range(6)]
    works[3:3] = [lambda: refund(project)] * 2
    together = threading.Barrier(len(works))

    def perform(work):
        try:
            together.wait(60)
            work()
        finally:
            connection.close()

    with ThreadPoolExecutor(len(works)) as pool:
        list(pool.map(perform, works))

    assert UsageEvent.objects.filter(kind="refund").count() == 6
    assert used(project.organization) == 0
    assert faults(project) == []
