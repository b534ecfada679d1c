"""End the mention and the task of a workflow that ended too early, and tell the thread.

A workflow that fails or is cancelled does this by an activity. One that an operator terminates in
Temporal's UI cannot, so a sweep does it.
"""

from collections.abc import Sequence

from django.db import transaction
from django.db.models import Exists, OuterRef, Q, QuerySet
from temporalio.client import WorkflowExecutionStatus

from coding_tasks import threads
from coding_tasks.models import CodingTask, TaskRun
from coding_tasks.turns import agent_runs
from workflows import closing, notices, wording
from workflows.messages import run_buttons
from workflows.models import ERASED, FollowUp, Mention, Notice
from workflows.requests import message_of
from workflows.slack.block_kit import Block

_ENDS = {
    WorkflowExecutionStatus.TERMINATED: "its workflow was terminated",
    WorkflowExecutionStatus.CANCELED: "its workflow was cancelled",
    WorkflowExecutionStatus.FAILED: "its workflow failed",
    WorkflowExecutionStatus.TIMED_OUT: "its workflow ran out of time",
    None: "its workflow was lost",
}


def in_words(status: WorkflowExecutionStatus | None) -> str:
    """Return how a workflow ended, in words. A status of None means that Temporal lost it."""
    return _ENDS.get(status, "its workflow had ended")


@transaction.atomic
def end(mention: Mention, workflow_id: str, state: str, outcome: str) -> Notice | None:
    """End the mention and the task of a workflow; return the notice that says so.

    If the only thing left to say is an answer that was not posted yet, the notice is that answer.
    It is None if the work was stopped, because the thread was told about the stop. An answer that
    was stored before the stop is posted all the same.
    """
    tasks = CodingTask.objects.filter(workflow_id=workflow_id)
    went_on = mention.state == Mention.State.ANSWERED and not tasks.exists()
    was_stopped = (
        mention.state == Mention.State.STOPPED
        or went_on  # another workflow has the stopped task by now
        or tasks.filter(state=CodingTask.State.STOPPED).exists()
    )
    answered = _unposted_answers(mention, workflow_id)
    if any(run.message_ts == mention.ts for run in answered):
        state = Mention.State.ANSWERED
    closing.close(mention.pk, state, outcome)
    threads.abandon(workflow_id)
    dropped = FollowUp.objects.filter(workflow_id=workflow_id, state__in=FollowUp.WAITING).update(
        state=FollowUp.State.DROPPED, outcome=outcome[:200]
    )
    if was_stopped:
        for run in filter(agent_runs.is_left_unpublished, answered):
            agent_runs.note(run, wording.not_pushed_after_a_stop())
    answers = [notices.claim_answer(run, message_of(run)) for run in answered]
    if was_stopped:
        for answer in answers:
            notices.send_soon(answer)
        return None
    abandoned = TaskRun.objects.filter(task__workflow_id=workflow_id, error=threads.ABANDONED)
    given_back = notices.given_back_sentences(abandoned)
    if answers and not dropped and not given_back:
        return answers[-1]
    for answer in answers:
        notices.send_soon(answer)
    text = " ".join([wording.failed(mention.user_id), *given_back])
    blocks = run_buttons.below(text, _start_again(mention, workflow_id))
    key = f"failed:{mention.pk}"
    return notices.claim(key, Notice.Kind.FAILURE, mention, text, blocks=blocks)


def _start_again(mention: Mention, workflow_id: str) -> Block:
    """Return the button that starts again what the workflow left unanswered."""
    failed = TaskRun.objects.filter(task__workflow_id=workflow_id, error=threads.ABANDONED)
    run = failed.order_by("created_at").last()
    return (
        run_buttons.start_run_again(run.pk) if run else run_buttons.start_mention_again(mention.pk)
    )


def _unposted_answers(mention: Mention, workflow_id: str) -> list[TaskRun]:
    """Return the runs whose paid answers may not have been posted, oldest first.

    These are the runs without a notice, and the run of an open mention even if it has one.
    """
    succeeded = TaskRun.objects.filter(
        task__workflow_id=workflow_id, state=TaskRun.State.SUCCEEDED
    ).select_related("task")
    answered = succeeded.exclude(answer=ERASED)
    runs = {notices.answer_key(run): run for run in answered.order_by("created_at")}
    said = set(Notice.objects.filter(key__in=runs).values_list("key", flat=True))
    is_open = mention.state in Mention.OPEN
    return [
        run
        for key, run in runs.items()
        if key not in said or (is_open and run.message_ts == mention.ts)
    ]


def left_behind(workflow_ids: Sequence[str]) -> QuerySet[Mention]:
    """Return mentions of these workflows that are still open, or whose tasks are still active."""
    active = CodingTask.objects.filter(
        workflow_id=OuterRef("workflow_id"), state=CodingTask.State.ACTIVE
    )
    return Mention.objects.filter(
        Q(state=Mention.State.STARTED) | Exists(active), workflow_id__in=workflow_ids
    )


@transaction.atomic
def clear_up(workflow_id: str, outcome: str) -> None:
    """End what a dead workflow left. Tell its thread if somebody waits there."""
    found = Mention.objects.filter(workflow_id=workflow_id)
    mention = found.select_related("workspace").defer("workspace__bot_token").first()
    if mention is None:
        return
    threads.lock_active_task(mention.workspace, mention.channel_id, mention.thread_ts)
    mention = Mention.objects.select_for_update().get(pk=mention.pk)
    somebody_waits = (
        mention.state in Mention.OPEN
        or FollowUp.objects.filter(workflow_id=workflow_id, state__in=FollowUp.WAITING).exists()
        or TaskRun.objects.filter(
            task__workflow_id=workflow_id, state__in=TaskRun.UNFINISHED
        ).exists()
        or _unposted_answers(mention, workflow_id)
    )
    if somebody_waits:
        if notice := end(mention, workflow_id, Mention.State.FAILED, outcome):
            notices.send_soon(notice)
    else:
        threads.abandon(workflow_id)
