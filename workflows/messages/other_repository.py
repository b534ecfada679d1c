"""The button of an answer that starts its request anew on another repository."""

from uuid import UUID

from coding_tasks.models import Repository, TaskRun
from workflows import wording
from workflows.mention_types import NO_REPOSITORY
from workflows.models import Mention
from workflows.slack.block_kit import Block, button
from workflows.slack.signed_ids import SignedIds

ACTION_ID = "tollgate_other_repository"
_RUN = SignedIds("tollgate.other_repository")


def offer(run: TaskRun) -> list[Block]:
    """Return the button below a run's answer, or no button if there is nothing to choose.

    Only the first answer of a task has it, because later ones depend on what came before.
    """
    began = request_of(run)
    if began is None or Mention.objects.filter(takes_up=began).exists():
        return []
    others = Repository.objects.filter(project=run.task.project_id)
    if not others.exclude(pk=run.task.repository_id or NO_REPOSITORY).exists():
        return []
    return [button(wording.other_repository_button(), ACTION_ID, value_for(run))]


def request_of(run: TaskRun) -> Mention | None:
    """Return the mention that began the run's task, if the run answers it."""
    began = Mention.objects.filter(
        workspace=run.task.workspace_id,
        channel_id=run.task.channel_id,
        ts=run.message_ts,
        workflow_id=run.task.workflow_id,
    )
    return began.select_related("workspace__project").defer("workspace__bot_token").first()


def value_for(run: TaskRun) -> str:
    """Return the value of the button below a run's answer."""
    return _RUN.sign(run.pk)


def run_of(value: str) -> UUID | None:
    """Return the run of a button, or None if we did not make it."""
    return _RUN.read(value)
