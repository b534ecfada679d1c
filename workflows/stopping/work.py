"""Stop the work of a task: end its rows and revoke its tokens."""

from dataclasses import dataclass

from coding_tasks import stopping
from coding_tasks.models import CodingTask, TaskRun
from coding_tasks.publishing.claims import to_be_pushed
from workflows.models import ERASED, FollowUp, Mention


class MentionStopped(Exception):
    """The mention was stopped or erased."""


@dataclass(frozen=True)
class Stopped:
    """The task that was stopped, and what may go on although it was stopped."""

    task: CodingTask
    in_flight: bool
    """Whether a model may be answering."""
    pushing: bool
    """Whether the push of its change had begun."""


def stop_work(task: CodingTask, why: str) -> Stopped | None:
    """Stop a task that is working or waiting; return None if there is nothing to stop.

    The caller should then cancel its workflow, so that the worker learns of it at once.
    """
    waiting = FollowUp.objects.filter(workflow_id=task.workflow_id, state__in=FollowUp.WAITING)
    at_work = task.runs.filter(state__in=TaskRun.UNFINISHED).exists()
    if not at_work and not waiting.exists() and not to_be_pushed(task).exists():
        return None
    in_flight = stopping.stop(task.pk, why)
    waiting.update(state=FollowUp.State.DROPPED, outcome=why[:200])
    pushing = to_be_pushed(task).exclude(push_began_at=None).exists()
    return Stopped(task, in_flight, pushing)


def was_stopped(mention: Mention) -> bool:
    """Return whether the mention was stopped or erased since its workflow was started."""
    return _is_stopped(Mention.objects.get(pk=mention.pk))


def require_not_stopped(mention: Mention) -> None:
    """Lock the mention, and raise `MentionStopped` if it was stopped or erased.

    Call this in the transaction that wrote the rows of its work, after they were written. An order
    to stop, or an erasure, then either waits for these rows or keeps them from being written.
    """
    if _is_stopped(Mention.objects.select_for_update().get(pk=mention.pk)):
        raise MentionStopped


def _is_stopped(mention: Mention) -> bool:
    return mention.state == Mention.State.STOPPED or mention.text == ERASED
