"""Work that waits, counted in the database for Prometheus and `manage.py doctor`.

A process can count only what it did itself. Work that no process does shows up as rows that stay.
"""

from dataclasses import dataclass
from datetime import datetime
from typing import Any

from django.db.models import Count, Min, Model, Q

from billing.models import QuarantinedEvent
from coding_tasks.models import CodingTask, TaskRun
from quota.models import QuotaState
from workflows.models import CreditRequest, FollowUp, Mention, Notice, ThreadReply


@dataclass(frozen=True)
class Queue:
    """Rows of one kind that a process or a person still has to handle."""

    name: str
    waiting: int
    oldest: datetime | None
    """When the oldest row began to wait, or None if no row waits."""

    def age(self, now: datetime) -> float:
        """Return how many seconds the oldest row has waited, or 0 if no row waits."""
        return 0.0 if self.oldest is None else max((now - self.oldest).total_seconds(), 0.0)


def queues(now: datetime) -> list[Queue]:
    """Return all queues. Each is counted with an index that holds only its rows.

    Raises `django.db.Error` if the database does not answer.
    """
    mentions, follow_ups = Q(state=Mention.State.RECEIVED), Q(state=FollowUp.State.RECEIVED)
    from_slack = Q(task__origin=CodingTask.Origin.SLACK)
    api_runs = Q(state=TaskRun.State.QUEUED, announced_at=None) & ~from_slack
    paused_runs = Q(state=TaskRun.State.PAUSED, woken_at=None)
    asked = Q(state__in=CreditRequest.WAITING)
    unsent = Q(state__in=Notice.UNSENT)
    quarantine = Q(state=QuarantinedEvent.State.OPEN, awaits=None)
    corrections = Q(state=QuarantinedEvent.State.OPEN, awaits__isnull=False)
    return [
        _queue("mentions", Mention, mentions, "received_at"),
        _queue("follow_ups", FollowUp, follow_ups, "received_at"),
        _queue("thread_replies", ThreadReply, Q(decided_at=None), "received_at"),
        _queue("api_runs", TaskRun, api_runs, "created_at"),
        _queue("paused_runs", TaskRun, paused_runs, "created_at"),
        _queue("credit_requests", CreditRequest, asked, "asked_at"),
        _queue("notices", Notice, unsent, "created_at"),
        _queue("decisions", QuotaState, Q(valid_until__lte=now), "valid_until"),
        _queue("quarantine", QuarantinedEvent, quarantine, "received_at"),
        _queue("corrections", QuarantinedEvent, corrections, "received_at"),
    ]


def accounts_by_state() -> dict[tuple[str, ...], int]:
    """Return how many accounts there are, by resource and published state."""
    rows = QuotaState.objects.order_by()
    counted: Any = rows.values_list("resource", "state").annotate(number=Count("pk"))
    return {(resource, state): number for resource, state, number in counted}


def _queue(name: str, model: type[Model], waiting: Q, since: str) -> Queue:
    rows = model._default_manager.filter(waiting).order_by()
    found = rows.aggregate(waiting=Count("pk"), oldest=Min(since))
    return Queue(name, found["waiting"], found["oldest"])
