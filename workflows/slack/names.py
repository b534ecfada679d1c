"""Ask Slack for the names of its users and channels."""

from collections import defaultdict
from collections.abc import Mapping
from typing import Any

import structlog
from django.utils import timezone

from projects.models import SlackName, SlackWorkspace
from projects.slack import names as slack_names
from workflows.slack import pauses
from workflows.slack.client import Meaning, client_for, failure_of

log = structlog.get_logger(__name__)

PER_WORKSPACE = 8
"""Names to look up at a time: every ten seconds, this is within Slack's rate limits."""
TIMEOUT = 5
_METHODS = {"U": "users.info", "W": "users.info", "C": "conversations.info"}
_WAIT = (Meaning.LATER, Meaning.UNKNOWN)


def look_up_due() -> None:
    """Look up some of the names that pages asked for, workspace by workspace."""
    by_workspace: dict[int, list[SlackName]] = defaultdict(list)
    for row in slack_names.due().order_by("pk")[:500]:
        by_workspace[row.workspace_id].append(row)
    for workspace in SlackWorkspace.objects.filter(pk__in=list(by_workspace)):
        for row in by_workspace[workspace.pk][:PER_WORKSPACE]:
            if not _look_up(workspace, row):
                break


def _look_up(workspace: SlackWorkspace, row: SlackName) -> bool:
    """Look one name up. Return whether the workspace takes more calls now."""
    now = timezone.now()
    method = _METHODS.get(row.slack_id[:1], "conversations.info")
    pause = pauses.find(workspace.pk, [method], now)
    if pause.until is not None:
        return False
    try:
        name = _ask(workspace, row.slack_id, method)
    except Exception as error:
        failure = failure_of(error)
        if failure is None:
            raise
        pauses.note_failure(workspace.pk, failure, now)
        if failure.meaning in _WAIT:
            return False
        log.info("slack gives no name", slack_id=row.slack_id, error=failure.error)
        slack_names.store(row, None)
        return failure.meaning is not Meaning.DISCONNECTED
    if pause.is_trial:
        pauses.note_answer(workspace.pk)
    slack_names.store(row, name)
    return True


def _ask(workspace: SlackWorkspace, slack_id: str, method: str) -> str:
    client = client_for(workspace, TIMEOUT)
    if method == "users.info":
        return _name_of_user(client.users_info(user=slack_id)["user"] or {})
    channel = client.conversations_info(channel=slack_id)["channel"] or {}
    name = str(channel.get("name") or "")
    return f"#{name}" if name else ""


def _name_of_user(user: Mapping[str, Any]) -> str:
    """Return what people call a user: https://docs.slack.dev/reference/objects/user-object/."""
    profile = user.get("profile") or {}
    names = (profile.get("display_name"), profile.get("real_name"), user.get("name"))
    return next((str(name) for name in names if name), "")
