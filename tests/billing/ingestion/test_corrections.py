"""A correction applies to one event of its own account, and gives back at most its cost."""

import threading
from concurrent.futures import ThreadPoolExecutor
from datetime import timedelta
from uuid import uuid4

import pytest
from django.db import connection
from django.utils import timezone

from billing.allowances.limits import set_limit
from billing.ingestion import quarantine, refunds
from billing.ingestion.events import UnbookableEvent
from billing.metrics import CORRECTIONS_CUT
from billing.models import QuarantinedEvent, UsageEvent
from billing.organizations import create_organization, create_project
from billing.verification.audit_faults import audit_trail_faults
from billing.verification.ledger_faults import ledger_faults
from quota.resources import AI_CREDITS
from tests.billing.world import CREDIT, book, held, published, usage_event, used

pytestmark = pytest.mark.django_db


def correction(of, cost, **envelope):
    """Return an event that corrects another one by an amount of dollars."""
    event = usage_event_like(of, cost)
    return event | {"hold_id": of["uuid"]} | envelope


def usage_event_like(event, cost):
    properties = event["properties"] | {"$ai_total_cost_usd": cost}
    return event | {"uuid": str(uuid4()), "properties": properties}


def outcomes(*items):
    return [(result.status, result.reason) for result in book(*items)]


class TestBounds:
    @pytest.mark.parametrize("cost", ["-500", "-1000000", "-1.0000000000000001"])
    def test_a_correction_gives_back_at_most_what_its_event_costs(self, project, cost):
        event = usage_event(project, "1")
        book(event)
        before = CORRECTIONS_CUT._value.get()

        assert outcomes(correction(event, cost)) == [("accepted", None)]

        assert used(project.organization) == 0
        assert UsageEvent.objects.get(kind="correction").cost_usd == "-1"
        assert CORRECTIONS_CUT._value.get() == before + 1

    def test_several_corrections_together_give_back_at_most_what_their_event_costs(self, project):
        event = usage_event(project, "1")
        book(event)

        for _ in range(3):
            book(correction(event, "-0.60"))

        assert used(project.organization) == 0
        amounts = UsageEvent.objects.filter(kind="correction").values_list("cost_usd", flat=True)
        assert sorted(amounts) == ["-0.40", "-0.60", "0.00"]
        assert list(ledger_faults()) == []

    def test_several_corrections_in_the_batch_of_their_event_are_cut_too(self, project):
        event = usage_event(project, "1")

        book(correction(event, "-0.60"), event, correction(event, "-0.60"))

        assert used(project.organization) == 0

    def test_what_a_correction_added_can_be_given_back(self, project):
        event = usage_event(project, "1")
        book(event, correction(event, "0.50"))

        book(correction(event, "-1.25"))

        assert used(project.organization) == 30 * CREDIT

    def test_a_group_gets_back_at_most_what_it_debited(self, project):
        event = held(usage_event(project, "1"), 120 * CREDIT)
        book(event)

        book(correction(event, "-500", debited_micro=-60_000 * CREDIT))

        assert published(project.organization).booked == {"gateway:epoch": 0}


class TestUnknownEvents:
    def test_a_correction_of_an_unknown_event_is_quarantined(self, project):
        event = usage_event(project, "1")

        assert outcomes(correction(event, "-500")) == [("quarantined", "corrected_event_unknown")]

        assert not UsageEvent.objects.exists()
        with pytest.raises(UnbookableEvent):
            quarantine.book_now(QuarantinedEvent.objects.get())

    def test_it_is_booked_when_its_event_arrives(self, project):
        set_limit(project.organization, AI_CREDITS, 100 * CREDIT)
        event = held(usage_event(project, "0.50"), 60 * CREDIT)
        late = correction(event, "-0.40", debited_micro=-48 * CREDIT)
        book(late)

        assert outcomes(event) == [("accepted", None)]

        state = published(project.organization)
        assert (state.usage_micro, state.booked) == (12 * CREDIT, {"gateway:epoch": 12 * CREDIT})
        kept = QuarantinedEvent.objects.get()
        assert (kept.state, kept.resolved_by) == ("booked", "its event arrived")
        assert outcomes(late) == [("duplicate", None)]
        assert [*ledger_faults(), *audit_trail_faults()] == []

    def test_it_is_booked_when_it_is_delivered_again_after_its_event(self, project):
        event = usage_event(project, "1")
        late = correction(event, "-0.50")

        assert outcomes(late, late) == [("quarantined", "corrected_event_unknown")] * 2
        assert outcomes(event, late, late) == [*[("accepted", None)] * 2, ("duplicate", None)]
        assert used(project.organization) == 60 * CREDIT

    def test_it_is_booked_when_its_event_is_booked_by_hand(self, project):
        event = usage_event(project, "1", properties={"project_id": None})
        late = correction(event, "-0.50")
        late["properties"] = late["properties"] | {"project_id": project.pk}
        book(event, late)
        kept = QuarantinedEvent.objects.get(event_uuid=event["uuid"])

        quarantine.book_now(kept, project=project)

        assert used(project.organization) == 60 * CREDIT
        assert not QuarantinedEvent.objects.filter(state="open").exists()

    def test_a_waiting_correction_gives_back_at_most_what_its_event_costs(self, project):
        event = usage_event(project, "1")
        book(correction(event, "-500"), correction(event, "-0.50"))

        book(event)

        assert used(project.organization) == 0

    def test_a_waiting_correction_of_another_accounts_event_stays_quarantined(
        self, project, stranger
    ):
        theirs = usage_event(stranger, "1")
        waiting = usage_event(project, "-1", hold_id=theirs["uuid"])
        book(waiting)

        book(theirs)

        assert used(stranger.organization) == 120 * CREDIT
        kept = QuarantinedEvent.objects.get()
        assert (kept.state, kept.reason, kept.awaits) == ("open", "account_mismatch", None)

    def test_one_of_two_waiting_corrections_with_the_same_uuid_is_booked(self, project):
        event = usage_event(project, "1")
        first = correction(event, "-0.10")
        book(first, first | {"distinct_id": "somebody else"})

        book(event)

        assert used(project.organization) == 108 * CREDIT
        assert QuarantinedEvent.objects.get(state="open").reason == "conflict"

    def test_a_correction_that_waits_for_a_discarded_event_stays_quarantined(self, project):
        event = held(usage_event(project, "NaN"), 12 * CREDIT)
        book(event, correction(event, "-0.10", debited_micro=-CREDIT))

        quarantine.discard(QuarantinedEvent.objects.get(event_uuid=event["uuid"]))

        assert QuarantinedEvent.objects.get(state="open").reason == "corrected_event_invalid"


class TestFieldsTakenFromTheEvent:
    def test_a_correction_takes_time_user_and_run_from_its_event(self, project):
        before = timezone.now() - timedelta(days=40)
        event = usage_event(project, "1", at=before)
        book(event)
        set_limit(project.organization, AI_CREDITS, 100 * CREDIT)
        elsewhere = correction(
            event, "-1", timestamp=timezone.now().isoformat(), distinct_id="somebody else"
        )
        elsewhere["properties"] |= {"task_run_id": str(uuid4()), "ai_product": "slack_app_routing"}

        book(elsewhere)

        row = UsageEvent.objects.get(kind="correction")
        original = UsageEvent.objects.get(pk=event["uuid"])
        for name in ("occurred_at", "distinct_id", "task_run_id", "product"):
            assert getattr(row, name) == getattr(original, name), name
        assert published(project.organization).usage_micro == 0

    def test_a_correction_by_another_project_is_quarantined(self, project):
        sibling = create_project(project.organization, "Sibling")
        event = usage_event(project, "1")
        book(event)

        theirs = usage_event(sibling, "-1", hold_id=event["uuid"])

        assert outcomes(theirs) == [("quarantined", "project_mismatch")]

    def test_a_correction_by_another_group_is_quarantined(self, project):
        event = held(usage_event(project, "1"), 120 * CREDIT)
        book(event)

        assert outcomes(correction(event, "-1", group="other:epoch")) == [
            ("quarantined", "group_invalid")
        ]

    def test_neither_corrections_nor_refunds_are_corrected(self, project):
        event = usage_event(project, "1")
        first = correction(event, "-0.10")
        book(event, first)
        refund = refunds.refund(UsageEvent.objects.get(pk=event["uuid"]))

        for uuid in (first["uuid"], str(refund.uuid)):
            again = correction(event, "1", hold_id=uuid)
            assert outcomes(again) == [("quarantined", "corrected_event_invalid")]


@pytest.mark.django_db(transaction=True)
def test_concurrent_corrections_give_back_at_most_what_their_event_costs():
    project = create_project(create_organization("Acme"), "Main")
    event = usage_event(project, "1")
    batches = [[correction(event, f"-0.{cost}")] for cost in (60, 55, 50, 45)] + [[event]]
    together = threading.Barrier(len(batches))

    def deliver(batch):
        try:
            together.wait(60)
            book(*batch)
        finally:
            connection.close()

    with ThreadPoolExecutor(len(batches)) as pool:
        list(pool.map(deliver, batches))

    assert used(project.organization) == 0
    assert not QuarantinedEvent.objects.filter(state="open").exists()
    assert UsageEvent.objects.filter(kind="correction").count() == 4
