"""A quarantined event is booked or discarded once, and then totals and bookings agree again."""

import uuid
from datetime import timedelta

import pytest
from django.utils import timezone

from billing.allowances.limits import set_limit
from billing.ingestion import quarantine, refunds
from billing.ingestion.events import MAXIMUM_DEBIT_MICRO, UnbookableEvent
from billing.ingestion.quarantine import AlreadyDecided
from billing.models import AuditEntry, QuarantinedEvent, UsageEvent
from billing.organizations import create_project
from projects.models import Organization, Project
from quota.resources import AI_CREDITS
from tests.billing.world import CREDIT, account_of, book, held, published, usage_event, used

pytestmark = pytest.mark.django_db


def set_aside(item):
    """Deliver an item that can't be booked, and return its quarantined event."""
    [result] = book(item)
    assert result.status in ("quarantined", "conflict")
    return QuarantinedEvent.objects.get()


def move_the_clock(monkeypatch, by):
    later = timezone.now() + by
    for module in ("ledger", "quarantine"):
        monkeypatch.setattr(f"billing.ingestion.{module}.timezone.now", lambda: later)


def test_an_event_without_project_is_booked_on_the_one_chosen_for_it(project):
    event = held(usage_event(project, properties={"project_id": None}), 12 * CREDIT)
    kept = set_aside(event)

    row = quarantine.book_now(kept, project=project, actor="ops", reason="found its project")

    assert (str(row.uuid), row.project, row.credits_micro) == (event["uuid"], project, 12 * CREDIT)
    assert (row.group, row.debited_micro) == ("gateway:epoch", 12 * CREDIT)
    assert row.latency_ms == 1250
    assert published(project.organization).usage_micro == 12 * CREDIT
    kept.refresh_from_db()
    assert (kept.state, kept.resolved_by) == ("booked", "ops")
    assert [result.status for result in book(event)] == ["duplicate"]
    entry = AuditEntry.objects.get(action="event_booked")
    assert (entry.organization, entry.reason) == (project.organization, "found its project")


def test_an_event_of_a_project_that_exists_by_now_is_booked_as_it_is(project):
    newest = create_project(project.organization, "Newest")
    kept = set_aside(usage_event(project, properties={"project_id": newest.pk + 1}))
    later = create_project(project.organization, "Later")
    assert later.pk == newest.pk + 1

    assert quarantine.book_now(kept).project == later


def test_an_event_that_still_cannot_be_booked_stays_quarantined(project):
    kept = set_aside(usage_event(project, "NaN"))

    with pytest.raises(UnbookableEvent):
        quarantine.book_now(kept)

    kept.refresh_from_db()
    assert kept.state == "open"
    assert not UsageEvent.objects.exists()


def test_an_event_without_uuid_gets_one_from_its_payload(project):
    kept = set_aside(usage_event(project) | {"uuid": None})

    row = quarantine.book_now(kept)

    assert row.payload_sha256 == kept.payload_sha256
    assert used(project.organization) == 12 * CREDIT


@pytest.mark.parametrize("decide", [quarantine.book_now, quarantine.discard])
def test_an_event_is_decided_once(project, decide):
    kept = set_aside(usage_event(project) | {"uuid": None})
    quarantine.book_now(kept)

    with pytest.raises(AlreadyDecided):
        decide(kept)
    assert used(project.organization) == 12 * CREDIT


def test_a_conflict_that_is_booked_corrects_the_event_by_the_difference(project):
    set_limit(project.organization, AI_CREDITS, 100 * CREDIT)
    event = held(usage_event(project), 12 * CREDIT)
    book(event)
    kept = set_aside(held(usage_event(project, "0.15", uuid=event["uuid"]), 18 * CREDIT))

    row = quarantine.book_now(kept)

    assert (row.kind, str(row.adjusts)) == ("correction", event["uuid"])
    assert (row.credits_micro, row.cost_usd) == (6 * CREDIT, "0.05")
    state = published(project.organization)
    assert state.usage_micro == 18 * CREDIT
    # The group debited both payloads, so both debits count.
    assert state.booked == {"gateway:epoch": 30 * CREDIT}
    assert state.allotment_micro == 112 * CREDIT


def test_a_conflict_with_an_event_of_another_project_cannot_be_booked(project):
    sibling = create_project(project.organization, "Sibling")
    event = usage_event(project)
    book(event)
    kept = set_aside(usage_event(sibling, uuid=event["uuid"]))

    with pytest.raises(UnbookableEvent):
        quarantine.book_now(kept)


def test_discarding_gives_the_group_back_what_it_debited(project):
    set_limit(project.organization, AI_CREDITS, 100 * CREDIT)
    event = held(usage_event(project, "NaN"), 12 * CREDIT)
    kept = set_aside(event)

    quarantine.discard(kept, actor="ops", reason="a test call")

    state = published(project.organization)
    assert (state.usage_micro, state.remaining_micro) == (0, 100 * CREDIT)
    assert state.booked == {"gateway:epoch": 12 * CREDIT}
    assert state.allotment_micro == 112 * CREDIT
    row = UsageEvent.objects.get()
    assert (row.kind, row.credits_micro, row.project) == ("discarded", 0, None)
    assert not row.billable
    assert [result.status for result in book(event)] == ["duplicate"]


@pytest.mark.parametrize("conflicts", [True, False])
def test_a_discarded_event_whose_uuid_is_taken_or_invalid_gets_another(project, conflicts):
    event = held(usage_event(project), 12 * CREDIT)
    if conflicts:
        book(event)
    kept = set_aside({**event, "distinct_id": "ann", **({} if conflicts else {"uuid": "none"})})

    quarantine.discard(kept)

    row = UsageEvent.objects.get(kind="discarded")
    assert (row.debited_micro, row.payload_sha256) == (12 * CREDIT, kept.payload_sha256)
    assert str(row.uuid) != event["uuid"]


def test_an_event_without_a_valid_uuid_corrects_nothing(project):
    hold = str(uuid.uuid4())
    kept = set_aside(held(usage_event(project), 12 * CREDIT) | {"uuid": "none", "hold_id": hold})

    row = quarantine.book_now(kept)

    assert (row.kind, row.adjusts, row.credits_micro) == ("usage", None, 12 * CREDIT)


def test_an_event_that_nobody_pays_is_booked_on_no_account(project):
    unpaid = {"$ai_billable": False, "project_id": None}
    kept = set_aside(usage_event(project, properties=unpaid))

    row = quarantine.book_now(kept, project=project)

    assert (row.account, row.credits_micro) == (None, 0)


def test_an_organization_without_accounts_gets_them_when_an_event_is_booked_by_hand(project):
    imported = Project.objects.create(
        organization=Organization.objects.create(name="Imported"), name="Main"
    )
    kept = set_aside(usage_event(project, properties={"project_id": None}))

    quarantine.book_now(kept, project=imported)

    assert used(imported.organization) == 12 * CREDIT


def test_a_long_name_of_who_decided_is_cut(project):
    kept = set_aside(None)

    quarantine.discard(kept, actor="a" * 300)

    kept.refresh_from_db()
    assert kept.resolved_by == "a" * 200


@pytest.mark.parametrize("cost", ["0.10", "0"])
def test_a_discarded_event_stays_discarded_when_it_is_delivered_again(project, monkeypatch, cost):
    early = usage_event(project, cost, at=timezone.now() + timedelta(minutes=12))
    quarantine.discard(set_aside(early))

    move_the_clock(monkeypatch, timedelta(minutes=5))

    [again] = book(early)
    assert (again.status, again.reason) == ("duplicate", None)
    assert not UsageEvent.objects.exists()


def test_an_event_that_can_never_be_booked_is_a_duplicate_once_it_is_discarded(project):
    broken = usage_event(project, "NaN")
    quarantine.discard(set_aside(broken))

    [again] = book(broken)
    assert (again.status, again.reason) == ("duplicate", None)


def test_an_event_that_is_booked_when_delivered_again_needs_no_decision(project, monkeypatch):
    set_limit(project.organization, AI_CREDITS, 100 * CREDIT)
    early = usage_event(project, at=timezone.now() + timedelta(minutes=12))
    kept = set_aside(held(early, 12 * CREDIT))
    move_the_clock(monkeypatch, timedelta(minutes=5))

    assert [result.status for result in book(held(early, 12 * CREDIT))] == ["accepted"]

    kept.refresh_from_db()
    assert (kept.state, kept.resolved_by) == ("booked", "delivered again")
    for decide in (quarantine.book_now, quarantine.discard):
        with pytest.raises(AlreadyDecided):
            decide(kept)
    assert published(project.organization).booked == {"gateway:epoch": 12 * CREDIT}


def test_an_event_booked_by_another_process_meanwhile_is_debited_once(project, monkeypatch):
    """The other process did not see that this one was quarantining the event."""
    early = held(usage_event(project, at=timezone.now() + timedelta(minutes=12)), 12 * CREDIT)
    kept = set_aside(early)
    move_the_clock(monkeypatch, timedelta(minutes=5))
    book(early)
    QuarantinedEvent.objects.update(state="open")

    with pytest.raises(AlreadyDecided):
        quarantine.discard(kept)
    assert str(quarantine.book_now(kept).uuid) == early["uuid"]

    assert published(project.organization).booked == {"gateway:epoch": 12 * CREDIT}
    assert used(project.organization) == 12 * CREDIT
    kept.refresh_from_db()
    assert kept.state == "booked"


def test_an_event_booked_on_another_organization_gives_back_what_was_debited(project, stranger):
    """The gateway debited one account, but another one pays."""
    for each in (project, stranger):
        set_limit(each.organization, AI_CREDITS, 100 * CREDIT)
    event = held(usage_event(project, properties={"project_id": stranger.pk}), 12 * CREDIT)
    kept = set_aside(event)

    row = quarantine.book_now(kept, project=stranger)

    assert (str(row.uuid), row.project, row.group) == (event["uuid"], stranger, "")
    debited, paying = published(project.organization), published(stranger.organization)
    assert (debited.usage_micro, debited.booked) == (0, {"gateway:epoch": 12 * CREDIT})
    assert (paying.usage_micro, paying.booked) == (12 * CREDIT, {})
    assert [result.status for result in book(event)] == ["duplicate"]


def test_discarding_gives_back_to_an_organization_that_had_no_account_yet(db):
    organization = Organization.objects.create(name="Imported")
    project = Project.objects.create(organization=organization, name="Main")
    kept = set_aside(held(usage_event(project, "NaN"), 12 * CREDIT))

    quarantine.discard(kept, actor="ops")

    assert published(organization).booked == {"gateway:epoch": 12 * CREDIT}


@pytest.mark.parametrize(
    "account", [None, "nobody:ai_credits", f"{uuid.UUID(int=7)}:ai_credits", "{}:unknown", "{}"]
)
def test_a_debit_of_an_account_that_nobody_knows_is_not_given_back(project, account):
    event = held(usage_event(project, "NaN"), 12 * CREDIT)
    event["account"] = account and account.format(project.organization_id)
    kept = set_aside(event)

    quarantine.discard(kept, actor="ops")

    assert quarantine.debited_by(kept) is None
    assert not UsageEvent.objects.exists()


@pytest.mark.parametrize(
    ("debited", "given_back"),
    [
        (MAXIMUM_DEBIT_MICRO, MAXIMUM_DEBIT_MICRO),
        (-1, -1),
        (0, None),
        (MAXIMUM_DEBIT_MICRO + 1, None),
        ("5", None),
        (True, None),
    ],
)
def test_only_a_debit_that_could_be_booked_is_given_back(project, debited, given_back):
    kept = set_aside(held(usage_event(project, "NaN"), debited))

    quarantine.discard(kept)

    rows = UsageEvent.objects.values_list("debited_micro", flat=True)
    assert list(rows) == ([] if given_back is None else [given_back])


def test_a_group_with_a_long_name_gets_back_what_it_debited(project):
    event = held(usage_event(project), 12 * CREDIT)
    kept = set_aside(event | {"group": "g" * 150})

    quarantine.discard(kept)

    assert UsageEvent.objects.get().group == "g" * 100


@pytest.mark.parametrize("junk", [None, 7, {}, "text", [[]], {"group": "g", "debited_micro": 1}])
def test_junk_is_discarded_without_a_trace_in_the_ledger(project, junk):
    kept = set_aside(junk)

    quarantine.discard(kept)

    kept.refresh_from_db()
    assert kept.state == "discarded"
    assert not UsageEvent.objects.exists()


class TestRefunds:
    def test_a_refund_gives_back_the_cost_at_the_time_of_use(self, project):
        set_limit(project.organization, AI_CREDITS, 12 * CREDIT)
        event = usage_event(project)
        book(event)
        assert published(project.organization).limited

        row = refunds.refund(UsageEvent.objects.get(), actor="ops", reason="the model was wrong")

        assert (row.kind, str(row.adjusts)) == ("refund", event["uuid"])
        assert (row.credits_micro, row.cost_usd) == (-12 * CREDIT, "-0.10")
        assert row.occurred_at.isoformat() == event["timestamp"]
        assert not published(project.organization).limited
        assert AuditEntry.objects.get(action="event_refunded").reason == "the model was wrong"

    def test_a_corrected_event_is_refunded_at_its_corrected_cost(self, project):
        event = usage_event(project, "0.50")
        book(event, usage_event(project, "-0.40", hold_id=event["uuid"]))

        refunds.refund(UsageEvent.objects.get(pk=event["uuid"]))

        assert used(project.organization) == 0

    def test_nothing_is_refunded_twice(self, project):
        book(usage_event(project))
        event = UsageEvent.objects.get()
        refund = refunds.refund(event)

        for row in (event, refund):
            with pytest.raises(refunds.NotRefundable):
                refunds.refund(row)
        assert used(project.organization) == 0

    def test_a_correction_is_refunded_with_its_event_only(self, project):
        event = usage_event(project)
        correction = usage_event(project, "0.05", hold_id=event["uuid"])
        book(event, correction)

        with pytest.raises(refunds.NotRefundable):
            refunds.refund(UsageEvent.objects.get(pk=correction["uuid"]))
        assert used(project.organization) == 18 * CREDIT

    def test_an_event_corrected_upwards_after_a_refund_is_refunded_again(self, project):
        event = usage_event(project)
        book(event)
        refunds.refund(UsageEvent.objects.get())
        book(usage_event(project, "0.05", hold_id=event["uuid"]))
        assert used(project.organization) == 6 * CREDIT

        refunds.refund(UsageEvent.objects.get(pk=event["uuid"]))

        assert used(project.organization) == 0

    def test_a_correction_gives_back_nothing_that_a_refund_already_gave_back(self, project):
        event = usage_event(project)
        book(event)
        refunds.refund(UsageEvent.objects.get())
        by = [usage_event(project, cost, hold_id=event["uuid"]) for cost in ("-0.06", "0.05", "-1")]

        book(by[0])
        assert used(project.organization) == 0
        book(*by[1:])

        assert used(project.organization) == 0
        last = UsageEvent.objects.get(pk=by[2]["uuid"])
        assert (last.credits_micro, last.cost_usd) == (-6 * CREDIT, "-0.05")

    def test_an_event_that_nobody_paid_is_not_refunded(self, project):
        book(usage_event(project, properties={"$ai_billable": False}))

        with pytest.raises(refunds.NotRefundable):
            refunds.refund(UsageEvent.objects.get())

    def test_a_refund_of_a_closed_period_stays_there(self, project):
        book(usage_event(project, "0.01"))
        before = account_of(project.organization).period_start - timedelta(days=1)
        event = usage_event(project, at=before)
        book(event)

        refunds.refund(UsageEvent.objects.get(pk=event["uuid"]))

        assert published(project.organization).usage_micro == 1_200_000
        assert used(project.organization) == 1_200_000
