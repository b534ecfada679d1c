"""The Events API: the webhook, and the handling of events from it and from Socket Mode.

Slack allows three seconds, so nothing here calls Slack.
"""

from typing import Any

import structlog
from django.http import HttpRequest, HttpResponse, JsonResponse

from slack_bot import events, inbox, installations, payloads
from slack_bot.signature import signed_by_slack

log = structlog.get_logger(__name__)


@signed_by_slack
def receive_event(_request: HttpRequest, body: bytes) -> HttpResponse:
    """Answer 200 to everything that Slack signed, after recording what matters.

    If we answered errors to junk, Slack would count them and could disable the app everywhere.
    """
    payload = payloads.parse(body)
    if payload.get("type") == "url_verification":
        return JsonResponse({"challenge": payloads.text(payload.get("challenge"))})
    return take_event(payload)


def take_event(payload: dict[str, Any]) -> HttpResponse:
    """Record what an event says, and act on it. Answer 200, so that Slack doesn't send it again.

    Raises `django.db.Error` only if nothing was recorded.
    """
    if payload.get("type") == "app_rate_limited":
        log.warning("Slack is holding back events: a workspace has more than 30,000 an hour")
    match events.read(payload):
        case events.Post() as post:
            inbox.receive(post)
        case events.Edited() | events.Deleted() as change:
            inbox.receive_change(change)
        case events.HomeOpened() as opened:
            inbox.receive_opening(opened)
        case events.SessionStopped() as stopped:
            inbox.receive_session_stop(stopped)
        case events.Uninstalled() as uninstalled:
            installations.end(uninstalled)
        case None:
            pass
    return HttpResponse()
