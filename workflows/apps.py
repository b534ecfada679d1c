"""The application configuration of `workflows`."""

from django.apps import AppConfig

from projects.hints import run_soon
from quota.published import credit_gains

_WAKE = "workflows.tasks.wake_paused_runs"
"""The task's name. Importing its module would load Temporal's client, which slows the start."""


class WorkflowsConfig(AppConfig):
    """Mentions, their workflows, and messages to Slack."""

    name = "workflows"
    verbose_name = "Slack"

    def ready(self) -> None:
        """Register what wakes paused runs: quota calls it, but must not import us."""
        credit_gains.register(_wake_paused_runs)


def _wake_paused_runs(*organization_ids: str) -> None:
    run_soon(_WAKE, *organization_ids)
