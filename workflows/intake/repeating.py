"""Start failed or stopped work again, or continue stopped work, after a click on a button.

Each click becomes a mention of its own, which is checked like any other. Two unique columns
guarantee that a run and a request are each repeated at most once, by a click or by a reply.
"""

from collections.abc import Iterable
from dataclasses import dataclass
from uuid import UUID

from django.db import IntegrityError, transaction
from django.utils import timezone

from coding_tasks.models import TaskRun
from projects.models import SlackWorkspace
from workflows import notices, wording
from workflows.intake import mentions, replies
from workflows.messages import edits, run_buttons
from workflows.models import ERASED, FollowUp, Mention, Notice
from workflows.requests import message_of
from workflows.slack.block_kit import context, section

_REPEATED = (TaskRun.State.FAILED, TaskRun.State.STOPPED)


@dataclass(frozen=True)
class Click:
    """A click on a button that starts work again. `ts` is a time in Slack's format."""

    value: str
    user_id: str
    ts: str
    goes_on: bool


@dataclass(frozen=True)
class _Target:
    """What a button repeats: a message, and the run that answered it, if there was one."""

    message: Mention | FollowUp
    run: TaskRun | None


def take_click(workspaces: Iterable[SlackWorkspace], click: Click) -> None:
    """Start the work of a button again, for the person who asked for it.

    If somebody else clicks, or the work cannot start again, only the person who clicked is told.
    """
    target = _target_of(list(workspaces), click.value)
    if target is None:
        return
    message = target.message
    if click.user_id != message.user_id:
        words = wording.not_yours_to_repeat(click.user_id, owner_id=message.user_id)
        _tell_alone(message, f"not-yours-to-repeat:{message.pk}:{click.user_id}", words, click)
        return
    mention = _recorded(target, click)
    if mention is None:
        words = wording.repeated_already(click.user_id)
        _tell_alone(message, f"repeated-already:{message.pk}:{click.user_id}", words, click)
        return
    mentions.admit_or_keep(mention)
    _replace_buttons(message, click)


def _target_of(workspaces: list[SlackWorkspace], value: str) -> _Target | None:
    if run_id := run_buttons.run_of(value):
        runs = TaskRun.objects.select_related("task__workspace__project")
        run = runs.filter(pk=run_id, task__workspace__in=workspaces).first()
        return _Target(message_of(run), run) if run else None
    if mention_id := run_buttons.mention_of(value):
        found = Mention.objects.select_related("workspace__project")
        mention = found.filter(pk=mention_id, workspace__in=workspaces).first()
        return _Target(mention, None) if mention else None
    return None


def _recorded(target: _Target, click: Click) -> Mention | None:
    """Return the mention of a click, creating it if needed, or None if nothing can be repeated."""
    message = target.message
    where = {"workspace": message.workspace, "channel_id": message.channel_id, "ts": click.ts}
    if known := Mention.objects.filter(**where).first():  # the same click, delivered again
        return known
    request = message if isinstance(message, Mention) else None
    try:
        with transaction.atomic():
            if target.run is not None and not _can_be_repeated(target.run.pk, click.goes_on):
                return None
            if request is not None and not replies.can_be_repeated(request, target.run):
                return None
            repeats = {"repeats": target.run, "goes_on": click.goes_on}
            if request is not None and target.run is None:
                repeats = replies.taken_over(request)
            mention = Mention.objects.create(
                **where,
                team_id=message.workspace.team_id or message.workspace.enterprise_id,
                thread_ts=message.thread_ts,
                user_id=click.user_id,
                text="" if request else message.text,
                takes_up=request,
                is_click=True,
                **repeats,
            )
    except IntegrityError:  # another click or a reply was first
        return None
    mention.workspace = message.workspace
    return mention


def _can_be_repeated(run_id: UUID, goes_on: bool) -> bool:
    """Lock the run; return whether a click can start it again or, with `goes_on`, go on with it."""
    run = TaskRun.objects.select_for_update().get(pk=run_id)
    if run.request == ERASED or _is_too_old(run):
        return False
    return run.state == TaskRun.State.STOPPED if goes_on else run.state in _REPEATED


def _is_too_old(run: TaskRun) -> bool:
    return run.created_at < timezone.now() - replies.TAKEN_UP_WITHIN


def _tell_alone(message: Mention | FollowUp, key: str, words: str, click: Click) -> None:
    told = notices.claim(
        key, Notice.Kind.HINT, message, words, user_id=click.user_id, only_to_user=True
    )
    notices.send_soon(told)


def _replace_buttons(message: Mention | FollowUp, click: Click) -> None:
    """Replace the button in its message with a line that says who used it."""
    said = wording.went_on if click.goes_on else wording.started_again
    shown = Notice.objects.filter(
        workspace=message.workspace_id,
        channel_id=message.channel_id,
        thread_ts=message.thread_ts,
        kind__in=[Notice.Kind.FAILURE, Notice.Kind.STOP],
    )
    for notice in shown:
        if run_buttons.has_value(notice.blocks, click.value):
            blocks = [section(notice.text), context(said(click.user_id))]
            if edits.revise(notice, notice.text, blocks):
                notices.send_soon(notice)
