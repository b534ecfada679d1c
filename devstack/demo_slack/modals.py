"""Views: modals that an app opens after a click, and the app's Home tab of each person.

Sources: https://docs.slack.dev/surfaces/modals, https://docs.slack.dev/surfaces/app-home,
https://docs.slack.dev/reference/methods/views.open and
https://docs.slack.dev/reference/methods/views.publish.
"""

import json
import time
import uuid
from collections.abc import Iterator

from devstack.demo_slack.api_call import ApiCall, SlackError
from devstack.demo_slack.block_kit import text_violations, violations
from devstack.demo_slack.workspace import Json

TRIGGER_SECONDS = 3
_LONGEST_TITLE = 24
_MOST_BLOCKS = 100
_LARGEST_VIEW = 250_000
_LONGEST = {"callback_id": 255, "external_id": 255, "private_metadata": 3000}
_OF_ANY_VIEW = {"type", "blocks", *_LONGEST}
_OF_A_MODAL = {"title", "submit", "close", "clear_on_close", "notify_on_close", "submit_disabled"}


class Modals:
    """The views that each person sees, and the clicks that may still open a modal."""

    def __init__(self) -> None:
        self._triggers: dict[str, tuple[str, float]] = {}
        self._open: dict[str, Json] = {}
        self._homes: dict[str, Json] = {}
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
        if view.get("type") != "modal":
            raise SlackError("invalid_arguments", ["view.type: not modal"])
        _check(view)
        self._open[user] = _shown(call, view)
        self.version += 1
        return {"view": self._open[user]}

    def publish(self, call: ApiCall) -> Json:
        """`views.publish`."""
        user = call.workspace.user(call.text("user_id"))
        if user is None or user["team_id"] != call.install.team_id:
            raise SlackError("user_not_found")
        view = call.structured("view", dict, "invalid_arguments") or {}
        if view.get("type") != "home":
            raise SlackError("invalid_arguments", ["view.type: not home"])
        _check(view)
        self._homes[user["id"]] = _shown(call, view)
        self.version += 1
        return {"view": self._homes[user["id"]]}

    def home_of(self, user: str) -> Json | None:
        """Return the Home tab that a user sees, or None if the app published none."""
        return self._homes.get(user)

    def clear(self) -> None:
        """Forget all views."""
        self._open, self._homes = {}, {}
        self.version += 1

    def of(self, user: str) -> Json | None:
        """Return the modal that a user sees, or None."""
        return self._open.get(user)

    def close(self, user: str) -> None:
        """Close a user's modal."""
        self._open.pop(user, None)
        self.version += 1


def _shown(call: ApiCall, view: Json) -> Json:
    return {
        **view,
        "id": f"V{uuid.uuid4().hex[:10].upper()}",
        "team_id": call.install.team_id,
        "state": {"values": {}},
    }


def _check(view: Json) -> None:
    """Refuse what Slack refuses. Source: https://docs.slack.dev/reference/views/."""
    if len(json.dumps(view)) > _LARGEST_VIEW:
        raise SlackError("view_too_large", ["view: more than 250 kB"])
    if found := list(_violations(view)):
        raise SlackError("invalid_arguments", found)


def _violations(view: Json) -> Iterator[str]:
    is_modal = view.get("type") == "modal"
    known = _OF_ANY_VIEW | _OF_A_MODAL if is_modal else _OF_ANY_VIEW
    for name in sorted(view.keys() - known):
        yield f"view.{name}: an unknown field"
    for name, most in _LONGEST.items():
        if len(str(view.get(name, ""))) > most:
            yield f"view.{name}: more than {most} characters"
    blocks = view.get("blocks")
    if not isinstance(blocks, list) or not blocks:
        yield "view.blocks: none"
        return
    yield from violations(blocks, most=_MOST_BLOCKS, in_view=True)
    if is_modal:
        has_input = any(block.get("type") == "input" for block in blocks)
        needed = {"title", "submit"} if has_input else {"title"}
        for name in ("title", "submit", "close"):
            if name in needed or name in view:
                yield from text_violations(view.get(name), f"view.{name}", _LONGEST_TITLE)
