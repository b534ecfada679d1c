"""Celery tasks: send notices and signals, and sweep up what other processes did not finish.

Each task may run twice, concurrently or not at all: the rows say what is left to do, and the next
sweep comes within seconds. So Celery retries none of them, and a flushed broker loses nothing.
"""

import time
from collections.abc import Callable, Iterable
from contextlib import suppress
from datetime import timedelta
from typing import Any
from uuid import UUID

import structlog
from celery import shared_task
from django.utils import timezone
from temporalio.client import WorkflowExecutionStatus

from coding_tasks import runs
from coding_tasks.failures import RepositoryBusy
from coding_tasks.models import ChangeUndo, RunChange, TaskRun
from coding_tasks.outages import STORES_AWAY, in_one_line
from projects.hints import run_soon
from projects.slack import rotating_tokens
from quota.gate import QuotaUnknown
from workflows import credit_notices, notices, unfinished
from workflows.agent_sessions import showing as showing_sessions
from workflows.api import running
from workflows.credit_requests import resuming
from workflows.credit_requests.messages import tell_not_delivered
from workflows.home import openings
from workflows.home import publishing as home_tabs
from workflows.intake import follow_ups, mentions, replies
from workflows.messages import answers
from workflows.models import CreditRequest, HomeTab, Notice, RunQuote, ThreadReply
from workflows.notices import DELIVER_NOTICE
from workflows.progress import showing
from workflows.quotes import ending
from workflows.recovery import lost_mentions, lost_tasks
from workflows.results import confirmations, undoing
from workflows.slack import names, pauses, token_rotation
from workflows.temporal import client

log = structlog.get_logger(__name__)

_BATCH = 200
_BUDGET = 30.0
"""Seconds after which a sweep leaves the rest to the next one."""
_EXPIRES = 5
"""Seconds after which a queued sweep is dropped, because the next one is due."""
_PROGRESS_EVERY = 2
"""Seconds between two updates of what runs are doing."""
_PATIENCE = 3
"""Failures to reach Temporal after which a sweep stops, because each takes the full time limit."""
_TERMINATED_EVERY = 30
"""Seconds between checks for workflows that were terminated."""
_TOKENS_EVERY = 30
"""Seconds between checks for bot tokens to renew."""
_NAMES_EVERY = 10
"""Seconds between checks for names to ask Slack for."""
_LOST_EVERY = 60
"""Seconds between checks for workflows that Temporal lost."""
_LOOK_BACK = timedelta(days=1)
"""Sweeps look back this far for terminated workflows. A message in a thread reveals older ones."""
_SIGNAL_AFTER = timedelta(seconds=3)
"""How long the request that recorded a follow-up has to signal it."""


@shared_task
def deliver_notice(notice_id: str) -> None:
    """Send one notice, if it is due and no other sender has it."""
    notice = Notice.objects.filter(pk=notice_id).first()
    if notice is not None:
        notices.deliver(notice)


@shared_task(expires=_EXPIRES)
def deliver_pending_notices() -> None:
    """Send the notices that are due."""
    now = timezone.now()
    _sweep(notices.next_due(now, _BATCH), notices.deliver)
    pauses.forget_old(now)


@shared_task(expires=_PROGRESS_EVERY)
def show_progress() -> None:
    """Show what runs are doing, and correct the costs that answers state."""
    now = timezone.now()
    due = showing.update(now)
    to_check = Notice.objects.filter(cost_due_at__lte=now).order_by("cost_due_at")[:_BATCH]
    due += [notice for notice in to_check if answers.correct_cost(notice, now)]
    for notice in due:
        run_soon(DELIVER_NOTICE, str(notice.pk))  # a slow workspace must not delay the others


@shared_task(expires=_PROGRESS_EVERY)
def show_agent_sessions() -> None:
    """Make Slack show the state of the work in threads, where it has agent sessions."""
    _sweep(showing_sessions.due(timezone.now()), showing_sessions.show)


@shared_task
def publish_home(tab_id: str) -> None:
    """Publish one Home tab, if it is due and no other process has it."""
    _sweep(HomeTab.objects.filter(pk=tab_id), home_tabs.publish)


@shared_task(expires=_EXPIRES)
def publish_due_homes() -> None:
    """Publish the Home tabs that are due."""
    _sweep(home_tabs.due(timezone.now())[:_BATCH], home_tabs.publish)


@shared_task
def forget_old_rows() -> None:
    """Delete what was kept about Home tabs and agent sessions that nobody uses any more."""
    now = timezone.now()
    openings.forget_old(now)
    showing_sessions.forget_old(now)


@shared_task
def publish_confirmed(run_id: str) -> None:
    """Publish the change of one run, if the task's owner agreed to that."""
    _publish(confirmations.to_publish().filter(run__pk=run_id))


@shared_task
def undo_change(run_id: str) -> None:
    """Undo the change of one run, if the task's owner asked for that."""
    _undo(undoing.open_undos().filter(run__pk=run_id))


@shared_task(expires=_EXPIRES)
def undo_all() -> None:
    """Undo the changes that an earlier attempt could not undo."""
    _undo(undoing.open_undos().order_by("?")[:_BATCH])


def _undo(undos: Iterable[ChangeUndo]) -> None:
    """Undo changes, unless another task of this machine is publishing or undoing some."""
    try:
        with confirmations.only_one():
            _sweep(undos, undoing.finish)
    except RepositoryBusy:
        log.info("changes are being published already")


@shared_task(expires=_EXPIRES)
def publish_all_confirmed() -> None:
    """Publish the agreed changes that an earlier attempt could not publish."""
    # The order is random, so that a hanging repository doesn't always come first.
    _publish(confirmations.to_publish().order_by("?")[:_BATCH])


def _publish(changes: Iterable[RunChange]) -> None:
    """Publish the changes, unless another task of this machine does so already.

    Git can wait minutes for a hanging repository, and billing needs Celery's other threads.
    """
    try:
        with confirmations.only_one():
            _sweep(changes, confirmations.publish)
    except RepositoryBusy:
        log.info("changes are being published already")


@shared_task(expires=_EXPIRES)
def announce_credits() -> None:
    """Tell teams that their credits run low, or that they have some again."""
    for notice in credit_notices.claim_new(timezone.now()):
        notices.deliver(notice)


@shared_task(expires=_TOKENS_EVERY)
def refresh_slack_tokens() -> None:
    """Renew the bot tokens that expire soon."""
    # Slack may be slow, and each claim has to last for its own request, so each has its own time.
    _sweep(
        rotating_tokens.due(timezone.now()),
        lambda token: token_rotation.refresh(token, timezone.now()),
    )


@shared_task(expires=_EXPIRES)
def start_pending_mentions() -> None:
    """Decide about mentions whose request died, or that came while Temporal was down."""
    _sweep(mentions.undecided(timezone.now())[:_BATCH], mentions.admit)


@shared_task(expires=_EXPIRES)
def start_pending_tasks() -> None:
    """Start the work on API tasks whose request died, or that came while Temporal was down."""
    _sweep(running.unannounced(timezone.now())[:_BATCH], client.start_api_task)


@shared_task(expires=_EXPIRES)
def match_replies() -> None:
    """Decide about replies whose process died, and delete old ones that are not for the bot."""
    _sweep(replies.undecided(timezone.now())[:_BATCH], _match)
    replies.forget_old(timezone.now())


def _match(reply: ThreadReply) -> None:
    mention = replies.decide(reply)
    if mention is not None:
        mentions.admit(mention)


@shared_task(expires=_EXPIRES)
def deliver_pending_follow_ups() -> None:
    """Signal the follow-ups that were not signalled when they were recorded."""
    old = follow_ups.unsignalled().filter(received_at__lte=timezone.now() - _SIGNAL_AFTER)
    _sweep(old.order_by("received_at")[:_BATCH], follow_ups.signal)


@shared_task
def tell_quote_answer(run_id: str) -> None:
    """Make the run's workflow go on, now that somebody answered what the run may cost."""
    _sweep(ending.unheard().filter(run__pk=run_id), _tell_answer)


@shared_task(expires=_EXPIRES)
def settle_quotes() -> None:
    """Tell workflows of answers that they missed, and close questions about ended runs."""
    _sweep(ending.left_open()[:_BATCH], ending.drop)
    _sweep(ending.unheard()[:_BATCH], _tell_answer)


def _tell_answer(quote: RunQuote) -> None:
    try:
        client.signal_quote_answered(quote.run.task.workflow_id)
    except client.WorkflowEnded:
        ending.mark_heard(quote, timezone.now())


@shared_task(expires=_EXPIRES)
def wake_paused_runs(*organization_ids: str) -> None:
    """Continue paused runs, and mentions whose authors asked for credits, if there are credits.

    If ids are given, look only at these organizations.
    """
    paused = runs.to_wake().select_related("task__project", "task__workspace")
    paused = paused.defer("task__workspace__bot_token")
    requested = resuming.waiting()
    if organization_ids:
        organizations = [*map(UUID, organization_ids)]
        paused = paused.filter(task__project__organization__in=organizations)
        requested = requested.filter(mention__workspace__project__organization__in=organizations)
    # The order is random, so that runs that stay paused don't keep the others waiting.
    _sweep(paused.order_by("?")[:_BATCH], _wake_if_credits)
    _sweep(requested.order_by("?")[:_BATCH], _resume_or_end)
    _sweep(resuming.undelivered()[:_BATCH], tell_not_delivered)


@shared_task
def resume_requested(request_id: str) -> None:
    """Let the mention of an approved request for credits run, if the gate now allows it."""
    _sweep(resuming.waiting().filter(pk=request_id), _resume_or_end)


def _resume_or_end(request: CreditRequest) -> None:
    with suppress(QuotaUnknown):
        if mention := resuming.resume_or_end(request):
            mentions.admit(mention)


@shared_task(expires=_NAMES_EVERY)
def look_up_slack_names() -> None:
    """Ask Slack for the names that pages want to show."""
    names.look_up_due()


@shared_task(expires=_TERMINATED_EVERY)
def clear_up_terminated_workflows() -> None:
    """End the mentions and tasks of workflows that an operator terminated."""
    since = timezone.now() - _LOOK_BACK
    try:
        terminated = client.terminated_workflows(since)
    except client.TemporalUnavailable as error:
        log.warning("temporal is unavailable", error=str(error))
        return
    _sweep(unfinished.left_behind(terminated), lambda found: _clear_up_if_ended(found.workflow_id))
    _sweep(lost_tasks.left_behind(terminated), lost_tasks.check_workflow)


@shared_task(expires=_LOST_EVERY)
def look_for_workflows() -> None:
    """Begin anew or end the work whose workflows Temporal has lost."""
    _sweep(lost_mentions.suspects(timezone.now(), _BATCH), lost_mentions.check_workflow)
    _sweep(lost_tasks.suspects(timezone.now(), _BATCH), lost_tasks.check_workflow)


def _clear_up_if_ended(workflow_id: str) -> None:
    status = client.status_of(workflow_id)
    # A workflow that was reset is running under the same id.
    if status is not WorkflowExecutionStatus.RUNNING:
        unfinished.clear_up(workflow_id, unfinished.in_words(status))


def _wake_if_credits(run: TaskRun) -> None:
    try:
        if not runs.has_gained_credits(run):
            return
    except QuotaUnknown:
        return
    try:
        client.signal_credits_gained(run.task.workflow_id)
    except client.WorkflowEnded:
        if run.task.has_thread:
            _clear_up_if_ended(run.task.workflow_id)
        else:
            lost_tasks.check_workflow(run.task)
    else:
        runs.mark_woken(run)


def _sweep(rows: Iterable[Any], handle: Callable[[Any], None]) -> None:
    """Handle each row. A row that fails is left to the next sweep and doesn't stop the others."""
    deadline = time.monotonic() + _BUDGET
    unreachable = 0
    for row in rows:
        if unreachable == _PATIENCE or time.monotonic() > deadline:
            break
        try:
            handle(row)
        except client.TemporalUnavailable as error:
            unreachable += 1
            log.warning("temporal is unavailable", row=str(row.pk), error=str(error))
        except STORES_AWAY as error:
            log.warning(
                "a row is left to the next sweep", row=str(row.pk), error=in_one_line(error)
            )
        except Exception:
            log.exception("a sweep failed on a row", row=str(row.pk))
