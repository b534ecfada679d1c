"""Corrections that arrived before their event, and wait in the quarantine until it arrives."""

from collections.abc import Sequence
from datetime import datetime
from uuid import UUID

from billing.ingestion import events
from billing.ingestion.batches import parse_stored
from billing.ingestion.corrections import attach_to_event
from billing.ingestion.events import QuarantineReason, UnbookableEvent
from billing.ingestion.ledger_rows import LedgerRow, ledger_row
from billing.ingestion.payer import account_key
from billing.models import Account, QuarantinedEvent, UsageEvent
from projects.models import Project

ITS_EVENT_ARRIVED = "its event arrived"
"""`resolved_by` of a correction that was booked when its event arrived."""


def take_waiting_corrections(
    arriving: Sequence[LedgerRow], accounts: Sequence[Account], now: datetime
) -> list[LedgerRow]:
    """Return the rows of the corrections that waited for one of the arriving rows.

    A correction that doesn't match its event stays quarantined, with the reason. The accounts must
    be locked. The corrections are locked until the transaction ends.
    """
    arrived = {row.uuid: row for row in arriving if row.adjusts is None}
    waiting = QuarantinedEvent.objects.select_for_update().filter(
        state=QuarantinedEvent.State.OPEN, awaits__in=arrived
    )
    taken: dict[UUID, LedgerRow] = {}
    for correction in waiting.order_by("pk"):
        correction.awaits = None
        try:
            row = attach_to_event(_row(correction, accounts, now), arrived)
            used = {row.uuid for row in arriving} | taken.keys()
            if row.uuid in used or UsageEvent.objects.filter(pk=row.uuid).exists():
                raise UnbookableEvent(
                    QuarantineReason.CONFLICT, "this uuid is booked with another payload"
                )
        except UnbookableEvent as error:
            correction.reason, correction.detail = error.reason, error.detail
        else:
            taken[row.uuid] = row
            correction.state = QuarantinedEvent.State.BOOKED
            correction.resolved_at, correction.resolved_by = now, ITS_EVENT_ARRIVED
        correction.save()
    return list(taken.values())


def _row(correction: QuarantinedEvent, accounts: Sequence[Account], now: datetime) -> LedgerRow:
    """Return the ledger row of a correction. Raises `UnbookableEvent`."""
    event = events.read(parse_stored(correction.payload), now)
    project = Project.objects.filter(pk=event.project_id).values_list("pk", "organization_id")
    key = account_key(event, dict(project))
    locked = {(account.organization_id, account.resource): account for account in accounts}
    if key is not None and key not in locked:
        raise UnbookableEvent(
            QuarantineReason.ACCOUNT_MISMATCH, "another account pays for the event that it corrects"
        )
    return ledger_row(event, locked[key] if key else None, correction.payload_sha256, now)
