"""Undo the change of an answer: the click, the sweep that does it, and what is said.

It costs no credits and calls no model. Only the owner of the task can undo its changes.
"""

from collections.abc import Iterable
from datetime import timedelta
from uuid import UUID

import structlog
from django.db.models import QuerySet
from django.utils import timezone

from coding_tasks.failures import CheckoutFailed, PublishingFailed
from coding_tasks.models import ChangeUndo, TaskRun
from coding_tasks.publishing import undoing
from coding_tasks.publishing.outcomes import UndoRefusal
from coding_tasks.turns.agent_runs import AgentRuns
from projects.hints import run_soon
from projects.models import SlackWorkspace
from workflows import notices, wording
from workflows.messages import answers, edits
from workflows.models import ERASED, Notice
from workflows.requests import message_of

log = structlog.get_logger(__name__)

UNDO_CHANGE = "workflows.tasks.undo_change"
GIVE_UP_AFTER = timedelta(hours=6)
"""How long an undo is repeated while its repository cannot be reached."""


def take_click(workspaces: Iterable[SlackWorkspace], run_id: UUID, user_id: str) -> None:
    """Handle a click on the button. Only the owner's click counts; others are told so once."""
    runs = TaskRun.objects.select_related("task")
    run = runs.filter(pk=run_id, task__workspace__in=list(workspaces)).first()
    if run is None:
        return
    owner = run.task.owner_slack_user_id
    if user_id != owner:
        words = wording.not_yours_to_undo(user_id, owner_id=owner)
        _tell_alone(run, f"not-yours-to-undo:{run.pk}:{user_id}", words, user_id)
        return
    asked = undoing.ask(run.pk, user_id)
    if isinstance(asked, UndoRefusal):
        words = wording.cannot_undo(user_id, asked)
        _tell_alone(run, f"cannot-undo:{run.pk}:{asked.name}", words, user_id)
        return
    if asked.state != ChangeUndo.State.WANTED:
        tell(asked)
    else:
        run_soon(UNDO_CHANGE, str(run.pk))


def open_undos() -> QuerySet[ChangeUndo]:
    """Return the undos that are still to be done, or to be reported in their threads."""
    return ChangeUndo.objects.filter(told_at=None).select_related("run__task__repository")


def finish(undo: ChangeUndo) -> None:
    """Undo the change, unless that is done, and tell the thread.

    If the repository or GitHub cannot be reached, the sweep tries again, until `GIVE_UP_AFTER`.
    """
    if undo.state == ChangeUndo.State.WANTED:
        is_last = undo.asked_at < timezone.now() - GIVE_UP_AFTER
        try:
            undoing.perform(AgentRuns.from_settings().mirrors, undo, last_attempt=is_last)
        except (PublishingFailed, CheckoutFailed) as failure:
            if not failure.permanent and not is_last:
                log.warning("a change is not undone yet", run=str(undo.run_id), error=str(failure))
                return
            undoing.give_up(undo, str(failure))
    tell(undo)


def tell(undo: ChangeUndo) -> None:
    """Tell the thread how the undo ended, and remove the button from the answer."""
    run = undo.run
    log.info("an undo has ended", run=str(run.pk), by=undo.asked_by, state=undo.state)
    text = wording.undone(undo.asked_by, undo.outcome)
    notices.send_soon(notices.claim(f"undone:{run.pk}", Notice.Kind.HINT, message_of(run), text))
    _take_buttons_away(run, undo)
    ChangeUndo.objects.filter(pk=undo.pk).update(told_at=timezone.now())


def _take_buttons_away(run: TaskRun, undo: ChangeUndo) -> None:
    answer = Notice.objects.filter(key=notices.answer_key(run)).exclude(text=ERASED).first()
    if answer is not None and answer.blocks and answers.fits_an_edit(answer):
        blocks = answers.blocks_of(run, answer.text, answer.cost_micro or 0)
        if edits.revise(answer, answer.text, blocks):
            notices.send_soon(answer)
    question = Notice.objects.filter(key=f"{notices.PUBLISH_KEY}{run.pk}").first()
    if question is not None and undo.state == ChangeUndo.State.DONE:
        edits.withdraw(question)
        notices.send_soon(question)


def _tell_alone(run: TaskRun, key: str, words: str, user_id: str) -> None:
    told = notices.claim(
        key, Notice.Kind.HINT, message_of(run), words, user_id=user_id, only_to_user=True
    )
    notices.send_soon(told)
