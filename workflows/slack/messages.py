"""Reading Slack messages, from events and from threads, without trusting their shape.

https://docs.slack.dev/reference/events/message/
"""

import re
from collections.abc import Mapping
from typing import Any

from coding_tasks.storable import storable

_SUBTYPES = {"", "file_share", "thread_broadcast"}
_BOT_FIELDS = ("bot_id", "bot_profile", "app_id")
_SLACKBOT = "USLACKBOT"
_LONGEST = 40_000
_UNSAFE_IN_NAMES = re.compile(r"[^\w .,()+@#-]")
# "<" is excluded inside: otherwise each unclosed one is searched to the end of the text.
_TAG = re.compile(r"<@([A-Za-z0-9_-]{1,32})(?:\|[^<>]*)?>", re.ASCII)


def is_written_by_a_person(message: Mapping[str, Any]) -> bool:
    """Return whether a person wrote this: not a bot, and not an edit, a join or the like."""
    subtype = message.get("subtype") or ""
    return (
        isinstance(subtype, str)
        and subtype in _SUBTYPES
        and not any(message.get(name) for name in _BOT_FIELDS)
        and message.get("user") != _SLACKBOT
    )


def text_of(message: Mapping[str, Any]) -> str:
    """Return the message's text as it is stored."""
    text = message.get("text")
    return storable(text[:_LONGEST]) if isinstance(text, str) else ""


def tagged(text: str) -> frozenset[str]:
    """Return the ids of the users mentioned in a text."""
    return frozenset(_TAG.findall(text))


def author_of(message: Mapping[str, Any]) -> str:
    """Return the user id or the name of a message's author, safe to quote."""
    return safe_name(message.get("user") or message.get("username") or "A bot", 80)


def safe_name(name: Any, at_most: int) -> str:
    """Return a name that somebody chose, without characters that could end a quotation."""
    return _UNSAFE_IN_NAMES.sub("_", str(name))[:at_most]


def dictionaries(value: Any) -> list[Mapping[str, Any]]:
    """Return the dictionaries of a list, or an empty list if the value is not a list."""
    return [each for each in value if isinstance(each, dict)] if isinstance(value, list) else []
