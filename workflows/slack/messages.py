"""What is told of a Slack message alike, whether an event brings it or a thread is read.

Pure, and trusts no shape. https://docs.slack.dev/reference/events/message/
"""

import re
from collections.abc import Mapping
from typing import Any

from coding_tasks.storable import storable

_SUBTYPES = {"", "file_share", "thread_broadcast"}
_MARKS_OF_A_BOT = ("bot_id", "bot_profile", "app_id")
_SLACKBOT = "USLACKBOT"
_LONGEST = 40_000
# No "<" inside: of very many that are never closed, each would be searched to the end of the text.
_TAG = re.compile(r"<@([A-Za-z0-9_-]{1,32})(?:\|[^<>]*)?>", re.ASCII)


def is_written_by_a_person(message: Mapping[str, Any]) -> bool:
    """Return whether a person wrote this: not a bot, and not an edit, a join or the like."""
    subtype = message.get("subtype") or ""
    return (
        isinstance(subtype, str)
        and subtype in _SUBTYPES
        and not any(message.get(mark) for mark in _MARKS_OF_A_BOT)
        and message.get("user") != _SLACKBOT
    )


def text_of(message: Mapping[str, Any]) -> str:
    """Return what is kept of a message's text."""
    text = message.get("text")
    return storable(text[:_LONGEST]) if isinstance(text, str) else ""


def tagged(text: str) -> frozenset[str]:
    """Return the ids of the users that a text names."""
    return frozenset(_TAG.findall(text))
