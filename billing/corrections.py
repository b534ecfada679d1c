"""Which event a correction may correct, and what of it once it was refunded."""

from collections import defaultdict
from collections.abc import Mapping, Sequence
from decimal import Decimal
from uuid import UUID

from django.db.models import Q

from billing.credits import exact_sum
from billing.ledger_rows import LedgerRow
from billing.models import UsageEvent

_Corrected = tuple[int | None, UUID | None]
"""The account and the event that is corrected on it."""


def misdirected(corrected: Mapping[UUID, int | None]) -> set[UUID]:
    """Return those of the events that are booked on another account than that of their correction.

    `corrected` maps an event to the account of what corrects it.
    """
    booked = UsageEvent.objects.filter(pk__in=list(corrected)) if corrected else ()
    return {event.uuid for event in booked if event.account_id != corrected[event.uuid]}


def bounded(rows: Sequence[LedgerRow]) -> Sequence[LedgerRow]:
    """Return the rows, none of which gives back what a refund of its event gave back before.

    Without a refund a correction may arrive before its event, so nothing can be said against it.
    """
    corrected = {row.adjusts for row in rows if _corrects(row)}
    if not corrected:
        return rows
    micro: dict[_Corrected, int] = defaultdict(int)
    costs: dict[_Corrected, list[Decimal]] = defaultdict(list)
    refunded = set()
    for booked in UsageEvent.objects.filter(Q(pk__in=corrected) | Q(adjusts__in=corrected)):
        event = (booked.account_id, booked.adjusts or booked.uuid)
        micro[event] += booked.credits_micro
        costs[event].append(Decimal(booked.cost_usd))
        if booked.kind == UsageEvent.Kind.REFUND:
            refunded.add(event)
    return [
        _bounded(row, micro, costs) if (row.account_id, row.adjusts) in refunded else row
        for row in rows
    ]


def _bounded(
    row: LedgerRow, micro: dict[_Corrected, int], costs: dict[_Corrected, list[Decimal]]
) -> LedgerRow:
    """Return the row with at most what its event still costs, and count it."""
    if not _corrects(row):
        return row
    event = (row.account_id, row.adjusts)
    credits_micro = max(row.credits_micro, -micro[event])
    cost = max(Decimal(row.cost_usd), -exact_sum(costs[event]))
    micro[event] += credits_micro
    costs[event].append(cost)
    return row._replace(credits_micro=credits_micro, cost_usd=format(cost, "f"))


def _corrects(row: LedgerRow) -> bool:
    return row.kind == UsageEvent.Kind.CORRECTION
