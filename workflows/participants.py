"""Participants of tasks: the message about joining, its buttons, and what they do.

Somebody else who mentions the bot in the thread of a task is told once whose task it is. With a
button on that message, the owner lets them join. Their refused requests are then decided again.
Both a decision and a refusal lock the task first, so no message is lost in between.
"""

from dataclasses import dataclass
from uuid import UUID

from django.conf import settings
from django.core import signing
from django.db import transaction
from django.utils import timezone

from coding_tasks.models import CodingTask, TaskParticipant
from coding_tasks.threads import lock_active_task
from projects.models import SlackWorkspace
from workflows import closing, notices, wording
from workflows.mention_types import ANOTHERS_TASK
from workflows.messages import edits
from workflows.models import ERASED, FollowUp, Mention, Notice
from workflows.requests import of_thread
from workflows.slack.block_kit import Block, button, buttons, section

LET_JOIN = "tollgate_let_join"
REMOVE = "tollgate_remove_participant"
_SIGNER = signing.Signer(salt="tollgate.participant")


@dataclass(frozen=True)
class Place:
    """A person and a task: what a button is about."""

    task_id: UUID
    user_id: str


@dataclass(frozen=True)
class _InThread:
    """A person in a task's thread, as notices address them."""

    workspace_id: int
    channel_id: str
    thread_ts: str
    user_id: str


def value_for(place: Place) -> str:
    """Return the value of the buttons about a place."""
    return _SIGNER.sign(f"{place.task_id.hex}|{place.user_id}")


def place_of(value: str) -> Place | None:
    """Return the place that a button is about, or None if we did not make it."""
    try:
        task_id, _, user_id = _SIGNER.unsign(value).partition("|")
        return Place(UUID(task_id), user_id)
    except (signing.BadSignature, ValueError):
        return None


def claim_not_your_task(about: Mention, task: CodingTask) -> Notice:
    """Return the notice that a task belongs to somebody else: one for each task and user."""
    place = Place(task.pk, about.user_id)
    text = wording.not_your_task(
        about.user_id, owner_id=task.owner_slack_user_id, bot_name=settings.BOT_NAME
    )
    blocks = _blocks(text, place, may_write=False)
    return notices.claim(_key(place), Notice.Kind.NOT_YOUR_TASK, about, text, blocks=blocks)


@transaction.atomic
def let_join(task: CodingTask, user_id: str, by: str, *, decider: str) -> list[Mention] | None:
    """Let a Slack user write to a task; return the mentions that were refused until now.

    They are undecided again, for the caller or a sweep to admit. Return None if the task has ended.
    `by` is recorded, and `decider` says in the thread who decided.
    """
    if not _lock(task):
        return None
    if task.accepts(user_id):
        return []
    TaskParticipant.objects.create(
        task=task, slack_user_id=user_id, added_by=by, added_at=timezone.now()
    )
    _show(task, user_id, wording.joined(user_id, by=decider), may_write=True)
    refused = of_thread(_person(task, user_id)).filter(
        user_id=user_id,
        state=Mention.State.REFUSED,
        outcome=ANOTHERS_TASK,
        received_at__gte=task.created_at,
    )
    kept = refused.exclude(text=ERASED).select_related("workspace__project")
    found = list(kept.defer("workspace__bot_token").order_by("received_at"))
    closing.hand_back(Mention.objects.filter(pk__in=[each.pk for each in found]))
    return found


@transaction.atomic
def remove(task: CodingTask, user_id: str, by: str, *, decider: str) -> bool:
    """Remove a participant from a task; return whether the Slack user was one.

    Messages that no run answers yet are dropped. A run that is at work goes on.
    """
    _lock(task)
    if not end_participation(task, user_id, by):
        return False
    waiting = FollowUp.objects.filter(workflow_id=task.workflow_id, user_id=user_id)
    for each in waiting.filter(state__in=FollowUp.WAITING):
        drop(each)
    _show(task, user_id, wording.joined_no_more(user_id, by=decider), may_write=False)
    return True


def end_participation(task: CodingTask, user_id: str, by: str) -> bool:
    """Record that a Slack user may no longer write to a task; return whether they could."""
    present = TaskParticipant.objects.filter(task=task, slack_user_id=user_id, removed_at=None)
    return bool(present.update(removed_at=timezone.now(), removed_by=by))


def drop(follow_up: FollowUp) -> None:
    """End a message that waits, because its author may no longer write to its task."""
    FollowUp.objects.filter(pk=follow_up.pk, state__in=FollowUp.WAITING).update(
        state=FollowUp.State.DROPPED, outcome="its author may no longer write to the task"
    )


def tell_alone(task: CodingTask, user_id: str, why: str, text: str) -> None:
    """Tell only this person something about a task, once for each reason `why`."""
    told = notices.claim(
        f"participant-{why}:{task.pk}:{user_id}",
        Notice.Kind.PICKER_REFUSAL,
        _person(task, user_id),
        text,
        only_to_user=True,
    )
    notices.send_soon(told)


def _lock(task: CodingTask) -> bool:
    """Lock the task; return whether it is active."""
    workspace = task.workspace
    if workspace is None:
        return False
    locked = lock_active_task(workspace, task.channel_id, task.thread_ts)
    return locked is not None and locked.pk == task.pk


def _show(task: CodingTask, user_id: str, text: str, *, may_write: bool) -> None:
    """Update the message about a person's place, and its button."""
    place = Place(task.pk, user_id)
    blocks = _blocks(text, place, may_write=may_write)
    about = _person(task, user_id)
    shown = notices.claim(_key(place), Notice.Kind.NOT_YOUR_TASK, about, text, blocks=blocks)
    edits.revise(shown, text, blocks)
    notices.send_soon(shown)


def _blocks(text: str, place: Place, *, may_write: bool) -> list[Block]:
    value = value_for(place)
    decide = (
        button(wording.remove_button(), REMOVE, value)
        if may_write
        else button(wording.join_button(), LET_JOIN, value)
    )
    return [section(text), buttons(decide)]


def _key(place: Place) -> str:
    return f"not-your-task:{place.task_id}:{place.user_id}"


def _person(task: CodingTask, user_id: str) -> _InThread:
    assert task.workspace_id is not None, "only tasks in threads have participants"
    return _InThread(task.workspace_id, task.channel_id, task.thread_ts, user_id)


def task_in(workspace: SlackWorkspace, place: Place) -> CodingTask | None:
    """Return the task of a place, if it belongs to the workspace."""
    found = CodingTask.objects.filter(pk=place.task_id, workspace=workspace)
    task = found.select_related("project").first()
    if task is not None:
        task.workspace = workspace
    return task
