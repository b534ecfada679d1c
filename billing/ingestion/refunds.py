"""Refunds: give back what an event, a whole task run, or one attempt at a run cost."""

from collections.abc import Sequence
from datetime import datetime
from uuid import UUID

from django.db import transaction
from django.utils import timezone

from billing import audit, metrics
from billing.account_locks import ensure_accounts, lock_accounts
from billing.allowances.audited_rows import audit_value
from billing.ingestion.ledger import book_rows
from billing.ingestion.refund_rows import RefundOfRun, refund_row, refund_rows_of_run
from billing.models import Account, AttemptRefund, AuditEntry, RunRefund, UsageEvent
from projects.models import Project


class NotRefundable(Exception):
    """The event costs nothing, was already refunded, or is itself a correction or refund."""


def refund(event: UsageEvent, *, actor: str = "", reason: str = "") -> UsageEvent:
    """Refund what an event costs after its corrections, dated to when the event occurred.

    Returns the refund's ledger row. Raises `NotRefundable`.
    """
    if event.account_id is None or event.adjusts is not None:
        raise NotRefundable(f"event {event.uuid} has nothing to refund")
    with transaction.atomic():
        [account] = lock_accounts([event.account_id])
        now = timezone.now()
        adjustments = UsageEvent.objects.filter(account=event.account_id, adjusts=event.uuid)
        row = refund_row(event, list(adjustments), now)
        if row is None:
            raise NotRefundable(f"event {event.uuid} has nothing to refund")
        book_rows([row], [account], now)
        audit.record(
            AuditEntry.Action.EVENT_REFUNDED,
            account.organization,
            actor=actor,
            reason=reason,
            event=str(event.uuid),
            credits_micro=-row.credits_micro,
        )
    return UsageEvent.objects.get(pk=row.uuid)


@transaction.atomic
def refund_run(task_run_id: UUID, project: Project, *, reason: str, actor: str = "") -> None:
    """Give back what a run has cost, and everything that is booked for it later.

    Every event is given back in the period in which it occurred. A run is refunded once: calling
    this again does nothing. The caller must revoke the run's tokens in the same transaction,
    because calls with them cost nothing from now on.
    """
    accounts = _lock_accounts_of(task_run_id, project)
    # Every booking needs these locks, so read the clock and the ledger after taking them.
    now = timezone.now()
    made, is_new = RunRefund.objects.get_or_create(
        task_run_id=task_run_id,
        defaults={
            "project": project,
            "reason": reason[:200],
            "actor": actor[:200],
            "made_at": now,
        },
    )
    if is_new:
        _give_back(made, AuditEntry.Action.RUN_REFUNDED, accounts, now)


@transaction.atomic
def refund_attempt(
    task_run_id: UUID,
    project: Project,
    since: datetime,
    until: datetime,
    *,
    reason: str,
    actor: str = "",
) -> None:
    """Give back the cost of a run's calls that began from `since` to before `until`.

    That includes calls that are booked later. Calling this again for the same `since` does nothing.
    """
    accounts = _lock_accounts_of(task_run_id, project)
    now = timezone.now()
    made, is_new = AttemptRefund.objects.get_or_create(
        task_run_id=task_run_id,
        since=since,
        defaults={
            "project": project,
            "until": until,
            "reason": reason[:200],
            "actor": actor[:200],
            "made_at": now,
        },
    )
    if is_new:
        _give_back(made, AuditEntry.Action.ATTEMPT_REFUNDED, accounts, now)


def _lock_accounts_of(task_run_id: UUID, project: Project) -> list[Account]:
    """Lock and return the accounts of the project's organization, and those that paid for a run."""
    organization_id = project.organization_id
    ensure_accounts([organization_id])
    own = Account.objects.filter(organization=organization_id).values_list("pk", flat=True)
    events = UsageEvent.objects.filter(task_run_id=task_run_id).exclude(account=None).order_by()
    return lock_accounts({*own, *events.values_list("account_id", flat=True)})


def span_of(made: RefundOfRun) -> list[str] | None:
    """Return an attempt's start and end for the audit trail, None for a whole run."""
    if not isinstance(made, AttemptRefund):
        return None
    return [audit_value(made.since), audit_value(made.until)]


def _give_back(
    made: RefundOfRun, action: AuditEntry.Action, accounts: Sequence[Account], now: datetime
) -> None:
    rows = refund_rows_of_run(made, now)
    book_rows(rows, accounts, now)
    credits_micro = -sum(row.credits_micro for row in rows)
    metrics.RUN_REFUNDS.labels(made.reason).inc()
    metrics.REFUNDED_MICRO.labels(made.reason).inc(credits_micro)
    audit.record(
        action,
        made.project.organization,
        actor=made.actor,
        reason=made.reason,
        run=str(made.task_run_id),
        project=made.project_id,
        made_at=audit_value(made.made_at),
        span=span_of(made),
        credits_micro=credits_micro,
        events={str(row.adjusts): -row.credits_micro for row in rows},
    )
