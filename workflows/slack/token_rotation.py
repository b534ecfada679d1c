"""Renew the bot tokens of apps with token rotation, before they expire.

https://docs.slack.dev/authentication/using-token-rotation/
"""

from datetime import datetime, timedelta

import structlog
from cryptography.fernet import InvalidToken
from django.conf import settings
from django.utils import timezone
from slack_sdk.web import SlackResponse

from projects.models import RotatingToken
from projects.slack import rotating_tokens
from workflows.metrics import TOKEN_REFRESHES
from workflows.slack.client import TIMEOUT, Failure, Meaning, failure_of, web_client

log = structlog.get_logger(__name__)

_AGAIN = timedelta(minutes=1)
_AFTER_REFUSAL = timedelta(minutes=10)
"""A refusal can last until somebody corrects SLACK_CLIENT_ID or SLACK_CLIENT_SECRET."""
_FINAL = {"invalid_refresh_token", "invalid_grant", "authorization_not_found"}
"""The refresh token is spent or revoked. Only a new installation gives another."""


def refresh(token: RotatingToken, now: datetime) -> None:
    """Renew one token, unless another process does. The old one stays until there is a new one."""
    lease = rotating_tokens.claim(token, now)
    if lease is None:
        return
    if not (settings.SLACK_CLIENT_ID and settings.SLACK_CLIENT_SECRET):
        problem = "SLACK_CLIENT_ID or SLACK_CLIENT_SECRET is not set"
        _give_up(token, lease, problem, now + _AFTER_REFUSAL, "refused")
        return
    try:
        answer = web_client(timeout=TIMEOUT).oauth_v2_access(
            client_id=settings.SLACK_CLIENT_ID,
            client_secret=settings.SLACK_CLIENT_SECRET,
            grant_type="refresh_token",
            refresh_token=token.refresh_token,
        )
    except InvalidToken:
        problem = "unreadable with this SECRET_KEY"
        _give_up(token, lease, problem, now + _AFTER_REFUSAL, "refused")
    except Exception as error:
        failure = failure_of(error)
        if failure is None:
            raise
        _take_failure(token, lease, failure, now)
    else:
        _take_answer(token, lease, answer)


def _take_answer(token: RotatingToken, lease: datetime, answer: SlackResponse) -> None:
    now = timezone.now()
    bot_token, refresh_token = answer.get("access_token"), answer.get("refresh_token")
    seconds = answer.get("expires_in")
    if not (bot_token and refresh_token and isinstance(seconds, int) and seconds > 0):
        _give_up(token, lease, "an incomplete answer", now + _AFTER_REFUSAL, "refused")
        return
    lifetime = timedelta(seconds=seconds)
    if rotating_tokens.replace(token, lease, str(bot_token), str(refresh_token), lifetime, now):
        TOKEN_REFRESHES.labels(outcome="renewed").inc()
        log.info("a bot token was renewed", workspace=token.workspace_id)


def _take_failure(token: RotatingToken, lease: datetime, failure: Failure, now: datetime) -> None:
    if failure.error in _FINAL:
        _give_up(token, lease, failure.error, None, "final")
    elif failure.meaning in (Meaning.LATER, Meaning.UNKNOWN):
        wait = timedelta(seconds=failure.retry_after or 0)
        _give_up(token, lease, failure.error, now + max(wait, _AGAIN), "failed")
    else:
        _give_up(token, lease, failure.error, now + _AFTER_REFUSAL, "refused")


def _give_up(
    token: RotatingToken, lease: datetime, problem: str, again: datetime | None, outcome: str
) -> None:
    """Leave the token to the next attempt, or to somebody who installs the app again."""
    rotating_tokens.postpone(token, lease, problem, again)
    TOKEN_REFRESHES.labels(outcome=outcome).inc()
    say = log.warning if outcome == "failed" else log.error
    say("a bot token was not renewed", workspace=token.workspace_id, problem=problem)
