"""Find ledger rows that contradict themselves, other rows or their project's payer. Read-only."""

from collections import defaultdict
from collections.abc import Iterator
from decimal import Decimal
from uuid import UUID

from django.db.models import Count, Sum

from billing.credits import credits_micro
from billing.models import AttemptRefund, RunRefund, UsageEvent

_LINKED = {UsageEvent.Kind.CORRECTION.value, UsageEvent.Kind.REFUND.value}
_SLICE = 500


def ledger_faults() -> Iterator[str]:
    """Yield a sentence for each row that can't be right, even if the totals agree."""
    yield from _duplicates()
    yield from _single_rows()
    yield from _adjustments()
    yield from _refunded_runs()
    yield from _refunded_attempts()


def _duplicates() -> Iterator[str]:
    rows = UsageEvent.objects.order_by().values("uuid")
    doubled = rows.annotate(times=Count("uuid")).filter(times__gt=1)
    for uuid in doubled.values_list("uuid", flat=True):
        yield f"event {uuid} is in the ledger more than once"


def _single_rows() -> Iterator[str]:
    rows = UsageEvent.objects.order_by().values_list(
        "uuid",
        "kind",
        "adjusts",
        "billable",
        "account__resource",
        "account__organization",
        "project__organization",
        "cost_usd",
        "credits_micro",
    )
    for uuid, kind, adjusts, billable, resource, payer, user, cost, micro in rows.iterator(
        chunk_size=5000
    ):
        if payer is not None and user is not None and payer != user:
            yield f"event {uuid}: a project of organization {user} used it, but {payer} pays"
        if kind not in UsageEvent.Kind.values:
            yield f"event {uuid} has an unknown kind: {kind}"
        if (kind in _LINKED) != (adjusts is not None):
            yield f"event {uuid} has kind {kind}, but is linked to {adjusts}"
        if kind == UsageEvent.Kind.DISCARDED:
            if micro or Decimal(cost) or billable:
                yield f"event {uuid} is discarded, but somebody pays for it"
            continue
        if billable != (resource is not None):
            yield f"event {uuid}: billable is {billable}, but the account that pays is {resource}"
        if adjusts is None and _price(cost, resource) != micro:
            wanted = _price(cost, resource)
            yield f"event {uuid}: {cost} dollars are {wanted} micro-credits, not {micro}"


def _adjustments() -> Iterator[str]:
    """Yield a sentence for each correction or refund that contradicts the event it is linked to.

    The price of a correction can be off by one micro-credit for each row. It can be cut to what its
    event still costs, which is computed from amounts that were rounded separately.
    """
    linked: dict[UUID, list[UsageEvent]] = defaultdict(list)
    for row in UsageEvent.objects.exclude(adjusts=None).select_related("account").order_by():
        if row.adjusts is not None:
            linked[row.adjusts].append(row)
    uuids = list(linked)
    for at in range(0, len(uuids), _SLICE):
        events = UsageEvent.objects.in_bulk(uuids[at : at + _SLICE])
        for uuid in uuids[at : at + _SLICE]:
            yield from _of_event(uuid, events.get(uuid), linked[uuid])


def _of_event(uuid: UUID, event: UsageEvent | None, rows: list[UsageEvent]) -> Iterator[str]:
    if event is not None and event.adjusts is not None:
        yield f"event {uuid} is adjusted, but is an adjustment itself"
    for row in rows:
        refunds = row.kind == UsageEvent.Kind.REFUND
        if event is None:
            does = "refunds" if refunds else "corrects"
            yield f"event {row.uuid} {does} {uuid}, which is not in the ledger"
        if event is not None and row.account_id != event.account_id:
            yield f"event {row.uuid} adjusts {uuid}, which another account pays for"
        if refunds and row.credits_micro > 0:
            yield f"event {row.uuid} is a refund that costs {row.credits_micro} micro-credits"
        price = _price(row.cost_usd, row.account.resource if row.account else None)
        if abs(price - row.credits_micro) > len(rows) + 1:
            yield (
                f"event {row.uuid}: {row.cost_usd} dollars are {price} micro-credits, "
                f"not {row.credits_micro}"
            )
    if event is not None:
        left = event.credits_micro + sum(
            row.credits_micro for row in rows if row.account_id == event.account_id
        )
        if left < 0:
            yield f"event {uuid}: its adjustments give back {-left} micro-credits more than it cost"


def _refunded_runs() -> Iterator[str]:
    """Yield a sentence for each refunded run that still costs something."""
    projects = dict(RunRefund.objects.values_list("task_run_id", "project_id"))
    runs = list(projects)
    for at in range(0, len(runs), _SLICE):
        rows = UsageEvent.objects.filter(task_run_id__in=runs[at : at + _SLICE]).order_by()
        sums = rows.values_list("task_run_id", "project_id").annotate(micro=Sum("credits_micro"))
        for run, project, micro in sums.filter(micro__gt=0):
            if run is not None and projects[run] == project:
                yield f"run {run} was refunded, but still costs {micro} micro-credits"


def _refunded_attempts() -> Iterator[str]:
    """Yield a sentence for each refunded attempt that still costs something."""
    for refund in AttemptRefund.objects.order_by("task_run_id", "since").iterator(_SLICE):
        rows = UsageEvent.objects.filter(
            task_run_id=refund.task_run_id,
            project=refund.project_id,
            occurred_at__gte=refund.since,
            occurred_at__lt=refund.until,
        ).order_by()
        micro = rows.aggregate(micro=Sum("credits_micro"))["micro"] or 0
        if micro > 0:
            yield f"{refund} was made, but it still costs {micro} micro-credits"


def _price(cost: str, resource: str | None) -> int:
    return credits_micro(Decimal(cost), resource) if resource else 0
