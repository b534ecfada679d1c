"""Slack's Web API: the methods a bot like ours calls, with Slack's own answers and errors.

Source: https://docs.slack.dev/reference/methods. A refusal is HTTP 200 with `ok: false`; only a
rate limit has a status of its own (429 with `Retry-After`).
"""

import base64
import json
from collections.abc import Callable
from typing import Any

from devstack.demo_slack.events import Events
from devstack.demo_slack.workspace import Install, Json, Workspace

MAX_TEXT = 40_000
MAX_BLOCKS = 50


class SlackError(Exception):
    """A refusal by its name in Slack's documentation."""


class WebAPI:
    """Answers calls of Web API methods out of the workspace's state."""

    def __init__(self, workspace: Workspace, events: Events, base_url: str) -> None:
        self.workspace = workspace
        self.events = events
        self.base_url = base_url
        self._methods: dict[str, Callable[[Install, Json], Json]] = {
            "auth.test": self._auth_test,
            "auth.revoke": self._auth_revoke,
            "chat.delete": self._chat_delete,
            "chat.getPermalink": self._chat_get_permalink,
            "chat.postEphemeral": self._chat_post_ephemeral,
            "chat.postMessage": self._chat_post_message,
            "chat.update": self._chat_update,
            "conversations.history": self._conversations_history,
            "conversations.info": self._conversations_info,
            "conversations.replies": self._conversations_replies,
            "reactions.add": self._reactions_add,
            "reactions.remove": self._reactions_remove,
            "team.info": self._team_info,
            "users.conversations": self._users_conversations,
            "users.info": self._users_info,
        }

    def call(self, method: str, authorization: str, arguments: Json) -> Json:
        """Return Slack's answer to a call; `arguments` come from a form or a JSON body."""
        try:
            if method == "api.test":
                return {"ok": True}
            if method == "oauth.v2.access":
                return {"ok": True, **self._oauth_v2_access(authorization, arguments)}
            if method not in self._methods:
                raise SlackError("unknown_method")
            install = self._authenticate(authorization, arguments)
            return {"ok": True, **self._methods[method](install, arguments)}
        except SlackError as error:
            return {"ok": False, "error": str(error)}

    def _authenticate(self, authorization: str, arguments: Json) -> Install:
        scheme, _, bearer = authorization.partition(" ")
        token = bearer.strip() if scheme.lower() == "bearer" else arguments.get("token")
        if not token:
            raise SlackError("not_authed")
        install = self.workspace.install_of_token(str(token))
        if install is None:
            raise SlackError("invalid_auth")
        if not install.active:
            raise SlackError("account_inactive")
        return install

    # --- auth.*, oauth.*, team.* -----------------------------------------------------------------

    def _auth_test(self, install: Install, _arguments: Json) -> Json:
        team = self.workspace.team(install.team_id)
        bot = self.workspace.user(install.bot_user_id) or {}
        return {
            "url": f"{self.base_url}/",
            "team": team["name"],
            "user": bot.get("name"),
            "team_id": install.team_id,
            "user_id": install.bot_user_id,
            "bot_id": install.bot_id,
            "is_enterprise_install": False,
        }

    def _auth_revoke(self, install: Install, arguments: Json) -> Json:
        if _is_true(arguments.get("test")):
            return {"revoked": False}
        self.workspace.uninstall(install.token)
        return {"revoked": True}

    def _oauth_v2_access(self, authorization: str, arguments: Json) -> Json:
        scheme, _, encoded = authorization.partition(" ")
        client_id = arguments.get("client_id")
        if scheme.lower() == "basic":
            client_id = base64.b64decode(encoded).decode().partition(":")[0]
        if not client_id:
            raise SlackError("invalid_client_id")
        team_id = self.workspace.redeem_code(str(arguments.get("code", "")))
        if team_id is None:
            raise SlackError("invalid_code")
        install = self.workspace.install_of_team(team_id)
        if install is None:
            token = f"xoxb-demo-{team_id}"
            self.workspace.install(team_id, token, "A1", "UBOT", "B1")
            install = self.workspace.install_of_team(team_id)
            assert install is not None
        team = self.workspace.team(team_id)
        return {
            "access_token": install.token,
            "token_type": "bot",
            "scope": "app_mentions:read,channels:history,chat:write,commands,reactions:write",
            "bot_user_id": install.bot_user_id,
            "app_id": install.app_id,
            "team": {"id": team_id, "name": team["name"]},
            "enterprise": None,
            "is_enterprise_install": False,
            "authed_user": {"id": "U1"},
        }

    def _team_info(self, install: Install, _arguments: Json) -> Json:
        return {"team": self.workspace.team(install.team_id)}

    # --- chat.* ----------------------------------------------------------------------------------

    def _chat_post_message(self, install: Install, arguments: Json) -> Json:
        channel = self._channel(install, arguments)
        if channel["is_archived"]:
            raise SlackError("is_archived")
        if not channel["is_member"]:
            raise SlackError("not_in_channel")
        message = self.workspace.add_message(channel["id"], self._content(install, arguments))
        self.events.message_posted(install.team_id, channel["id"], message)
        return {"channel": channel["id"], "ts": message["ts"], "message": message}

    def _chat_post_ephemeral(self, install: Install, arguments: Json) -> Json:
        channel = self._channel(install, arguments)
        user = self.workspace.user(str(arguments.get("user", "")))
        if user is None or user["team_id"] != install.team_id:
            raise SlackError("user_not_in_channel")
        message = self.workspace.add_message(
            channel["id"], self._content(install, arguments), visible_to=user["id"]
        )
        return {"message_ts": message["ts"]}

    def _chat_update(self, install: Install, arguments: Json) -> Json:
        channel = self._channel(install, arguments)
        old = self._own_message(install, channel["id"], arguments, "cant_update_message")
        new = self._content(install, arguments | {"thread_ts": old.get("thread_ts")})
        new["edited"] = {"user": install.bot_user_id, "ts": f"{old['ts'].partition('.')[0]}.000000"}
        message = self.workspace.change_message(channel["id"], old["ts"], {"blocks": [], **new})
        return {
            "channel": channel["id"],
            "ts": old["ts"],
            "text": message["text"],
            "message": message,
        }

    def _chat_delete(self, install: Install, arguments: Json) -> Json:
        channel = self._channel(install, arguments)
        message = self._own_message(install, channel["id"], arguments, "cant_delete_message")
        self.workspace.delete_message(channel["id"], message["ts"])
        return {"channel": channel["id"], "ts": message["ts"]}

    def _chat_get_permalink(self, install: Install, arguments: Json) -> Json:
        channel = self._channel(install, arguments)
        message = self._message(channel["id"], arguments.get("message_ts"))
        link = f"{self.base_url}/archives/{channel['id']}/p{message['ts'].replace('.', '')}"
        if message.get("thread_ts"):
            link += f"?thread_ts={message['thread_ts']}&cid={channel['id']}"
        return {"channel": channel["id"], "permalink": link}

    def _content(self, install: Install, arguments: Json) -> Json:
        text = arguments.get("text") or ""
        blocks = _structured(arguments, "blocks", list, "invalid_blocks") or []
        if not text and not blocks and not arguments.get("attachments"):
            raise SlackError("no_text")
        if len(text) > MAX_TEXT:
            raise SlackError("msg_too_long")
        if len(blocks) > MAX_BLOCKS or not all(
            isinstance(block, dict) and block.get("type") for block in blocks
        ):
            raise SlackError("invalid_blocks")
        message: Json = {
            "user": install.bot_user_id,
            "bot_id": install.bot_id,
            "app_id": install.app_id,
            "team": install.team_id,
            "text": text,
        }
        if blocks:
            message["blocks"] = blocks
        metadata = _structured(arguments, "metadata", dict, "invalid_metadata_format")
        if metadata is not None:
            if not {"event_type", "event_payload"} <= metadata.keys():
                raise SlackError("invalid_metadata_schema")
            message["metadata"] = metadata
        if arguments.get("thread_ts"):
            message["thread_ts"] = str(arguments["thread_ts"])
        return message

    # --- conversations.*, users.* ----------------------------------------------------------------

    def _conversations_info(self, install: Install, arguments: Json) -> Json:
        return {"channel": self._channel(install, arguments)}

    def _conversations_replies(self, install: Install, arguments: Json) -> Json:
        channel = self._channel(install, arguments)
        wanted = str(arguments.get("ts", ""))
        message = self.workspace.message(channel["id"], wanted)
        root = message.get("thread_ts", wanted) if message else wanted
        thread = self.workspace.thread(channel["id"], root)
        if not thread:
            raise SlackError("thread_not_found")
        if len(thread) > 1 and thread[0]["ts"] == root:
            thread[0] |= {
                "thread_ts": root,
                "reply_count": len(thread) - 1,
                "latest_reply": thread[-1]["ts"],
            }
        return self._page(channel["id"], thread, arguments)

    def _conversations_history(self, install: Install, arguments: Json) -> Json:
        channel = self._channel(install, arguments)
        roots = [
            {key: value for key, value in message.items() if key != "visible_to"}
            for message in self.workspace.messages(channel["id"])
            if message.get("thread_ts", message["ts"]) == message["ts"]
        ]
        return self._page(channel["id"], roots[::-1], arguments)

    def _page(self, channel: str, messages: list[Json], arguments: Json) -> Json:
        oldest, latest = arguments.get("oldest"), arguments.get("latest")
        inclusive = _is_true(arguments.get("inclusive"))
        messages = [message for message in messages if _within(message, oldest, latest, inclusive)]
        limit = max(1, min(int(arguments.get("limit") or 1000), 1000))
        start = _offset(arguments.get("cursor"))
        page = messages[start : start + limit]
        for message in page:
            if not _is_true(arguments.get("include_all_metadata")):
                message.pop("metadata", None)
            if reactions := self.workspace.reactions(channel, message["ts"]):
                message["reactions"] = reactions
        more = start + limit < len(messages)
        cursor = base64.b64encode(f"offset:{start + limit}".encode()).decode() if more else ""
        return {
            "messages": page,
            "has_more": more,
            "response_metadata": {"next_cursor": cursor},
        }

    def _users_info(self, install: Install, arguments: Json) -> Json:
        user = self.workspace.user(str(arguments.get("user", "")))
        if user is None or not (user["team_id"] == install.team_id or user["is_stranger"]):
            raise SlackError("user_not_found")
        return {"user": user}

    def _users_conversations(self, install: Install, _arguments: Json) -> Json:
        channels = [
            channel
            for channel in self.workspace.channels()
            if channel["context_team_id"] == install.team_id and channel["is_member"]
        ]
        return {"channels": channels, "response_metadata": {"next_cursor": ""}}

    # --- reactions.* -----------------------------------------------------------------------------

    def _reactions_add(self, install: Install, arguments: Json) -> Json:
        channel, ts, name = self._reacted(install, arguments)
        if not self.workspace.add_reaction(channel, ts, name, install.bot_user_id):
            raise SlackError("already_reacted")
        return {}

    def _reactions_remove(self, install: Install, arguments: Json) -> Json:
        channel, ts, name = self._reacted(install, arguments)
        if not self.workspace.remove_reaction(channel, ts, name, install.bot_user_id):
            raise SlackError("no_reaction")
        return {}

    def _reacted(self, install: Install, arguments: Json) -> tuple[str, str, str]:
        name = str(arguments.get("name", "")).strip(":")
        if not name:
            raise SlackError("invalid_name")
        channel = self._channel(install, arguments)
        return channel["id"], self._message(channel["id"], arguments.get("timestamp"))["ts"], name

    # --- what several methods look up ------------------------------------------------------------

    def _channel(self, install: Install, arguments: Json) -> Json:
        channel = self.workspace.channel(str(arguments.get("channel", "")))
        if channel is None or channel["context_team_id"] != install.team_id:
            raise SlackError("channel_not_found")
        return channel

    def _message(self, channel: str, ts: Any) -> Json:
        message = self.workspace.message(channel, str(ts or ""))
        if message is None:
            raise SlackError("message_not_found")
        return message

    def _own_message(self, install: Install, channel: str, arguments: Json, refusal: str) -> Json:
        message = self._message(channel, arguments.get("ts"))
        if message.get("bot_id") != install.bot_id:
            raise SlackError(refusal)
        return message


def _is_true(value: Any) -> bool:
    return str(value).lower() in {"true", "1"}


def _structured(arguments: Json, name: str, kind: type, refusal: str) -> Any:
    """Return an argument that is JSON in a JSON body, and JSON text in a form."""
    value = arguments.get(name)
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


def _within(message: Json, oldest: Any, latest: Any, inclusive: bool) -> bool:
    ts = message["ts"]
    if oldest and not (ts > str(oldest) or (inclusive and ts == str(oldest))):
        return False
    return not latest or ts < str(latest) or (inclusive and ts == str(latest))


def _offset(cursor: Any) -> int:
    if not cursor:
        return 0
    try:
        return int(base64.b64decode(str(cursor)).decode().removeprefix("offset:"))
    except ValueError:
        raise SlackError("invalid_cursor") from None
