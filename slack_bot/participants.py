"""Clicks on the buttons that let others join a task, or remove them from it."""

from django.conf import settings

from projects.models import SlackWorkspace
from slack_bot.asker import access_of
from workflows import participants, wording
from workflows.intake import mentions
from workflows.participants import Place
from workflows.slack import access


def take_click(
    workspace: SlackWorkspace, user_id: str, action: str, place: Place, clicked_at: str
) -> None:
    """Handle a click on a button in one of the workspace's threads.

    Only the owner's click counts. Others are told so once, in a message that only they see.
    """
    task = participants.task_in(workspace, place)
    if task is None:
        return
    owner_id = task.owner_slack_user_id
    if user_id != owner_id:
        words = wording.join_not_yours(user_id, owner_id=owner_id)
        participants.tell_alone(task, user_id, "not-yours", words)
        return
    decider = wording.person(owner_id)
    if action == participants.REMOVE:
        participants.remove(task, place.user_id, owner_id, decider=decider)
        return
    if refusal := _refusal(workspace, place.user_id):
        participants.tell_alone(task, owner_id, f"refused:{clicked_at}", refusal)
        return
    refused = participants.let_join(task, place.user_id, owner_id, decider=decider)
    if refused is None:
        participants.tell_alone(task, owner_id, f"ended:{clicked_at}", wording.join_too_late())
    for each in refused or []:
        each.refresh_from_db(fields=["state", "outcome", "lease_until"])
        mentions.admit_or_keep(each)


def _refusal(workspace: SlackWorkspace, user_id: str) -> str:
    """Return why somebody may not use the bot, or an empty string if they may."""
    answer = access_of(workspace, user_id)
    if answer is None:
        return wording.join_unknown(user_id)
    if answer is access.Access.GRANTED:
        return ""
    return wording.join_without_access(user_id, bot_name=settings.BOT_NAME)
