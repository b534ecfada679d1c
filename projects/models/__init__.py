"""Organizations, their projects and members, credentials, and Slack workspaces."""

from projects.change_feed import Change, ChangeCursor
from projects.models.credentials import (
    OAuthAccessToken,
    OAuthApplication,
    OAuthGrant,
    OAuthIDToken,
    OAuthRefreshToken,
    PersonalAPIKey,
)
from projects.models.organizations import Membership, Organization, Project, User
from projects.models.slack_names import SlackName
from projects.models.slack_workspaces import ChannelProject, RotatingToken, SlackWorkspace

__all__ = [
    "Change",
    "ChangeCursor",
    "ChannelProject",
    "Membership",
    "OAuthAccessToken",
    "OAuthApplication",
    "OAuthGrant",
    "OAuthIDToken",
    "OAuthRefreshToken",
    "Organization",
    "PersonalAPIKey",
    "Project",
    "RotatingToken",
    "SlackName",
    "SlackWorkspace",
    "User",
]
