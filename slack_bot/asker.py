"""Whether the person who gave a command or clicked may use the bot, asked of Slack at once."""

import structlog

from projects.models import SlackWorkspace
from workflows import wording
from workflows.slack import access
from workflows.slack.client import failure_of

log = structlog.get_logger(__name__)

SLACK_TIMEOUT = 2
"""Seconds to wait for Slack, which itself waits three for our answer."""


def access_of(workspace: SlackWorkspace, user_id: str) -> access.Access | None:
    """Return what somebody may do, or None if Slack does not say so now."""
    try:
        return access.check(workspace, user_id, timeout=SLACK_TIMEOUT)
    except Exception as error:
        failure = failure_of(error)
        if failure is None:
            raise
        log.warning("slack did not say who somebody is", error=failure.error)
        return None


def no_access(workspace: SlackWorkspace, user_id: str) -> str | None:
    """Return what to tell somebody who may not use the bot, or None if they may."""
    answer = access_of(workspace, user_id)
    if answer is None:
        return wording.asker_unknown()
    if answer is access.Access.GRANTED:
        return None
    return access.refusal_text(workspace, answer, user_id)
