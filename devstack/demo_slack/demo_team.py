"""The team that the demo and every test start with."""

from devstack.demo_slack.installations import Installations
from devstack.demo_slack.workspace import Workspace

TEAM = "T1"
BOT = "UBOT"


def add_demo_team(
    workspace: Workspace, installations: Installations, bot_name: str, token: str
) -> None:
    """Add two members, a guest, two channels, and the bot with its token."""
    workspace.add_team(TEAM, "Acme")
    owner = {"is_admin": True, "profile": {"email": "olivia@acme.example"}}
    workspace.add_user(TEAM, "U1", "Olivia Owner", **owner)
    workspace.add_user(TEAM, "U2", "Carl Colleague", profile={"email": "carl@acme.example"})
    guest = {"is_restricted": True, "profile": {"email": "gwen@guests.example"}}
    workspace.add_user(TEAM, "U3", "Gwen Guest", **guest)
    workspace.add_user(TEAM, BOT, bot_name, is_bot=True, profile={"bot_id": "B1"})
    workspace.add_channel(TEAM, "C1", "general", is_general=True)
    workspace.add_channel(TEAM, "C2", "engineering")
    installations.add(TEAM, token, "A1", BOT, "B1")
