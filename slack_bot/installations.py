"""Find, connect and end installations of the app."""

from dataclasses import dataclass
from datetime import timedelta

import structlog
from django.db import transaction
from django.db.models import Exists, OuterRef, Q
from django.utils import timezone

from projects.models import ChannelProject, Project, SlackWorkspace
from projects.slack import rotating_tokens
from slack_bot.events import Installation, Uninstalled

log = structlog.get_logger(__name__)

_SAME_TIME = timedelta(seconds=5)
"""Slack sends times in whole seconds, by its own clock."""
_REDELIVERED_WITHIN = timedelta(minutes=10)
"""Slack delivers an event again after one and after five minutes."""


class ServesAnotherProject(Exception):
    """The workspace is connected to another project. Only the admin can change that."""


@dataclass(frozen=True, slots=True)
class Grant:
    """What Slack granted at the end of an installation."""

    installation: Installation
    name: str
    app_id: str
    bot_user_id: str
    bot_token: str
    installer_id: str = ""
    refresh_token: str = ""
    """Renews the bot token. Empty without token rotation."""
    expires_in: timedelta = timedelta()
    scopes: str = ""
    """What was granted, comma-separated, if Slack says."""


def find(installation: Installation) -> SlackWorkspace | None:
    """Return the active workspace, with its project but without its token, or None."""
    channels = ChannelProject.objects.filter(workspace=OuterRef("pk"))
    return (
        SlackWorkspace.objects.filter(_identity(installation), is_active=True)
        .annotate(has_channel_projects=Exists(channels))
        .select_related("project__organization")
        .defer("bot_token")
        .first()
    )


def end(uninstalled: Uninstalled) -> None:
    """Deactivate the workspace, so that Slack is not called for it any more.

    An event that Slack redelivers after the app was installed again does nothing.
    """
    workspaces = SlackWorkspace.objects.filter(_identity(uninstalled.installation), is_active=True)
    if uninstalled.at is not None:
        workspaces = workspaces.exclude(
            installed_at__gt=uninstalled.at + _SAME_TIME,
            installed_at__lt=uninstalled.at + _REDELIVERED_WITHIN,
        )
    if workspaces.update(is_active=False, uninstalled_at=timezone.now()):
        log.info("the app was uninstalled", team=uninstalled.installation.team_id)


def connect(project: Project, grant: Grant) -> SlackWorkspace:
    """Connect the workspace to the project, or renew its token if it is connected already.

    The installer is told when credits run low, until the admin names another person or channel.
    Raises `ServesAnotherProject`.
    """
    with transaction.atomic():
        identity = _identity(grant.installation)
        workspace = SlackWorkspace.objects.select_for_update().filter(identity).first()
        if workspace is None:
            workspace = SlackWorkspace(
                project=project,
                team_id="" if grant.installation.is_org_wide else grant.installation.team_id,
                enterprise_id=grant.installation.enterprise_id,
            )
        elif workspace.project_id != project.pk:
            raise ServesAnotherProject(str(workspace))
        workspace.name = grant.name
        workspace.app_id = grant.app_id
        workspace.bot_user_id = grant.bot_user_id
        workspace.bot_token = grant.bot_token
        workspace.credits_channel_id = workspace.credits_channel_id or grant.installer_id
        workspace.is_active = True
        workspace.installed_at = timezone.now()
        workspace.uninstalled_at = None
        workspace.scopes = grant.scopes
        workspace.save()
        rotating_tokens.keep(workspace, grant.refresh_token, grant.expires_in, timezone.now())
    return workspace


def _identity(installation: Installation) -> Q:
    if installation.is_org_wide or not installation.team_id:
        return Q(team_id="", enterprise_id=installation.enterprise_id) & ~Q(enterprise_id="")
    return Q(team_id=installation.team_id)
