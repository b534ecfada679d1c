"""Ledger rows that give back what events cost. The caller must have locked the accounts.

If an event of a refunded run arrives later, it is booked and given back in one transaction. So it
doesn't matter when an event of the run arrives.
"""

from collections import defaultdict
from collections.abc import Iterable, Sequence
from datetime import datetime
from decimal import Decimal
from uuid import UUID, uuid5

from django.db.models import Q

from billing import audit, metrics
from billing.credits import exact_sum
from billing.ingestion.corrections import Booked
from billing.ingestion.ledger_rows import LedgerRow
from billing.models import Account, AttemptRefund, AuditEntry, RunRefund, UsageEvent

RefundOfRun = RunRefund | AttemptRefund


def refund_row(event: Booked, adjustments: Sequence[Booked], now: datetime) -> LedgerRow | None:
    """Return the row that gives back what an event costs after its corrections and refunds.

    The row is dated to when the event occurred. Return None if the event costs nothing.
    """
    costs = [event, *adjustments]
    credits_micro = sum(row.credits_micro for row in costs)
    if event.account_id is None or credits_micro <= 0:
        return None
    return LedgerRow(
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


def refund_rows_of_run(refund: RefundOfRun, now: datetime) -> list[LedgerRow]:
    """Return rows that give back what the run, or the attempt at it, has cost."""
    events = UsageEvent.objects.filter(
        task_run_id=refund.task_run_id, project=refund.project_id, adjusts=None
    ).order_by()
    if isinstance(refund, AttemptRefund):
        events = events.filter(occurred_at__gte=refund.since, occurred_at__lt=refund.until)
    return _refunds(events.values_list("uuid", flat=True), [], now)


def refund_rows_of_late(
    arriving: Sequence[LedgerRow], accounts: Sequence[Account], now: datetime
) -> list[LedgerRow]:
    """Return rows that give back the cost of arriving rows whose run is already refunded.

    This also records them in the audit trail and in the metrics.
    """
    costs = [row for row in arriving if row.kind != UsageEvent.Kind.REFUND]
    run_ids = {row.task_run_id for row in costs if row.task_run_id}
    if not run_ids:
        return []
    refunds: list[LedgerRow] = []
    whole = list(RunRefund.objects.filter(pk__in=run_ids))
    in_part = AttemptRefund.objects.filter(task_run_id__in=run_ids).exclude(
        task_run_id__in=[refund.pk for refund in whole]
    )
    made: list[RefundOfRun] = [*whole, *in_part.order_by("since")]
    for refund in made:
        late = [row for row in costs if _covers(refund, row)]
        given_back = _refunds({row.adjusts or row.uuid for row in late}, late, now)
        _record(refund, given_back, accounts)
        refunds += given_back
    return refunds


def _covers(refund: RefundOfRun, row: LedgerRow) -> bool:
    if (row.task_run_id, row.project_id) != (refund.task_run_id, refund.project_id):
        return False
    return isinstance(refund, RunRefund) or refund.since <= row.occurred_at < refund.until


def _refunds(
    uuids: Iterable[UUID], arriving: Sequence[LedgerRow], now: datetime
) -> list[LedgerRow]:
    """Return the refunds of these events. Their cost is in the ledger and in the arriving rows."""
    wanted = set(uuids)
    rows: dict[UUID, list[Booked]] = defaultdict(list)
    booked = UsageEvent.objects.filter(Q(pk__in=wanted) | Q(adjusts__in=wanted))
    everything: list[Booked] = [*booked.order_by(), *arriving]
    for row in everything:
        rows[row.adjusts or row.uuid].append(row)
    found = (_refund(uuid, rows[uuid], now) for uuid in sorted(wanted))
    return [refund for refund in found if refund is not None]


def _refund(uuid: UUID, rows: Sequence[Booked], now: datetime) -> LedgerRow | None:
    [event] = [row for row in rows if row.uuid == uuid]
    return refund_row(event, [row for row in rows if row.uuid != uuid], now)


def _record(refund: RefundOfRun, rows: Iterable[LedgerRow], accounts: Iterable[Account]) -> None:
    organizations = {account.pk: account.organization for account in accounts}
    for row in rows:
        metrics.REFUNDED_MICRO.labels(refund.reason).inc(-row.credits_micro)
        audit.record(
            AuditEntry.Action.EVENT_REFUNDED,
            organizations[row.account_id] if row.account_id else None,
            actor=refund.actor,
            reason=refund.reason,
            run=str(refund.task_run_id),
            event=str(row.adjusts),
            credits_micro=-row.credits_micro,
        )
