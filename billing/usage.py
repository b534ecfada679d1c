"""What was used, read from the ledger."""

from collections.abc import Iterable
from uuid import UUID

from django.db.models import Sum

from billing.models import UsageEvent


def usage_of_run(task_run_id: UUID) -> int:
    """Return what a task run used so far, in micro-credits."""
    return usage_of_task_runs([task_run_id]).get(task_run_id, 0)


def usage_of_task_runs(task_run_ids: Iterable[UUID]) -> dict[UUID, int]:
    """Return what each task run used so far, in micro-credits; runs without events are left out."""
    events = UsageEvent.objects.filter(task_run_id__in=list(task_run_ids)).order_by()
    sums = events.values_list("task_run_id").annotate(micro=Sum("credits_micro"))
    return {run: micro for run, micro in sums if run is not None}
