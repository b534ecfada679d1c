"""Match corrections with their events, and cut them to what the events still cost.

Accounts must be locked.
"""

from collections import defaultdict
from collections.abc import Collection, Iterable, Mapping, Sequence
from decimal import Decimal
from uuid import UUID

from django.db.models import Q

from billing import metrics
from billing.credits import exact_sum
from billing.ingestion.events import QuarantineReason, UnbookableEvent
from billing.ingestion.ledger_rows import LedgerRow
from billing.models import UsageEvent

Booked = UsageEvent | LedgerRow
"""A ledger row, in the database or about to be inserted."""

_CORRECTABLE = {UsageEvent.Kind.USAGE, UsageEvent.Kind.LATE}

_Corrected = tuple[int | None, UUID | None]
"""An account, and the event on it that is corrected."""


def booked_events(uuids: Collection[UUID]) -> dict[UUID, Booked]:
    """Return the events that are in the ledger, by uuid. Omits all others."""
    return dict(UsageEvent.objects.in_bulk(list(uuids))) if uuids else {}


def attach_to_event(row: LedgerRow, booked: Mapping[UUID, Booked]) -> LedgerRow:
    """Return a correction with the time, user, run and product of the event that it corrects.

    The correction's own values of these are ignored. Raises `UnbookableEvent` if the event is
    unknown, can't be corrected, or belongs to another account or project.
    """
    assert row.adjusts is not None, "the row is not a correction"
    event = booked.get(row.adjusts)
    if event is None:
        raise UnbookableEvent(
            QuarantineReason.CORRECTED_EVENT_UNKNOWN, f"event {row.adjusts} has not arrived yet"
        )
    if event.kind not in _CORRECTABLE:
        raise UnbookableEvent(
            QuarantineReason.CORRECTED_EVENT_INVALID, f"event {row.adjusts} is {event.kind}"
        )
    if row.account_id != event.account_id:
        raise UnbookableEvent(
            QuarantineReason.ACCOUNT_MISMATCH, "another account pays for the event that it corrects"
        )
    if row.project_id != event.project_id:
        raise UnbookableEvent(
            QuarantineReason.PROJECT_MISMATCH,
            "the event that it corrects belongs to another project",
        )
    if row.group and row.group != event.group:
        raise UnbookableEvent(
            QuarantineReason.GROUP_INVALID, "another group held the event that it corrects"
        )
    return row._replace(
        occurred_at=event.occurred_at,
        distinct_id=event.distinct_id,
        task_run_id=event.task_run_id,
        product=event.product,
        billable=event.billable,
    )


def cut_corrections(rows: Sequence[LedgerRow]) -> Sequence[LedgerRow]:
    """Return the rows, with each correction cut to what its event still costs.

    That is the event's own cost plus all its corrections and refunds, including earlier ones in
    `rows`.
    """
    corrected = {row.adjusts for row in rows if _corrects(row)}
    if not corrected:
        return rows
    remaining = _Remaining()
    remaining.add(UsageEvent.objects.filter(Q(pk__in=corrected) | Q(adjusts__in=corrected)))
    remaining.add(row for row in rows if row.uuid in corrected)
    return [remaining.cut(row) if _corrects(row) else row for row in rows]


class _Remaining:
    """What remains of each event's cost, and of what a group debited for it."""

    def __init__(self) -> None:
        self._micro: dict[_Corrected, int] = defaultdict(int)
        self._debited: dict[_Corrected, int] = defaultdict(int)
        self._costs: dict[_Corrected, list[Decimal]] = defaultdict(list)

    def add(self, rows: Iterable[Booked]) -> None:
        """Count booked rows."""
        for row in rows:
            event = (row.account_id, row.adjusts or row.uuid)
            self._micro[event] += row.credits_micro
            self._debited[event] += row.debited_micro
            self._costs[event].append(Decimal(row.cost_usd))

    def cut(self, row: LedgerRow) -> LedgerRow:
        """Return the correction, cut to what remains, and count it."""
        event = (row.account_id, row.adjusts)
        cost = max(Decimal(row.cost_usd), -exact_sum(self._costs[event]))
        within = row._replace(
            credits_micro=max(row.credits_micro, -self._micro[event]),
            debited_micro=max(row.debited_micro, -self._debited[event]),
            cost_usd=format(cost, "f"),
        )
        if within != row:
            metrics.CORRECTIONS_CUT.inc()
        self.add([within])
        return within


def _corrects(row: LedgerRow) -> bool:
    return row.kind == UsageEvent.Kind.CORRECTION
