"""Handle envelopes with the functions that answer Slack's HTTP requests."""

import json
from collections.abc import Callable
from typing import Any

import structlog
from django.db import Error as StoreError
from django.http import HttpResponse
from slack_sdk.socket_mode.request import SocketModeRequest
from slack_sdk.socket_mode.response import SocketModeResponse

from slack_bot import arrivals
from slack_bot.commands import answer_command
from slack_bot.interactivity import answer_interaction
from slack_bot.models import SlackArrival
from slack_bot.payloads import mapping, text
from slack_bot.views import take_event

log = structlog.get_logger(__name__)

_ANSWERS: dict[str, Callable[[dict[str, Any]], HttpResponse]] = {
    "events_api": take_event,
    "interactive": answer_interaction,
    "slash_commands": answer_command,
}
KINDS = tuple(_ANSWERS)
_NAMES = {
    "events_api": "events",
    "interactive": "interactivity",
    "slash_commands": "commands",
}
"""The last part of the path to which Slack would send the same payload over HTTP."""


def read(message: dict[str, Any]) -> SocketModeRequest | None:
    """Return the envelope in a message, or None if it is something else. Never raises."""
    envelope_id = message.get("envelope_id")
    if not isinstance(envelope_id, str):
        return None
    return SocketModeRequest(
        type=text(message.get("type"), 50),
        envelope_id=envelope_id,
        payload=mapping(message.get("payload")),
        accepts_response_payload=message.get("accepts_response_payload") is True,
    )


def acknowledge(request: SocketModeRequest) -> SocketModeResponse | None:
    """Do what the envelope asks for, and return its acknowledgement.

    Return None where HTTP would answer with an error. Slack then delivers an event again, and shows
    a person that their click or command failed. An unknown kind is acknowledged, because Slack
    would only deliver it again.
    """
    answer = _ANSWERS.get(request.type)
    if answer is None:
        return SocketModeResponse(request.envelope_id)
    try:
        answered = answer(request.payload)
    except StoreError as error:
        log.warning("an envelope was not recorded", kind=request.type, error=type(error).__name__)
        return None
    except Exception:
        log.exception("an envelope was not handled", kind=request.type)
        return None
    if answered.status_code != 200:
        return None
    arrivals.note(SlackArrival.Way.SOCKET, _NAMES[request.type])
    payload = json.loads(answered.content) if answered.content else None
    return SocketModeResponse(
        request.envelope_id, payload if request.accepts_response_payload else None
    )
