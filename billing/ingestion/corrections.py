"""Which event a correction may correct, and how much it may return. Accounts must be locked."""

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
"""A row of the ledger, or one that is about to be inserted."""

_CORRECTABLE = {UsageEvent.Kind.USAGE, UsageEvent.Kind.LATE}

_Corrected = tuple[int | None, UUID | None]
"""The account and the event that is corrected on it."""


def booked_events(uuids: Collection[UUID]) -> dict[UUID, Booked]:
    """Return the events that are in the ledger."""
    return dict(UsageEvent.objects.in_bulk(list(uuids))) if uuids else {}


def attach_to_event(row: LedgerRow, booked: Mapping[UUID, Booked]) -> LedgerRow:
    """Return a correction as a row of the event that it corrects.

    It counts at the time of that event, and for the same person and run, whatever it says itself.
    Raises `UnbookableEvent` if the event is unknown, belongs to somebody else or cannot be corrected.
    """
    assert row.adjusts is not None, "only a correction has an event that it corrects"
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
            QuarantineReason.ACCOUNT_MISMATCH, "another account pays what it corrects"
        )
    if row.project_id != event.project_id:
        raise UnbookableEvent(
            QuarantineReason.PROJECT_MISMATCH, "another project used what it corrects"
        )
    if row.group and row.group != event.group:
        raise UnbookableEvent(QuarantineReason.GROUP_INVALID, "another group held what it corrects")
    return row._replace(
        occurred_at=event.occurred_at,
        distinct_id=event.distinct_id,
        task_run_id=event.task_run_id,
        product=event.product,
        billable=event.billable,
    )


def cut_corrections(rows: Sequence[LedgerRow]) -> Sequence[LedgerRow]:
    """Return the rows, with no correction giving back more than its event still costs.

    That is the event's own cost with all its corrections and refunds, including those earlier in
    `rows`.
    """
    corrected = {row.adjusts for row in rows if _corrects(row)}
    if not corrected:
        return rows
    left = _Remaining()
    left.add(UsageEvent.objects.filter(Q(pk__in=corrected) | Q(adjusts__in=corrected)))
    left.add(row for row in rows if row.uuid in corrected)
    return [left.bound(row) if _corrects(row) else row for row in rows]


class _Remaining:
    """What is left of each event's cost, and of what a group debited for it."""

    def __init__(self) -> None:
        self._micro: dict[_Corrected, int] = defaultdict(int)
        self._debited: dict[_Corrected, int] = defaultdict(int)
        self._costs: dict[_Corrected, list[Decimal]] = defaultdict(list)

    def add(self, rows: Iterable[Booked]) -> None:
        """Count rows that are booked."""
        for row in rows:
            event = (row.account_id, row.adjusts or row.uuid)
            self._micro[event] += row.credits_micro
            self._debited[event] += row.debited_micro
            self._costs[event].append(Decimal(row.cost_usd))

    def bound(self, row: LedgerRow) -> LedgerRow:
        """Return the correction, cut to what is left, and count it."""
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
