"""Decide about events that could not be booked: book them after all, or discard them.

Until then they are in neither the usage nor the gateway group's bookings, so the group counts them
as spent. Discarding an event gives the group back what it debited, with a ledger row of zero
credits.
"""

from collections.abc import Mapping
from datetime import datetime
from decimal import Decimal
from typing import Any
from uuid import UUID, uuid5

from django.db import transaction
from django.utils import timezone

from billing import audit
from billing.account_locks import ensure_accounts, lock_accounts
from billing.credits import exact_sum
from billing.ingestion import events
from billing.ingestion.batches import parse_stored
from billing.ingestion.corrections import attach_to_event, booked_events
from billing.ingestion.events import Event, QuarantineReason, UnbookableEvent
from billing.ingestion.ledger import book_rows
from billing.ingestion.ledger_rows import LedgerRow, ledger_row
from billing.ingestion.payer import account_key
from billing.models import Account, AuditEntry, QuarantinedEvent, UsageEvent
from projects.models import Organization, Project
from quota.resources import RESOURCES

_NAMESPACE = UUID("5d1dc5a6-61c7-4e19-9a52-3a7a6f0b3a0e")


class AlreadyDecided(Exception):
    """The event was already booked or discarded."""


def book_now(
    quarantined: QuarantinedEvent,
    *,
    project: Project | None = None,
    actor: str = "",
    reason: str = "",
) -> UsageEvent:
    """Book an event as it arrived, or on the given project, and return its ledger row.

    An event that conflicts with a booked one corrects it: the difference is booked as a row that is
    linked to it. Raises `UnbookableEvent` if the event still can't be booked, and `AlreadyDecided`
    if it was booked or discarded meanwhile.
    """
    with transaction.atomic():
        item = _item(quarantined, project)
        event = events.read(item, timezone.now())
        debited = _account_debited(quarantined) if _lost_its_debit(item, quarantined) else None
        accounts, account = _lock_accounts(event, debited)
        quarantined = _lock_open(quarantined)
        now = timezone.now()
        row = ledger_row(event, account, quarantined.payload_sha256, now)
        if event.adjusts:
            row = attach_to_event(row, booked_events([event.adjusts]))
        original = UsageEvent.objects.filter(pk=event.uuid).first()
        if original is not None and original.payload_sha256 != row.payload_sha256:
            row = _correction(row, original, quarantined)
            original = None
        if original is None:
            own = uuid5(_NAMESPACE, f"{quarantined.payload_sha256} debit")
            given_back = [_discarded(quarantined, debited, own, now)] if debited else []
            book_rows([row, *given_back], accounts, now)
        booked_on = Project.objects.select_related("organization").get(pk=event.project_id)
        _close(
            quarantined,
            QuarantinedEvent.State.BOOKED,
            AuditEntry.Action.EVENT_BOOKED,
            booked_on.organization,
            actor=actor,
            reason=reason,
            now=now,
        )
    return UsageEvent.objects.get(pk=row.uuid)


def discard(quarantined: QuarantinedEvent, *, actor: str = "", reason: str = "") -> None:
    """Discard an event, so that nobody pays for it. Raises `AlreadyDecided`."""
    with transaction.atomic():
        account = _account_debited(quarantined)
        locked = lock_accounts([account.pk]) if account else []
        quarantined = _lock_open(quarantined)
        if _is_booked(quarantined):
            raise AlreadyDecided("it is already booked; refund it if nobody should pay")
        now = timezone.now()
        if account is not None:
            uuid = events.claimed_uuid(parsed(quarantined))
            if uuid is None or UsageEvent.objects.filter(pk=uuid).exists():
                uuid = uuid5(_NAMESPACE, quarantined.payload_sha256)
            book_rows([_discarded(quarantined, account, uuid, now)], locked, now)
        _close(
            quarantined,
            QuarantinedEvent.State.DISCARDED,
            AuditEntry.Action.EVENT_DISCARDED,
            account.organization if account else None,
            actor=actor,
            reason=reason,
            now=now,
        )


def _lock_open(quarantined: QuarantinedEvent) -> QuarantinedEvent:
    """Lock the event. Call this after locking the accounts, the order that booking uses."""
    found = QuarantinedEvent.objects.select_for_update().get(pk=quarantined.pk)
    if found.state != QuarantinedEvent.State.OPEN:
        raise AlreadyDecided(f"it is already {found.state}")
    return found


def _is_booked(quarantined: QuarantinedEvent) -> bool:
    """Return whether another process booked the event while it was being quarantined."""
    uuid = events.claimed_uuid(parsed(quarantined))
    if uuid is None:
        return False
    return UsageEvent.objects.filter(pk=uuid, payload_sha256=quarantined.payload_sha256).exists()


def parsed(quarantined: QuarantinedEvent) -> Any:
    """Return the payload of an event, None if it is nested too deeply."""
    return parse_stored(quarantined.payload)


def _item(quarantined: QuarantinedEvent, project: Project | None) -> Any:
    """Return the item as it arrived, with a uuid and the project that was chosen for it.

    If that project belongs to another organization, the account, group and debit are removed.
    Returns None if the item is not an object, so that it can't be booked.
    """
    item = parsed(quarantined)
    if not isinstance(item, dict):
        return None
    if events.claimed_uuid(item) is None:
        item["uuid"] = str(uuid5(_NAMESPACE, quarantined.payload_sha256))
        item.pop("hold_id", None)
    if project is not None and isinstance(item.get("properties"), dict):
        item["properties"]["project_id"] = project.pk
        item["properties"]["organization_id"] = str(project.organization_id)
        paying, _, _ = str(item.get("account") or "").partition(":")
        if paying and paying != str(project.organization_id):
            for name in ("account", "group", "debited_micro"):
                item.pop(name, None)
    return item


def _lost_its_debit(item: Any, quarantined: QuarantinedEvent) -> bool:
    return isinstance(item, dict) and "group" not in item and "group" in parsed(quarantined)


def _lock_accounts(event: Event, debited: Account | None) -> tuple[list[Account], Account | None]:
    project = Project.objects.filter(pk=event.project_id).values_list("pk", "organization_id")
    key = account_key(event, dict(project))
    also = {debited.pk} if debited else set()
    if key is None:
        return lock_accounts(also), None
    ensure_accounts([key[0]])
    account = Account.objects.get(organization=key[0], resource=key[1])
    accounts = lock_accounts({account.pk} | also)
    return accounts, next(locked for locked in accounts if locked.pk == account.pk)


def _correction(row: LedgerRow, original: UsageEvent, quarantined: QuarantinedEvent) -> LedgerRow:
    if (row.account_id, row.project_id) != (original.account_id, original.project_id):
        raise UnbookableEvent(
            QuarantineReason.CONFLICT,
            "its uuid is booked on another account or project; discard it",
        )
    return row._replace(
        uuid=uuid5(_NAMESPACE, quarantined.payload_sha256),
        kind=UsageEvent.Kind.CORRECTION,
        adjusts=original.uuid,
        occurred_at=original.occurred_at,
        distinct_id=original.distinct_id,
        task_run_id=original.task_run_id,
        product=original.product,
        credits_micro=row.credits_micro - original.credits_micro,
        cost_usd=format(exact_sum([Decimal(row.cost_usd), -Decimal(original.cost_usd)]), "f"),
    )


def debited_by(quarantined: QuarantinedEvent) -> tuple[UUID, str] | None:
    """Return the organization and bucket where a gateway group counts the event as spent."""
    item = parsed(quarantined)
    if not isinstance(item, Mapping) or not _debit(item):
        return None
    organization_id, _, resource = str(item.get("account", "")).partition(":")
    uuid = events.uuid_or_none(organization_id)
    if uuid is None or resource not in RESOURCES:
        return None
    return (uuid, resource) if Organization.objects.filter(pk=uuid).exists() else None


def _account_debited(quarantined: QuarantinedEvent) -> Account | None:
    debited = debited_by(quarantined)
    if debited is None:
        return None
    organization_id, resource = debited
    ensure_accounts([organization_id])
    return Account.objects.select_related("organization").get(
        organization_id=organization_id, resource=resource
    )


def _debit(item: Mapping[str, Any]) -> tuple[str, int] | None:
    group, debited = events.text(item.get("group"), 100), item.get("debited_micro")
    if not group or type(debited) is not int or abs(debited) > events.MAXIMUM_DEBIT_MICRO:
        return None
    return (group, debited) if debited else None


def _discarded(
    quarantined: QuarantinedEvent, account: Account, uuid: UUID, now: datetime
) -> LedgerRow:
    debit = _debit(parsed(quarantined))
    assert debit is not None, "an event without a debit needs no row when it is discarded"
    return LedgerRow(
        uuid=uuid,
        account_id=account.pk,
        project_id=None,
        kind=UsageEvent.Kind.DISCARDED,
        occurred_at=now,
        booked_at=now,
        credits_micro=0,
        cost_usd="0",
        billable=False,
        product="",
        payload_sha256=quarantined.payload_sha256,
        group=debit[0],
        debited_micro=debit[1],
    )


def _close(
    quarantined: QuarantinedEvent,
    state: QuarantinedEvent.State,
    action: AuditEntry.Action,
    organization: Organization | None,
    *,
    actor: str,
    reason: str,
    now: datetime,
) -> None:
    quarantined.state = state
    quarantined.resolved_at = now
    quarantined.resolved_by = actor[:200]
    quarantined.save(update_fields=["state", "resolved_at", "resolved_by"])
    audit.record(
        action,
        organization,
        actor=actor,
        reason=reason,
        quarantined=quarantined.pk,
        uuid=quarantined.event_uuid,
    )
