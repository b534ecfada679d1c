"""The files that an agent left for people, posted to the thread after the answer."""

from django.db import transaction

from coding_tasks.models import RunFile, TaskRun
from workflows import notices, wording
from workflows.models import ERASED, Notice
from workflows.requests import message_of
from workflows.slack.posting import LEFT_FILE_KEY


@transaction.atomic
def claim(run: TaskRun) -> list[Notice]:
    """Return the notices with the files that the run left, creating them if needed.

    There is one for each file, so that a file that Slack refuses doesn't hold back the others.
    """
    if not run.task.has_thread:
        return []
    fresh = TaskRun.objects.select_for_update().get(pk=run.pk)  # it may have been erased since
    if fresh.answer == ERASED:
        return []
    about = message_of(run)
    return [
        notices.claim(
            f"{LEFT_FILE_KEY}{run.pk}:{file.number}",
            Notice.Kind.FILE,
            about,
            wording.left_file(file.name),
        )
        for file in RunFile.objects.filter(run=run).defer("content").order_by("number")
    ]
