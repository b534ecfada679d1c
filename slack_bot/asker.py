"""Ask Slack whether the person who gave a command or clicked may use the bot."""

import structlog

from projects.models import SlackWorkspace
from workflows import wording
from workflows.slack import access
from workflows.slack.client import failure_of

log = structlog.get_logger(__name__)

SLACK_TIMEOUT = 2
"""Seconds to wait for Slack, which waits three seconds for our answer."""


def access_of(workspace: SlackWorkspace, user_id: str) -> access.Access | None:
    """Return whether somebody may use the bot, or None if Slack fails to answer."""
    try:
        return access.check(workspace, user_id, timeout=SLACK_TIMEOUT)
    except Exception as error:
        failure = failure_of(error)
        if failure is None:
            raise
        log.warning("slack did not answer who a user is", error=failure.error)
        return None


def no_access(workspace: SlackWorkspace, user_id: str) -> str | None:
    """Return what to tell somebody who may not use the bot, or None if they may."""
    answer = access_of(workspace, user_id)
    if answer is None:
        return wording.asker_unknown()
    if answer is access.Access.GRANTED:
        return None
    return access.refusal_text(workspace, answer, user_id)
