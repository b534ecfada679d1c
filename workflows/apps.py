"""The application configuration of `workflows`."""

from django.apps import AppConfig

from projects.hints import run_soon
from quota.published import credit_gains


class WorkflowsConfig(AppConfig):
    """Mentions, their workflows, and messages to Slack."""

    name = "workflows"
    verbose_name = "Slack"

    def ready(self) -> None:
        """Register what wakes paused runs: quota calls it, but must not import us."""
        credit_gains.register(_wake_paused_runs)


def _wake_paused_runs(*organization_ids: str) -> None:
    # Imported late: loading Temporal's client takes a third of a process's start, and most commands
    # never add credits.
    from workflows.tasks import wake_paused_runs

    run_soon(wake_paused_runs.name, *organization_ids)
