"""What is decided about an event before the database is asked."""

import uuid
from datetime import UTC, datetime

import pytest

from billing.ingestion import events
from billing.ingestion.events import UnbookableEvent
from billing.ingestion.ledger_rows import ledger_row
from billing.ingestion.refund_rows import refund_row
from billing.models import Account
from projects.models import Project
from quota.resources import AI_CREDITS
from tests.billing.world import usage_event

NOW = datetime(2026, 3, 15, 12, tzinfo=UTC)
PROJECT = Project(pk=1, organization_id=uuid.UUID(int=7))


def item(cost="0.10", at=NOW, properties=None, **envelope):
    return usage_event(PROJECT, cost, at=at, properties=properties, **envelope)


def row_of(event):
    account = Account(pk=1, resource=AI_CREDITS, period_start=datetime(2026, 3, 1, tzinfo=UTC))
    return ledger_row(events.read(event, NOW), account, "digest", NOW)


@pytest.mark.parametrize(("product", "bucket"), [("slack_app", AI_CREDITS), ("llm_gateway", None)])
def test_an_event_is_billable_by_its_product_unless_it_says_more(product, bucket):
    asked = item(properties={"ai_product": product})
    del asked["properties"]["$ai_billable"]
    event = events.read(asked, NOW)
    assert (event.bucket, event.billable) == (bucket, bucket is not None)


@pytest.mark.parametrize(
    ("envelope", "reason"),
    [
        ({"account": 7, "properties": {"$ai_billable": False}}, "account_mismatch"),
        ({"group": "gateway:epoch", "debited_micro": -1}, "debit_invalid"),
    ],
)
def test_an_invalid_account_or_debit_is_refused_whoever_pays(envelope, reason):
    with pytest.raises(UnbookableEvent) as raised:
        events.read(item(**envelope), NOW)
    assert raised.value.reason == reason


def test_an_event_at_the_first_instant_of_a_period_is_not_late():
    start = datetime(2026, 3, 1, tzinfo=UTC)
    assert row_of(item(at=start)).kind == "usage"
    assert row_of(item(at=start.replace(month=2))).kind == "late"


def test_a_single_micro_credit_is_refunded():
    row = row_of(item("0.00000001"))
    assert row.credits_micro == 1
    assert refund_row(row, [], NOW).credits_micro == -1
