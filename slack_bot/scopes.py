"""Find out which of the app's scopes a workspace has granted."""

from slack_sdk.web import SlackResponse

from projects.models import SlackWorkspace
from slack_bot.install import SCOPES


def missing_scopes(granted: str) -> list[str]:
    """Return the needed scopes that are not in the comma-separated list."""
    return sorted(set(SCOPES) - {scope.strip() for scope in granted.split(",")})


def remember_scopes(workspace: SlackWorkspace, answer: SlackResponse) -> str:
    """Store and return the scopes of the bot token, which Slack names with each answer.

    Return the stored ones if this answer doesn't name them.
    """
    named = (value for name, value in answer.headers.items() if name.lower() == "x-oauth-scopes")
    granted = str(next(named, ""))[:1000]
    if granted and granted != workspace.scopes:
        SlackWorkspace.objects.filter(pk=workspace.pk).update(scopes=granted)
    return granted or workspace.scopes
