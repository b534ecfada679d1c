"""The blocks of an answer: its text, and a line with its cost, its time and its links.

The last call of a run can reach the ledger after the answer was posted. So the cost that an answer
states is compared with the ledger a little later, and the message is edited if it was wrong.
"""

from datetime import datetime, timedelta

from django.conf import settings
from django.urls import reverse

from billing.credits import display
from billing.reports.usage import usage_of_run
from coding_tasks.models import ChangeUndo, RunChange, TaskRun
from coding_tasks.models.kept_changes import TaskBranch
from workflows import wording
from workflows.messages import edits, other_repository, run_buttons
from workflows.models import ERASED, Notice
from workflows.slack.block_kit import FOOTER, Block, buttons, context, sections
from workflows.slack.splitting import length

ANSWER_KEY = "answer:"
"""What the key of a notice with an answer begins with. The run's id follows."""
FIRST_CHECK = timedelta(seconds=3)
LAST_CHECK = timedelta(seconds=60)
_MOST_EDITED = 3_900  # chat.update takes texts of up to 4,000 characters


def blocks_of(run: TaskRun, text: str, micro: int) -> list[Block]:
    """Return the blocks of a run's answer. `text` is the escaped answer."""
    elements = _elements(run)
    footer = context(_footer(run, micro), block_id=FOOTER)
    return [*sections(text), footer, *([buttons(*elements)] if elements else [])]


def refresh(notice: Notice) -> bool:
    """Update the buttons of an answer; return whether its message has to be edited."""
    if notice.cost_micro is None or notice.text == ERASED or not fits_an_edit(notice):
        return False
    run = TaskRun.objects.select_related("task__repository").get(pk=run_id_of(notice))
    return edits.revise(notice, notice.text, blocks_of(run, notice.text, notice.cost_micro))


def fits_an_edit(notice: Notice) -> bool:
    """Return whether Slack takes an edit of the answer's message."""
    return length(notice.text) <= _MOST_EDITED


def correct_cost(notice: Notice, now: datetime) -> bool:
    """Compare an answer's stated cost with the ledger; return whether to edit the answer."""
    run = TaskRun.objects.select_related("task__repository").get(pk=run_id_of(notice))
    micro = usage_of_run(run.pk)
    is_last = now >= (notice.sent_at or now) + LAST_CHECK
    again = None if is_last else (notice.sent_at or now) + LAST_CHECK
    Notice.objects.filter(pk=notice.pk).update(cost_micro=micro, cost_due_at=again)
    if micro == notice.cost_micro or notice.text == ERASED or not fits_an_edit(notice):
        return False
    return edits.revise(notice, notice.text, blocks_of(run, notice.text, micro))


def run_id_of(notice: Notice) -> str:
    """Return the id of the run that an answer belongs to."""
    return notice.key.removeprefix(ANSWER_KEY)


def page_of(run: TaskRun) -> str:
    """Return the address of the run's page in the admin, with its transcript and its change."""
    path = reverse("admin:coding_tasks_taskrun_change", args=[run.pk])
    return f"{settings.PUBLIC_URL}{path}"


def _elements(run: TaskRun) -> list[Block]:
    undo = [run_buttons.undo(run.pk)] if _can_be_undone(run) else []
    return [*undo, *other_repository.offer(run)]


def _can_be_undone(run: TaskRun) -> bool:
    changed = RunChange.objects.filter(run=run).exists()
    return changed and not ChangeUndo.objects.filter(run=run).exists()


def _footer(run: TaskRun, micro: int) -> str:
    parts = [wording.used(display(micro))]
    if run.started_at and run.finished_at:
        parts.append(wording.elapsed(round((run.finished_at - run.started_at).total_seconds())))
    parts.append(wording.where(run.task.repository_name))
    change = RunChange.objects.filter(run=run).first()
    branch = TaskBranch.objects.filter(task=run.task_id).first()
    if run.task.repository_id is not None:
        parts.append(wording.on_branch(_branch_read(run, change, branch)))
    if change is not None and branch is not None and branch.pull_request:
        parts.append(wording.link(branch.pull_request, "Pull request"))
    parts.append(wording.link(page_of(run), "Transcript"))
    return " · ".join(parts)


def _branch_read(run: TaskRun, change: RunChange | None, branch: TaskBranch | None) -> str:
    """Return the branch that an answer is about, or an empty string for the default branch.

    That is the task's own branch as soon as the task has changed something.
    """
    if change is not None:
        return change.branch
    if branch is None:
        return ""
    changed = RunChange.objects.filter(run__task=run.task_id, run__created_at__lt=run.created_at)
    return branch.name if changed.exists() else branch.base_branch
