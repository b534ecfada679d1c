"""Modals: what an app opens after a click, and what a person submits.

Sources: https://docs.slack.dev/surfaces/modals and
https://docs.slack.dev/reference/methods/views.open.
"""

import time
import uuid

from devstack.demo_slack.api_call import ApiCall, SlackError
from devstack.demo_slack.workspace import Json

TRIGGER_SECONDS = 3
_LONGEST_TITLE = 24
_MOST_BLOCKS = 100


class Modals:
    """The modal that each person sees, and the clicks that may still open one."""

    def __init__(self) -> None:
        self._triggers: dict[str, tuple[str, float]] = {}
        self._open: dict[str, Json] = {}
        self.version = 0

    def trigger(self, user: str) -> str:
        """Return the id of a user's click, with which the app can open one modal."""
        now = time.monotonic()
        trigger = f"{time.time_ns() // 1_000_000}.{uuid.uuid4().int % 10**10}.{uuid.uuid4().hex}"
        self._triggers = {
            each: given
            for each, given in self._triggers.items()
            if now - given[1] <= 2 * TRIGGER_SECONDS
        }
        self._triggers[trigger] = (user, now)
        return trigger

    def open(self, call: ApiCall) -> Json:
        """`views.open`."""
        user, clicked = self._triggers.pop(call.text("trigger_id"), ("", 0.0))
        if not user:
            raise SlackError("invalid_trigger_id")
        if time.monotonic() - clicked > TRIGGER_SECONDS:
            raise SlackError("expired_trigger_id")
        view = call.structured("view", dict, "invalid_arguments") or {}
        _check(view)
        self._open[user] = {
            **view,
            "id": f"V{uuid.uuid4().hex[:10].upper()}",
            "team_id": call.install.team_id,
            "state": {"values": {}},
        }
        self.version += 1
        return {"view": self._open[user]}

    def of(self, user: str) -> Json | None:
        """Return the modal that a user sees, or None."""
        return self._open.get(user)

    def close(self, user: str) -> None:
        """Close a user's modal."""
        self._open.pop(user, None)
        self.version += 1


def _check(view: Json) -> None:
    """Refuse what Slack refuses: no title, no blocks, or fields without a button to submit them."""
    title = (view.get("title") or {}).get("text") or ""
    blocks = view.get("blocks")
    if view.get("type") != "modal" or not 0 < len(title) <= _LONGEST_TITLE:
        raise SlackError("invalid_arguments")
    if not isinstance(blocks, list) or not 0 < len(blocks) <= _MOST_BLOCKS:
        raise SlackError("invalid_arguments")
    if any(block.get("type") == "input" for block in blocks) and not view.get("submit"):
        raise SlackError("invalid_arguments")
