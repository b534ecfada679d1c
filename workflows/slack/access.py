"""Who may use the bot: the workspace's setting, applied to the person's Slack profile."""

from collections.abc import Mapping
from dataclasses import dataclass
from enum import Enum
from typing import Any

from django.conf import settings
from slack_sdk.errors import SlackApiError

from projects.models import Membership, SlackWorkspace
from workflows import wording
from workflows.slack.client import TIMEOUT, client_for

# https://docs.slack.dev/reference/methods/users.info/#errors
_UNKNOWN_USER = {"user_not_found", "user_not_visible"}


@dataclass(frozen=True, slots=True)
class Person:
    """The parts of a user in Slack (`users.info`) that access depends on."""

    team_id: str
    enterprise_id: str
    email: str
    is_guest: bool
    is_stranger: bool
    is_bot: bool
    is_deleted: bool

    @classmethod
    def from_slack(cls, user: Mapping[str, Any]) -> "Person":
        """Read Slack's user object. An unconfirmed e-mail address is ignored.

        https://docs.slack.dev/reference/objects/user-object/
        """
        profile = user.get("profile") or {}
        confirmed = user.get("is_email_confirmed", True)
        return cls(
            team_id=user.get("team_id") or "",
            enterprise_id=(user.get("enterprise_user") or {}).get("enterprise_id") or "",
            email=(profile.get("email") or "") if confirmed else "",
            is_guest=bool(user.get("is_restricted") or user.get("is_ultra_restricted")),
            is_stranger=bool(user.get("is_stranger")),
            is_bot=bool(user.get("is_bot")),
            is_deleted=bool(user.get("deleted")),
        )


class Access(Enum):
    """Whether a person may use the bot, and if not, why not."""

    GRANTED = "granted"
    OUTSIDER = "outsider"
    NOT_A_MEMBER = "not_a_member"


def decide(workspace: SlackWorkspace, person: Person, *, is_member: bool) -> Access:
    """Return whether the person may use the bot of this workspace, and if not, why not.

    People from other teams never may: their own team controls their profile and e-mail address.
    """
    if (
        person.is_bot
        or person.is_deleted
        or person.is_stranger
        or not _belongs_to(workspace, person)
    ):
        return Access.OUTSIDER
    if workspace.access == SlackWorkspace.Access.MEMBERS:
        return Access.GRANTED if is_member else Access.NOT_A_MEMBER
    return Access.OUTSIDER if person.is_guest else Access.GRANTED


def check(workspace: SlackWorkspace, user_id: str, timeout: int = TIMEOUT) -> Access:
    """Ask Slack who the user is, and decide. Wait `timeout` seconds for Slack.

    Raises what a Slack call raises.
    """
    try:
        answer = client_for(workspace, timeout).users_info(user=user_id)
    except SlackApiError as error:
        if error.response.get("error") in _UNKNOWN_USER:
            return Access.OUTSIDER
        raise
    person = Person.from_slack(answer["user"] or {})
    return decide(workspace, person, is_member=_is_member(workspace, person.email))


def refusal_text(workspace: SlackWorkspace, access: Access, user_id: str) -> str:
    """Return what to tell somebody who was not granted access."""
    if access is Access.NOT_A_MEMBER:
        return wording.no_access_without_membership(
            user_id,
            bot_name=settings.BOT_NAME,
            organization=workspace.project.organization.name,
        )
    return wording.no_access_for_outsiders(user_id, bot_name=settings.BOT_NAME)


def _belongs_to(workspace: SlackWorkspace, person: Person) -> bool:
    if workspace.enterprise_id and person.enterprise_id == workspace.enterprise_id:
        return True
    return not person.team_id or person.team_id == workspace.team_id


def _is_member(workspace: SlackWorkspace, email: str) -> bool:
    return bool(email) and (
        Membership.objects.filter(
            organization_id=workspace.project.organization_id,
            user__email__iexact=email,
            user__is_active=True,
        ).exists()
    )
