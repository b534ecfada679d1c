"""Refunds: ledger rows that give back what an event cost."""

from decimal import Decimal
from uuid import uuid5

from django.db import transaction
from django.utils import timezone

from billing import audit
from billing.account_locks import lock_accounts
from billing.credits import exact_sum
from billing.ingestion.ledger import book_rows
from billing.ingestion.ledger_rows import LedgerRow
from billing.models import AuditEntry, UsageEvent


class NotRefundable(Exception):
    """The event costs nothing, was already refunded, or is itself a correction or refund."""


def refund(event: UsageEvent, *, actor: str = "", reason: str = "") -> UsageEvent:
    """Refund what an event costs after its corrections, dated to when the event occurred.

    Returns the refund's ledger row. Raises `NotRefundable`.
    """
    if event.account_id is None or event.adjusts is not None:
        raise NotRefundable(f"event {event.uuid} has nothing to refund")
    with transaction.atomic():
        accounts = lock_accounts([event.account_id])
        now = timezone.now()
        adjustments = UsageEvent.objects.filter(account=event.account_id, adjusts=event.uuid)
        costs = [event, *adjustments]
        credits_micro = sum(row.credits_micro for row in costs)
        if credits_micro <= 0:
            raise NotRefundable(f"event {event.uuid} has nothing to refund")
        row = LedgerRow(
            # An event that is corrected after a refund can be refunded again.
            uuid=uuid5(event.uuid, f"refund {len(costs)}"),
            account_id=event.account_id,
            project_id=event.project_id,
            kind=UsageEvent.Kind.REFUND,
            adjusts=event.uuid,
            occurred_at=event.occurred_at,
            booked_at=now,
            credits_micro=-credits_micro,
            cost_usd=format(-exact_sum(Decimal(row.cost_usd) for row in costs), "f"),
            billable=event.billable,
            product=event.product,
            model=event.model,
            provider=event.provider,
            distinct_id=event.distinct_id,
            task_run_id=event.task_run_id,
            price_version=event.price_version,
            payload_sha256=event.payload_sha256,
        )
        book_rows([row], accounts, now)
        audit.record(
            AuditEntry.Action.EVENT_REFUNDED,
            accounts[0].organization,
            actor=actor,
            reason=reason,
            event=str(event.uuid),
            credits_micro=credits_micro,
        )
    return UsageEvent.objects.get(pk=row.uuid)
