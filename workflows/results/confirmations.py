"""Changes that are pushed only if somebody agrees: the question, the click, and what follows.

A change that seems to contain secrets, or that touches very many files, is not pushed before the
task's owner agrees: with a button in Slack, or over the API. The button's value is signed, because
it comes back through the user's browser.
"""

import time
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import timedelta
from pathlib import Path

import structlog
from django.conf import settings
from django.db.models import QuerySet
from django.utils import timezone

from coding_tasks.failures import CheckoutFailed, PublishingFailed
from coding_tasks.models import CodingTask, RunChange, TaskRun
from coding_tasks.repositories.file_locks import locked
from coding_tasks.turns import agent_runs
from coding_tasks.turns.agent_runs import AgentRuns
from projects.hints import run_soon
from projects.models import SlackWorkspace
from workflows import notices, wording
from workflows.models import Notice
from workflows.requests import message_of
from workflows.results import diffs
from workflows.slack.block_kit import button, buttons, section
from workflows.slack.signed_ids import SignedIds

log = structlog.get_logger(__name__)

ACTION_ID = "tollgate_publish"
PUBLISH_CONFIRMED = "workflows.tasks.publish_confirmed"
GIVE_UP_AFTER = timedelta(hours=6)
"""How long after the agreement a repository that cannot be reached is still tried."""
_MOST_TEXT = 2_900  # Slack takes 3,000 characters in a section
_RUN = SignedIds("tollgate.publish")


def ask(run: TaskRun, reasons: tuple[str, ...]) -> Notice:
    """Return the notice that asks the task's owner whether the run's change is to be published."""
    owner = run.task.owner_slack_user_id
    text = wording.publish_question(owner, reasons)
    push = button(wording.publish_button(), ACTION_ID, _RUN.sign(run.pk), style="danger")
    # Each line has a section of its own, so that none is cut off because of the others.
    blocks = [*(section(line[:_MOST_TEXT]) for line in text.splitlines()), buttons(push)]
    return notices.claim(
        f"{notices.PUBLISH_KEY}{run.pk}", Notice.Kind.QUESTION, message_of(run), text, blocks=blocks
    )


def agree(workspace: SlackWorkspace, user_id: str, value: str) -> None:
    """Handle a click on the button. Only the owner's click counts; others are told so once."""
    run_id = _RUN.read(value)
    if run_id is None:
        return
    run = TaskRun.objects.filter(pk=run_id, task__workspace=workspace).first()
    if run is None:
        return
    owner = run.task.owner_slack_user_id
    if user_id != owner:
        words = wording.publish_not_yours(user_id, owner_id=owner)
        key = f"publish-not-yours:{run.pk}:{user_id}"
        told = notices.claim(
            key, Notice.Kind.PICKER_REFUSAL, message_of(run), words, user_id=user_id
        )
        notices.send_soon(told)
        return
    waiting = RunChange.objects.filter(run=run, agreed_at=None, run__undo=None)
    waiting.update(agreed_at=timezone.now())
    run_soon(PUBLISH_CONFIRMED, str(run.pk))


def agree_for_owner(task: CodingTask) -> bool:
    """Record that a task's owner agrees, over the API; return whether a change waited for that."""
    unpushed = list(RunChange.objects.filter(run__task=task, pushed_at=None).order_by("pk"))
    if not any(change.questions for change in unpushed) or unpushed[-1].settled_at:
        return False
    # Publishing the newest change publishes those below it.
    newest = unpushed[-1]
    RunChange.objects.filter(pk=newest.pk, agreed_at=None).update(agreed_at=timezone.now())
    run_soon(PUBLISH_CONFIRMED, str(newest.run_id))
    return True


def to_publish() -> QuerySet[RunChange]:
    """Return the changes that were agreed to, and are not published, given up or undone."""
    return RunChange.objects.exclude(agreed_at=None).filter(settled_at=None, run__undo=None)


@contextmanager
def only_one() -> Iterator[None]:
    """Let one thread of this machine publish at a time. Raises `RepositoryBusy` in the others."""
    folder = Path(settings.REPOSITORIES_DIRECTORY)
    folder.mkdir(parents=True, exist_ok=True)
    with locked(folder / "publishing.lock", time.monotonic(), exclusive=True):
        yield


def publish(change: RunChange) -> None:
    """Publish a change that was agreed to, and tell the thread, if there is one.

    If the repository or GitHub cannot be reached, the sweep tries again, until `GIVE_UP_AFTER`.
    """
    run = change.run
    is_last = change.agreed_at is not None and change.agreed_at < timezone.now() - GIVE_UP_AFTER
    try:
        AgentRuns.from_settings().publish(run, confirmed=True, last_attempt=is_last)
    except (PublishingFailed, CheckoutFailed) as failure:
        if not failure.permanent and not is_last:
            log.warning("a change cannot be published yet", run=str(run.pk), error=str(failure))
            return
        agent_runs.note(run, f"Not pushed: {failure}.")
    if run.task.has_thread:
        _tell(run)
    RunChange.objects.filter(pk=change.pk).update(settled_at=timezone.now())


def _tell(run: TaskRun) -> None:
    """Tell the thread what became of the change."""
    text = " ".join(notices.change_sentences(run))
    told = notices.claim(f"published:{run.pk}", Notice.Kind.HINT, message_of(run), text)
    notices.send_soon(told)
    if diff := diffs.claim(run):
        notices.send_soon(diff)
