"""Load the rows that activities need, by the ids in their input."""

from temporalio.exceptions import ApplicationError

from coding_tasks.models import TaskRun
from workflows.mention_types import OWNER_LEFT, UNINSTALLED
from workflows.models import FollowUp, Mention


def mention(mention_id: str) -> Mention:
    """Return the mention with its workspace and project; raises `Mention.DoesNotExist`."""
    return Mention.objects.select_related("workspace__project__organization").get(pk=mention_id)


def follow_up(follow_up_id: str) -> FollowUp:
    """Return the follow-up with its workspace and project; raises `FollowUp.DoesNotExist`."""
    return FollowUp.objects.select_related("workspace__project__organization").get(pk=follow_up_id)


def run(run_id: str) -> TaskRun:
    """Return the run with its task, repository and project; raises `TaskRun.DoesNotExist`."""
    return TaskRun.objects.select_related(
        "task__repository", "task__workspace", "task__project__organization", "task__user"
    ).get(pk=run_id)


def run_to_perform(run_id: str) -> TaskRun:
    """Return the run, as `run` does. Fails the activity for good if nobody could read the answer.

    That is the case if the app was uninstalled, or if the owner left the organization.
    """
    found = run(run_id)
    workspace = found.task.workspace
    if found.state == TaskRun.State.SUCCEEDED:
        return found
    if workspace is not None and not workspace.is_active:
        raise ApplicationError("the app was uninstalled", type=UNINSTALLED, non_retryable=True)
    if found.task.owner_has_left():
        raise ApplicationError("the owner left", type=OWNER_LEFT, non_retryable=True)
    return found
