"""The application configuration of `workflows`."""

from django.apps import AppConfig


class WorkflowsConfig(AppConfig):
    """Mentions, their workflows, and messages to Slack."""

    name = "workflows"

    def ready(self) -> None:
        """Let quota wake paused runs when an account gains credits: it doesn't import us."""
        from quota.published import credit_gains
        from workflows.tasks import wake_paused_runs

        credit_gains.register(wake_paused_runs)
