"""All steps of the setup, in the order in which somebody takes them."""

from datetime import datetime

from console.setup import slack_steps, work_steps
from console.setup.step import Step
from projects.models import SlackWorkspace


def steps(now: datetime, *, ask: bool) -> list[Step]:
    """Return the steps whose state is known.

    Slack and the gateway are asked only with `ask`.
    """
    active = SlackWorkspace.objects.filter(is_active=True).select_related("project__organization")
    workspaces = list(active.defer("bot_token")[:5])
    found = [
        slack_steps.app_step(workspaces),
        slack_steps.secrets_step(workspaces),
        slack_steps.reach_step(now),
        work_steps.project_step(),
        work_steps.limit_step(),
        slack_steps.installation_step(workspaces),
        slack_steps.scopes_step(workspaces, ask=ask),
        slack_steps.event_step(now),
        work_steps.provider_step(now, ask=ask),
    ]
    return [step for step in found if step is not None]
