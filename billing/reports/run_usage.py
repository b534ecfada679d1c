"""What task runs used, on which models."""

from collections.abc import Iterable
from dataclasses import dataclass
from uuid import UUID

from django.db.models import Count, Sum
from django.db.models.functions import Coalesce

from billing.models import UsageEvent


@dataclass(frozen=True, slots=True)
class ModelUsage:
    """What one run used of one model; `resource` None where nobody pays."""

    task_run_id: UUID
    product: str
    model: str
    resource: str | None
    generations: int
    input_tokens: int
    output_tokens: int
    cached_tokens: int
    credits_micro: int


def usage_by_model(task_run_ids: Iterable[UUID]) -> list[ModelUsage]:
    """Return what runs used, by product and model, the dearest first; straight from the ledger."""
    events = UsageEvent.objects.filter(task_run_id__in=list(task_run_ids)).order_by()
    rows = events.values_list("task_run_id", "product", "model", "account__resource").annotate(
        generations=Count("uuid"),
        input_tokens=Coalesce(Sum("input_tokens"), 0),
        output_tokens=Coalesce(Sum("output_tokens"), 0),
        cached_tokens=Coalesce(Sum("cache_read_input_tokens"), 0),
        micro=Sum("credits_micro"),
    )
    return [ModelUsage(*row) for row in rows.order_by("-micro", "product", "model")]
