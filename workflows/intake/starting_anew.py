"""Start an answered request anew on another repository, which its author chooses in a picker.

The message with the picker becomes a new mention, which is checked like any other. It takes up the
answered request. A unique column guarantees that a request is taken up only once.
"""

from django.db import IntegrityError, transaction
from django.utils import timezone

from coding_tasks import runs
from coding_tasks.models import CodingTask, TaskRun
from coding_tasks.publishing.claims import to_be_pushed
from coding_tasks.threads import lock_active_task
from workflows import notices, wording
from workflows.intake import replies
from workflows.messages import answers, edits, other_repository
from workflows.models import ERASED, FollowUp, Mention, Notice
from workflows.slack import picker


class CannotStart(Exception):
    """The request cannot be started anew. The text tells its author why."""


def offer_picker(run: TaskRun, user_id: str, clicked_at: str) -> None:
    """Handle a click on the button below an answer. Only the request's author gets the picker."""
    request = other_repository.request_of(run)
    if request is None:
        return
    if user_id != request.user_id:
        words = wording.picker_not_yours(user_id, owner_id=request.user_id)
        tell_alone(request, user_id, "not-yours", words)
    elif not _can_start(request):
        tell_alone(request, user_id, clicked_at, wording.started_anew_already(user_id))
    else:
        question = wording.other_repository_question(user_id)
        blocks = picker.blocks(
            request.pk, user_id, question=question, action_id=picker.START_ANEW_ACTION_ID
        )
        asked = notices.claim(_key(request), Notice.Kind.PICKER, request, question, blocks=blocks)
        notices.send_soon(asked)


def start(request: Mention, repository_id: int) -> Mention:
    """Return the new, undecided mention, for the caller to admit. Raises `CannotStart`.

    The task that answered the request ends, so that the thread is free.
    """
    asked = Notice.objects.filter(key=_key(request)).exclude(message_ts="").first()
    if asked is None:
        raise CannotStart(wording.picker_invalid(request.user_id))
    try:
        with transaction.atomic():
            _free_thread(request)
            if not _can_start(request):
                raise CannotStart(wording.started_anew_already(request.user_id))
            mention = Mention.objects.create(
                workspace_id=request.workspace_id,
                team_id=request.team_id,
                channel_id=request.channel_id,
                ts=asked.message_ts,
                thread_ts=request.thread_ts,
                user_id=request.user_id,
                text="",
                takes_up=request,
                chosen_repository=repository_id,
            )
    except IntegrityError:  # another click was first
        raise CannotStart(wording.started_anew_already(request.user_id)) from None
    mention.workspace, mention.takes_up = request.workspace, request
    return mention


def show_started(request: Mention, repository: str) -> None:
    """Replace the picker with what was chosen, and remove the button from the answer."""
    asked = Notice.objects.filter(key=_key(request)).first()
    if asked is not None:
        words = wording.started_anew(request.user_id, repository=repository)
        if edits.revise(asked, words):
            notices.send_soon(asked)
    answered = TaskRun.objects.filter(
        task__workflow_id=request.workflow_id, message_ts=request.ts
    ).select_related("task__repository")
    for run in answered:
        answer = Notice.objects.filter(key=notices.answer_key(run)).first()
        if answer is not None and answers.refresh(answer):
            notices.send_soon(answer)


def tell_alone(request: Mention, user_id: str, why: str, words: str) -> None:
    """Tell only this person something about starting a request anew, once for each `why`."""
    key = f"start-anew-{why}:{request.pk}:{user_id}"
    told = notices.claim(
        key, Notice.Kind.PICKER_REFUSAL, request, words, user_id=user_id, only_to_user=True
    )
    notices.send_soon(told)


def _key(request: Mention) -> str:
    return f"other-repository:{request.pk}"


def _can_start(request: Mention) -> bool:
    """Return whether the request was answered lately and not taken up since. Locks its row."""
    answered = Mention.objects.filter(
        pk=request.pk,
        state=Mention.State.ANSWERED,
        received_at__gt=timezone.now() - replies.TAKEN_UP_WITHIN,
    ).exclude(text=ERASED)
    with transaction.atomic():
        if not answered.select_for_update().exists():
            return False
    return not Mention.objects.filter(takes_up=request).exists()


def _free_thread(request: Mention) -> None:
    """End the task that answered the request. Raises `CannotStart` if the thread has other work."""
    task = lock_active_task(request.workspace, request.channel_id, request.thread_ts)
    if task is None:
        return
    if task.workflow_id != request.workflow_id or _has_work(task):
        raise CannotStart(wording.thread_is_busy(request.user_id))
    runs.finish_task(task, CodingTask.State.DONE)


def _has_work(task: CodingTask) -> bool:
    waiting = FollowUp.objects.filter(workflow_id=task.workflow_id, state__in=FollowUp.WAITING)
    at_work = task.runs.filter(state__in=TaskRun.UNFINISHED)
    return at_work.exists() or waiting.exists() or to_be_pushed(task).exists()
