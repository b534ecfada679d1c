"""What a person does to the bot's messages: select menus, buttons and slash commands.

Sources: https://docs.slack.dev/reference/interaction-payloads and
https://docs.slack.dev/interactivity/implementing-slash-commands.
"""

import json
import time
from typing import Any
from urllib.parse import urlencode

from devstack.demo_slack.block_kit import answer_violations
from devstack.demo_slack.events import Answer, Events, SignedRequest, sign
from devstack.demo_slack.installations import Installations
from devstack.demo_slack.modals import Modals
from devstack.demo_slack.response_urls import Place, ResponseURLs
from devstack.demo_slack.workspace import Json, Workspace

INTERACTIVITY_PATH = "/slack/interactivity/"
COMMANDS_PATH = "/slack/commands/"
_OURS = {"visible_to", "reactions"}  # fields that the page adds
FORM = "application/x-www-form-urlencoded"


class Interactions:
    """Builds and sends signed payloads, and handles what the app posts to a `response_url`."""

    def __init__(
        self,
        workspace: Workspace,
        installations: Installations,
        response_urls: ResponseURLs,
        events: Events,
        modals: Modals,
        base_url: str,
    ) -> None:
        self.workspace = workspace
        self.installations = installations
        self.response_urls = response_urls
        self.modals = modals
        self.events = events
        self.base_url = base_url

    # --- payloads --------------------------------------------------------------------------------

    def block_suggestion(
        self, message: Json, channel: str, user: str, block_id: str, action_id: str, typed: str
    ) -> Json:
        """Return the request for an external select's options, sent while the user types."""
        return {
            "type": "block_suggestion",
            **self._scene(message, channel, user),
            "block_id": block_id,
            "action_id": action_id,
            "value": typed,
        }

    def block_actions(self, message: Json, channel: str, user: str, action: Json) -> Json:
        """Return what is sent when a user has chosen or clicked.

        `action` carries `type`, `block_id`, `action_id`, and `selected_option` or `value`.
        """
        chosen = {key: action[key] for key in ("type", "selected_option") if key in action}
        return {
            "type": "block_actions",
            **self._scene(message, channel, user),
            "trigger_id": self.modals.trigger(user),
            "response_url": self._response_url(
                Place(channel, user, message["ts"], message.get("thread_ts", ""))
            ),
            "state": {"values": {action["block_id"]: {action["action_id"]: chosen}}},
            "actions": [{**action, "action_ts": f"{time.time():.6f}"}],
        }

    def home_actions(self, user: str, view: Json, action: Json) -> Json:
        """Return what is sent when a user has clicked in the app's Home tab."""
        return {
            "type": "block_actions",
            **self._sender(user),
            "container": {"type": "view", "view_id": view["id"]},
            "view": view,
            "trigger_id": self.modals.trigger(user),
            "actions": [{**action, "action_ts": f"{time.time():.6f}"}],
        }

    def view_submission(self, user: str, view: Json, values: Json) -> Json:
        """Return what is sent when a user submits a modal. `values` are its fields by block."""
        return {
            "type": "view_submission",
            **self._sender(user),
            "trigger_id": self.modals.trigger(user),
            "view": {**view, "state": {"values": values}},
            "response_urls": [],
        }

    def slash_command(self, channel: str, user: str, command: str, text: str) -> dict[str, str]:
        """Return the fields of a slash command."""
        sender = self._user(user)
        team = self.workspace.team(sender["team_id"])
        install = self.installations.of_team(team["id"])
        return {
            "token": "deprecated",
            "team_id": team["id"],
            "team_domain": team["domain"],
            "channel_id": channel,
            "channel_name": self._channel(channel)["name"],
            "user_id": user,
            "user_name": sender["name"],
            "command": command,
            "text": text,
            "api_app_id": install.app_id if install else "A1",
            "is_enterprise_install": "false",
            "response_url": self._response_url(Place(channel, user, "", "")),
            "trigger_id": self.modals.trigger(user),
        }

    def _scene(self, message: Json, channel: str, user: str) -> Json:
        is_attached = bool(message.get("attachments")) and not message.get("blocks")
        container = {
            "type": "message_attachment" if is_attached else "message",
            "message_ts": message["ts"],
            "channel_id": channel,
            "is_ephemeral": bool(message.get("visible_to")),
        }
        if is_attached:
            container |= {"attachment_id": 1, "is_app_unfurl": False}
        if "thread_ts" in message:
            container["thread_ts"] = message["thread_ts"]
        return {
            **self._sender(user),
            "container": container,
            "channel": {"id": channel, "name": self._channel(channel)["name"]},
            "message": {key: message[key] for key in message.keys() - _OURS},
        }

    def _sender(self, user: str) -> Json:
        """Return the fields about the person who acts, their team and the app."""
        sender = self._user(user)
        team = self.workspace.team(sender["team_id"])
        install = self.installations.of_team(team["id"])
        return {
            "user": {
                "id": user,
                "username": sender["name"],
                "name": sender["name"],
                "team_id": team["id"],
            },
            "team": {"id": team["id"], "domain": team["domain"]},
            "enterprise": None,
            "is_enterprise_install": False,
            "api_app_id": install.app_id if install else "A1",
            "token": "deprecated",
        }

    def _user(self, user_id: str) -> Json:
        user = self.workspace.user(user_id)
        if user is None:
            raise LookupError(f"no user {user_id}")
        return user

    def _channel(self, channel_id: str) -> Json:
        channel = self.workspace.channel(channel_id)
        if channel is None:
            raise LookupError(f"no channel {channel_id}")
        return channel

    # --- sending ---------------------------------------------------------------------------------

    def signed_payload(self, payload: Json) -> SignedRequest:
        """Return the signed request that carries an interaction."""
        return self._signed(INTERACTIVITY_PATH, {"payload": json.dumps(payload)})

    async def suggestions(self, payload: Json) -> list[Json]:
        """Return the options that the app offers. Raise `LookupError` if it does not answer."""
        answer = await self.events.send(self.signed_payload(payload))
        parsed = _parsed(answer)
        if "options" in parsed:
            return list(parsed["options"])
        groups = parsed.get("option_groups", [])
        return [option for group in groups for option in group["options"]]

    async def act(self, payload: Json) -> None:
        """Send the app a click. Raise `LookupError` if it does not answer."""
        _parsed(await self.events.send(self.signed_payload(payload)))

    async def submit(self, payload: Json) -> dict[str, str]:
        """Send the app a submitted modal and return its errors by block. Without errors, close it.

        Raise `LookupError` if the app does not answer.
        """
        parsed = _parsed(await self.events.send(self.signed_payload(payload)))
        if parsed.get("response_action") == "errors":
            return dict(parsed["errors"])
        self.modals.close(payload["user"]["id"])
        return {}

    async def command(self, fields: dict[str, str]) -> None:
        """Run a slash command and show its answer. Raise `LookupError` if there is none."""
        answer = await self.events.send(self._signed(COMMANDS_PATH, fields))
        parsed = _parsed(answer)
        if parsed:
            self._show(parsed, fields["channel_id"], fields["user_id"], "")

    def _signed(self, path: str, fields: dict[str, str]) -> SignedRequest:
        return sign(self.events.signing_secret, path, urlencode(fields).encode(), FORM)

    # --- posts to a response_url -----------------------------------------------------------------

    def _response_url(self, place: Place) -> str:
        return f"{self.base_url}/respond/{self.response_urls.give(place)}"

    def respond(self, key: str, body: Json) -> bool:
        """Do what the app posted to a `response_url`. Return whether the URL was still valid."""
        place = self.response_urls.use(key)
        if place is None or answer_violations(body):
            return False
        if body.get("delete_original") and place.ts:
            self.workspace.delete_message(place.channel, place.ts)
        elif body.get("replace_original") and place.ts:
            fields = {"text": body.get("text", ""), "blocks": body.get("blocks", [])}
            self.workspace.change_message(place.channel, place.ts, fields)
        else:
            self._show(body, place.channel, place.user, place.thread_ts)
        return True

    def _show(self, body: Json, channel: str, user: str, thread_ts: str) -> None:
        install = self.installations.of_team(self._user(user)["team_id"])
        if install is None:
            return
        message: Json = {
            "user": install.bot_user_id,
            "bot_id": install.bot_id,
            "team": install.team_id,
            "text": body.get("text", ""),
        }
        if body.get("blocks"):
            message["blocks"] = body["blocks"]
        if thread_ts := body.get("thread_ts") or thread_ts:
            message["thread_ts"] = thread_ts
        in_channel = body.get("response_type") == "in_channel"
        self.workspace.add_message(channel, message, visible_to=None if in_channel else user)


def _parsed(answer: Answer) -> Json:
    """Return the JSON of a good answer. Plain text becomes `text`, an empty body `{}`."""
    if not 200 <= answer.status < 300:
        raise LookupError(answer.reason or f"the app answered {answer.status}")
    try:
        parsed: Any = json.loads(answer.body)
    except ValueError:
        return {"text": answer.body.decode("utf-8", "replace")} if answer.body.strip() else {}
    if not isinstance(parsed, dict):
        return {}
    if found := answer_violations(parsed):
        raise LookupError(f"the app gave a wrong answer: {found[0]}")
    return parsed
