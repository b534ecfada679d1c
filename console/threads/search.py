"""Parsing what people type to find a Slack thread: a permalink, a channel and ts, or a user."""

import re
from dataclasses import dataclass
from urllib.parse import parse_qs, urlsplit

_ARCHIVE = re.compile(r"/archives/(?P<channel>[A-Z0-9]{2,32})/p(?P<digits>\d{7,30})/?", re.ASCII)
_MESSAGE = re.compile(
    r"(?P<channel>[A-Z][A-Z0-9]{0,31})[\s/,:]+(?P<ts>\d{1,20}\.\d{1,12})", re.ASCII
)
_USER = re.compile(r"(?:<@)?(?P<user>[UW][A-Z0-9]{0,31})(?:\|[^>]*)?>?", re.ASCII)
_TS = re.compile(r"\d{1,20}\.\d{1,12}", re.ASCII)


@dataclass(frozen=True, slots=True)
class Message:
    """A message in a channel, and the root of its thread if the link names it."""

    channel_id: str
    ts: str
    thread_ts: str | None = None


@dataclass(frozen=True, slots=True)
class SlackUser:
    """A Slack user, `U…` or `W…`."""

    user_id: str


def parse_query(text: str) -> Message | SlackUser | None:
    """Return the message or user that the text names, or None if it names neither.

    A permalink is `…/archives/C…/p1700000000123456`. If the message is a reply, the query names the
    root of the thread: https://docs.slack.dev/reference/methods/chat.getPermalink/
    """
    text = text.strip().strip("<>") if "://" in text else text.strip()
    if "://" in text:
        return _permalink(text)
    if found := _MESSAGE.fullmatch(text):
        return Message(found["channel"], found["ts"])
    if found := _USER.fullmatch(text):
        return SlackUser(found["user"])
    return None


def _permalink(text: str) -> Message | None:
    try:
        address = urlsplit(text)
        root = parse_qs(address.query).get("thread_ts", [""])[0]
    except ValueError:
        return None
    found = _ARCHIVE.fullmatch(address.path)
    if found is None:
        return None
    digits = found["digits"]
    ts = f"{digits[:-6]}.{digits[-6:]}"
    return Message(found["channel"], ts, root if _TS.fullmatch(root) else None)
