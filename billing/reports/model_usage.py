"""Usage by model, for task runs and for traces outside any run."""

from collections.abc import Iterable
from dataclasses import dataclass
from uuid import UUID

from django.db.models import Count, QuerySet, Sum
from django.db.models.functions import Coalesce

from billing.models import UsageEvent
from billing.reports.usage import events_of_traces


@dataclass(frozen=True, slots=True)
class ModelUsage:
    """What one run, or one trace outside any run, used of one model.

    `resource` is None if nobody pays.
    """

    made_for: UUID | str
    product: str
    model: str
    resource: str | None
    generations: int
    input_tokens: int
    output_tokens: int
    cached_tokens: int
    credits_micro: int


def model_usage_of_runs(task_run_ids: Iterable[UUID]) -> list[ModelUsage]:
    """Return what runs used, by product and model, most expensive first. Reads the ledger."""
    events = UsageEvent.objects.filter(task_run_id__in=list(task_run_ids)).order_by()
    return _by_model(events, "task_run_id")


def model_usage_of_traces(project_ids: Iterable[int], trace_ids: Iterable[str]) -> list[ModelUsage]:
    """Return what the projects used in traces outside any run, in the same form."""
    return _by_model(events_of_traces(project_ids, trace_ids), "trace_id")


def _by_model(events: QuerySet[UsageEvent], made_for: str) -> list[ModelUsage]:
    rows = events.values_list(made_for, "product", "model", "account__resource").annotate(
        generations=Count("uuid"),
        input_tokens=Coalesce(Sum("input_tokens"), 0),
        output_tokens=Coalesce(Sum("output_tokens"), 0),
        cached_tokens=Coalesce(Sum("cache_read_input_tokens"), 0),
        micro=Sum("credits_micro"),
    )
    return [ModelUsage(*row) for row in rows.order_by("-micro", "product", "model")]
