"""Stop the work of a task: end its rows and revoke its tokens."""

from dataclasses import dataclass

from django.db import transaction

from coding_tasks import stopping
from coding_tasks.models import CodingTask, TaskRun
from workflows.models import ERASED, FollowUp, Mention


@dataclass(frozen=True)
class Stopped:
    """The task that was stopped, and whether a model may have been answering at that time."""

    task: CodingTask
    in_flight: bool


def stop_work(task: CodingTask, why: str) -> Stopped | None:
    """Stop a task that is working or waiting; return None if there is nothing to stop.

    The caller should then cancel its workflow, so that the worker learns of it at once.
    """
    waiting = FollowUp.objects.filter(workflow_id=task.workflow_id, state__in=FollowUp.WAITING)
    at_work = task.runs.filter(state__in=TaskRun.UNFINISHED).exists()
    if not at_work and not waiting.exists():
        return None
    in_flight = stopping.stop(task.pk, why)
    waiting.update(state=FollowUp.State.DROPPED, outcome=why[:200])
    return Stopped(task, in_flight)


def stop_if_mention_ended(task: CodingTask, mention: Mention, why: str) -> bool:
    """Stop a new task if its mention was stopped or erased meanwhile; return whether it was.

    An order to stop or an erasure that came just now may not have seen the task.
    """
    with transaction.atomic():  # the lock waits for an erasure that is not committed yet
        mention = Mention.objects.select_for_update().get(pk=mention.pk)
    if mention.state != Mention.State.STOPPED:
        return False
    stop_work(task, why)
    if mention.text == ERASED:
        task.runs.update(request=ERASED)
        CodingTask.objects.filter(pk=task.pk).update(title=ERASED)
    return True


def was_stopped(mention: Mention) -> bool:
    """Return whether the mention was stopped while its workflow was running."""
    return Mention.objects.filter(pk=mention.pk, state=Mention.State.STOPPED).exists()
