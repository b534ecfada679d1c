"""Usage of runs, traces and projects, read from the ledger."""

from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from enum import StrEnum
from uuid import UUID

from django.db.models import Count, F, Q, QuerySet, Sum
from django.db.models.functions import TruncDate

from billing.models import Account, AttemptRefund, RunRefund, UsageEvent


def usage_of_run(task_run_id: UUID) -> int:
    """Return what a task run has used so far, in micro-credits."""
    return usage_of_task_runs([task_run_id]).get(task_run_id, 0)


def usage_of_task_runs(task_run_ids: Iterable[UUID]) -> dict[UUID, int]:
    """Return what each task run has used so far, in micro-credits. Omits runs without events."""
    events = UsageEvent.objects.filter(task_run_id__in=list(task_run_ids)).order_by()
    sums = events.values_list("task_run_id").annotate(micro=Sum("credits_micro"))
    return {run: micro for run, micro in sums if run is not None}


def given_back_to_task_runs(
    task_run_ids: Iterable[UUID], *, with_attempts: bool = False
) -> dict[UUID, int]:
    """Return what was given back to each refunded task run, in micro-credits.

    Omits runs that were not refunded or had cost nothing. With `with_attempts`, it includes runs
    even if only lost attempts were refunded.
    """
    asked = list(task_run_ids)
    runs = {*RunRefund.objects.filter(pk__in=asked).values_list("pk", flat=True)}
    if with_attempts:
        attempts = AttemptRefund.objects.filter(task_run_id__in=asked).order_by()
        runs |= {*attempts.values_list("task_run_id", flat=True)}
    refunds = UsageEvent.objects.filter(
        task_run_id__in=list(runs), kind=UsageEvent.Kind.REFUND
    ).order_by()
    sums = refunds.values_list("task_run_id").annotate(micro=Sum("credits_micro"))
    return {run: -micro for run, micro in sums if run is not None}


@dataclass(frozen=True, slots=True)
class RunCall:
    """A call of a model in a task run, and what it costs after corrections and refunds."""

    occurred_at: datetime
    model: str
    input_tokens: int
    """Includes cached tokens."""
    output_tokens: int
    credits_micro: int


def calls_of_task_runs(task_run_ids: Iterable[UUID]) -> dict[UUID, list[RunCall]]:
    """Return the calls of each task run, oldest first. Omits runs without events."""
    found = UsageEvent.objects.filter(task_run_id__in=list(task_run_ids)).order_by()
    events = list(
        found.only(
            "adjusts",
            "task_run_id",
            "occurred_at",
            "model",
            "input_tokens",
            "cache_read_input_tokens",
            "cache_creation_input_tokens",
            "output_tokens",
            "credits_micro",
        )
    )
    cost: Counter[UUID] = Counter()
    for event in events:
        cost[event.adjusts or event.uuid] += event.credits_micro
    calls: dict[UUID, list[RunCall]] = defaultdict(list)
    for event in sorted(events, key=lambda event: (event.occurred_at, event.uuid)):
        if event.adjusts is not None or event.task_run_id is None:
            continue
        sent = (
            event.input_tokens,
            event.cache_read_input_tokens,
            event.cache_creation_input_tokens,
        )
        calls[event.task_run_id].append(
            RunCall(
                event.occurred_at,
                event.model,
                sum(count or 0 for count in sent),
                event.output_tokens or 0,
                cost[event.uuid],
            )
        )
    return dict(calls)


def usage_of_traces(project_ids: Iterable[int], trace_ids: Iterable[str]) -> dict[str, int]:
    """Return what the projects used in each trace without a task run, in micro-credits.

    Callers choose trace ids, so other projects could use the same ones. Omits traces without such
    events.
    """
    sums = events_of_traces(project_ids, trace_ids).values_list("trace_id")
    return dict(sums.annotate(micro=Sum("credits_micro")))


def events_of_traces(project_ids: Iterable[int], trace_ids: Iterable[str]) -> QuerySet[UsageEvent]:
    """Return the events of the projects that belong to a trace and to no task run."""
    return UsageEvent.objects.filter(
        trace_id__in=list(trace_ids), task_run_id=None, project__in=list(project_ids)
    ).order_by()


class Grouping(StrEnum):
    """What usage can be grouped by."""

    DAY = "day"
    PRODUCT = "product"
    MODEL = "model"
    USER = "user"
    RUN = "run"


_COLUMNS: dict[Grouping, str] = {
    Grouping.PRODUCT: "product",
    Grouping.MODEL: "model",
    Grouping.USER: "distinct_id",
    Grouping.RUN: "task_run_id",
}

_SUMS = {
    "events": Count("uuid"),
    "credits_micro": Sum("credits_micro"),
    "input_tokens": Sum("input_tokens"),
    "output_tokens": Sum("output_tokens"),
    "cache_read_input_tokens": Sum("cache_read_input_tokens"),
    "cache_creation_input_tokens": Sum("cache_creation_input_tokens"),
}


@dataclass(frozen=True, slots=True)
class UsageGroup:
    """What one group used of one bucket. `resource` is None if nobody pays."""

    key: Mapping[str, str | None]
    resource: str | None
    events: int
    credits_micro: int
    tokens: Mapping[str, int]


def usage_of_project(
    project_id: int,
    organization_id: UUID,
    since: datetime,
    until: datetime,
    groupings: Sequence[Grouping],
    *,
    at_most: int,
) -> list[UsageGroup]:
    """Return a project's usage from `since` to before `until`, by bucket and `groupings`.

    Reads the ledger itself, so the sums are always exact. Days are in UTC. Returns at most
    `at_most` groups, sorted by their keys.
    """
    # Filter by account to use its index. Events that nobody pays for have no account.
    accounts = Account.objects.filter(organization=organization_id).values_list("pk", flat=True)
    events = UsageEvent.objects.filter(
        Q(account__in=list(accounts)) | Q(account=None),
        project=project_id,
        occurred_at__gte=since,
        occurred_at__lt=until,
    ).order_by()
    names = {f"key_{grouping}": _expression(grouping) for grouping in groupings}
    rows = events.annotate(**names).values("account__resource", *names).annotate(**_SUMS)
    return [
        UsageGroup(
            key={grouping: _text(row[f"key_{grouping}"]) for grouping in groupings},
            resource=row["account__resource"],
            events=row["events"],
            credits_micro=row["credits_micro"],
            tokens={name: row[name] or 0 for name in _SUMS if name.endswith("tokens")},
        )
        for row in rows.order_by(*names, "account__resource")[:at_most]
    ]


def _expression(grouping: Grouping) -> F | TruncDate:
    if grouping is Grouping.DAY:
        return TruncDate("occurred_at", tzinfo=UTC)
    return F(_COLUMNS[grouping])


def _text(value: object) -> str | None:
    return None if value is None else str(value)
