"""Runs that a project had, with what they cost in the ledger."""

import itertools
import uuid
from collections.abc import Iterable
from datetime import datetime, timedelta
from typing import Any

from django.utils import timezone

from billing.models import UsageEvent
from coding_tasks.models import CodingTask, Repository, TaskRun
from projects.models import SlackWorkspace
from quota.resources import MICRO

_numbers = itertools.count(1)


def past_run(
    workspace: SlackWorkspace,
    credits: float,
    *,
    agent: str = "reader",
    origin: str = "slack",
    ended: datetime | None = None,
    **fields: Any,
) -> TaskRun:
    """Return a finished run of the workspace's project, whose cost is booked in two events."""
    number = next(_numbers)
    project = workspace.project
    in_slack = origin == "slack"
    repository = Repository.objects.filter(project=project).first()
    task = CodingTask.objects.create(
        project=project,
        repository=repository
        or Repository.objects.create(project=project, full_name="a/b", clone_url="file:///a"),
        workspace=workspace if in_slack else None,
        origin=origin,
        channel_id="C9" if in_slack else "",
        thread_ts=f"9.{number:06d}" if in_slack else "",
        owner_slack_user_id="U9" if in_slack else "",
        title="earlier",
        workflow_id=f"earlier-{number}",
        agent=agent,
        state=CodingTask.State.DONE,
    )
    run = TaskRun.objects.create(
        task=task,
        message_ts=f"9.{number:06d}",
        request="x",
        finished_at=ended or timezone.now() - timedelta(hours=1),
        **({"state": TaskRun.State.SUCCEEDED} | fields),
    )
    micro = int(credits * MICRO)
    for part in (micro // 2, micro - micro // 2):
        UsageEvent.objects.create(
            uuid=uuid.uuid4(),
            project=project,
            task_run_id=run.pk,
            occurred_at=timezone.now(),
            booked_at=timezone.now(),
            credits_micro=part,
            cost_usd="0.1",
            billable=True,
            product="slack_app",
            payload_sha256="0" * 64,
        )
    return run


def past_runs(workspace: SlackWorkspace, credits: Iterable[float], **fields: Any) -> None:
    """Make a finished run for each cost, the oldest first."""
    for each in credits:
        past_run(workspace, each, **fields)
