"""The change of a run as a file in its thread, if there is no pull request."""

from django.db import transaction

from coding_tasks.models import RunChange, TaskRun
from workflows import notices, wording
from workflows.models import ERASED, Notice
from workflows.requests import message_of
from workflows.slack.posting import DIFF_KEY


@transaction.atomic
def claim(run: TaskRun) -> Notice | None:
    """Return the notice with the run's change, creating it if needed.

    Return None if the thread needs no file: there is no change, it was erased, or it has a pull
    request. A change that somebody has to agree to first is not shown either, because it may
    contain secrets.
    """
    if not run.task.has_thread:
        return None
    fresh = TaskRun.objects.select_for_update().get(pk=run.pk)  # it may have been erased since
    change = RunChange.objects.filter(run=run).select_related("run__task__branch").first()
    if change is None or fresh.answer == ERASED or change.run.task.branch.pull_request:
        return None
    if change.questions and change.agreed_at is None:
        return None
    text = wording.change_as_file(change.branch)
    return notices.claim(f"{DIFF_KEY}{run.pk}", Notice.Kind.DIFF, message_of(run), text)
