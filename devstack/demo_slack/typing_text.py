"""Turns typed text into the text that Slack stores: escaped, names and links in angle brackets.

Source: https://docs.slack.dev/messaging/formatting-message-text
"""

import re
from collections.abc import Iterable

from devstack.demo_slack.workspace import Json

_LINK = re.compile(r"https?://[^\s<>|]+")
_BROADCAST = re.compile(r"@(channel|here|everyone)\b")


def as_stored(typed: str, users: Iterable[Json], channels: Iterable[Json]) -> str:
    """Return the stored text: `@Carl Colleague` becomes `<@U2>`, `#general` becomes `<#C1|…>`."""
    text = typed.replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;")
    text = _LINK.sub(lambda link: f"<{link.group()}>", text)
    text = _BROADCAST.sub(lambda word: f"<!{word.group(1)}>", text)
    names = {
        name: user["id"]
        for user in users
        for name in (user["real_name"], user["name"], user["real_name"].partition(" ")[0])
    }
    for name in sorted(names, key=len, reverse=True):
        text = re.sub(rf"@{re.escape(name)}\b", f"<@{names[name]}>", text, flags=re.IGNORECASE)
    for channel in channels:
        name = channel["name"]
        text = re.sub(rf"#{re.escape(name)}\b", f"<#{channel['id']}|{name}>", text)
    return text
