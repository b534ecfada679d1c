"""The application configuration of `workflows`."""

from django.apps import AppConfig


class WorkflowsConfig(AppConfig):
    """Mentions, their workflows, and messages to Slack."""

    name = "workflows"

    def ready(self) -> None:
        """Register the task that wakes paused runs: quota calls it, but must not import us."""
        from quota.published import credit_gains
        from workflows.tasks import wake_paused_runs

        credit_gains.register(wake_paused_runs)
