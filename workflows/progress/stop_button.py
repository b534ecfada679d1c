"""The button that stops a run. Its value is signed, because it comes back through a browser."""

from collections.abc import Iterable
from uuid import UUID

from coding_tasks.models import TaskRun
from projects.models import SlackWorkspace
from workflows.slack.signed_ids import SignedIds

ACTION_ID = "tollgate_stop"
_RUN = SignedIds("tollgate.stop")


def value_for(run_id: str) -> str:
    """Return the value of a run's button."""
    return _RUN.sign(UUID(run_id))


def run_in(workspaces: Iterable[SlackWorkspace], run_id: UUID) -> TaskRun | None:
    """Return the run if it belongs to one of these workspaces."""
    runs = TaskRun.objects.select_related("task__workspace", "task__project")
    return runs.filter(pk=run_id, task__workspace__in=list(workspaces)).first()


def run_of(value: str) -> UUID | None:
    """Return the run of a button, or None if we did not make it."""
    return _RUN.read(value)
