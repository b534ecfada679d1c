"""One call of a Web API method: its arguments, and the look-ups that several methods share."""

import base64
import json
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from devstack.demo_slack.installations import Install
from devstack.demo_slack.limits import Limits
from devstack.demo_slack.workspace import Json, Workspace


class SlackError(Exception):
    """A refusal: the error's name in Slack's documentation, and what exactly is wrong."""

    def __init__(self, name: str, details: Sequence[str] = ()) -> None:
        super().__init__(name)
        self.details = list(details)


@dataclass(frozen=True)
class ApiCall:
    """A call by an authenticated app."""

    install: Install
    arguments: Json
    workspace: Workspace
    base_url: str
    limits: Limits = field(default_factory=Limits)

    def text(self, name: str) -> str:
        """Return an argument as text, or "" if it is missing."""
        value = self.arguments.get(name)
        return "" if value is None else str(value)

    def is_true(self, name: str) -> bool:
        """Return whether an argument is true, in a form or in JSON."""
        return self.text(name).lower() in {"true", "1"}

    def structured(self, name: str, kind: type, refusal: str) -> Any:
        """Return a structured argument, or None. A form carries it as JSON text."""
        value = self.arguments.get(name)
        if isinstance(value, str) and value:
            try:
                value = json.loads(value)
            except ValueError:
                raise SlackError(refusal) from None
        if value in (None, ""):
            return None
        if not isinstance(value, kind):
            raise SlackError(refusal)
        return value

    def author(self) -> Json:
        """Return the fields of a message that describe the app that posts it."""
        return {
            "user": self.install.bot_user_id,
            "bot_id": self.install.bot_id,
            "app_id": self.install.app_id,
            "team": self.install.team_id,
        }

    def channel(self, name: str = "channel") -> Json:
        """Return the channel that the argument names. It must be in the app's team."""
        channel = self.workspace.channel(self.text(name))
        if channel is None or channel["context_team_id"] != self.install.team_id:
            raise SlackError("channel_not_found")
        return channel

    def message(self, channel: str, name: str) -> Json:
        """Return the message with the argument's `ts`."""
        message = self.workspace.message(channel, self.text(name))
        if message is None:
            raise SlackError("message_not_found")
        return message

    def page(self, items: list[Json]) -> tuple[list[Json], str]:
        """Return the page that `limit` and `cursor` ask for, and the cursor of the next one."""
        limit = max(1, min(int(self.text("limit") or 1000), 1000))
        start = self._offset()
        more = start + limit < len(items)
        cursor = base64.b64encode(f"offset:{start + limit}".encode()).decode() if more else ""
        return items[start : start + limit], cursor

    def _offset(self) -> int:
        cursor = self.text("cursor")
        try:
            return int(base64.b64decode(cursor).decode().removeprefix("offset:")) if cursor else 0
        except ValueError:
            raise SlackError("invalid_cursor") from None
