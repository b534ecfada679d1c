"""Slack's Web API: who calls, which method, and the answer in Slack's shape.

Source: https://docs.slack.dev/apis/web-api. A refusal is HTTP 200 with `ok: false`; only a rate
limit has a status of its own (429 with `Retry-After`, see `faults`).
"""

import base64
import json

from devstack.demo_slack import agent_methods, chat_methods, conversation_methods, file_methods
from devstack.demo_slack.api_call import ApiCall, SlackError
from devstack.demo_slack.block_kit import violations
from devstack.demo_slack.events import Events
from devstack.demo_slack.installations import Install, Installations
from devstack.demo_slack.limits import Limits
from devstack.demo_slack.modals import Modals
from devstack.demo_slack.sockets import Sockets
from devstack.demo_slack.workspace import Json, Workspace

_METHODS = (
    agent_methods.METHODS
    | chat_methods.METHODS
    | conversation_methods.METHODS
    | file_methods.METHODS
)
SCOPE = (
    "app_mentions:read,assistant:write,channels:history,channels:read,chat:write,commands,files:read,"
    "files:write,groups:history,groups:read,im:history,im:write,mpim:history,reactions:write,"
    "users:read,users:read.email"
)


class WebAPI:
    """Answers calls of Web API methods from the workspace's state."""

    def __init__(
        self,
        workspace: Workspace,
        installations: Installations,
        events: Events,
        modals: Modals,
        sockets: Sockets,
        base_url: str,
    ) -> None:
        self.workspace = workspace
        self.installations = installations
        self.events = events
        self.modals = modals
        self.sockets = sockets
        self.base_url = base_url
        self.limits = Limits()
        self.rotates_tokens = False
        """Whether bot tokens expire (`token_rotation_enabled` in the app's manifest)."""
        self.violations: list[str] = []
        """What was wrong with blocks so far."""

    def call(self, method: str, authorization: str, arguments: Json) -> Json:
        """Return Slack's answer to a call. `arguments` come from a form or a JSON body."""
        try:
            return {"ok": True, **self._answer(method, authorization, arguments)}
        except SlackError as error:
            refusal: Json = {"ok": False, "error": str(error)}
            if error.details:
                self.violations += error.details
                refusal["response_metadata"] = {"messages": error.details}
            return refusal

    def check_blocks(self, arguments: Json) -> None:
        """Note what is wrong with the blocks of a call that is refused for another reason."""
        blocks = arguments.get("blocks") or "[]"
        listed = json.loads(blocks) if isinstance(blocks, str) else blocks
        self.violations += violations(listed, most=self.limits.blocks)

    def _answer(self, method: str, authorization: str, arguments: Json) -> Json:
        if method == "api.test":
            return {}
        if method == "oauth.v2.access":
            return self._oauth_v2_access(authorization, arguments)
        if method == "apps.connections.open":
            return self.sockets.open(authorization)
        install = self._authenticate(authorization, arguments)
        call = ApiCall(install, arguments, self.workspace, self.base_url, self.limits)
        if method == "auth.test":
            return self._auth_test(install)
        if method == "auth.revoke":
            return self._auth_revoke(call)
        if method == "team.info":
            return {"team": self.workspace.team(install.team_id)}
        if method == "views.open":
            return self.modals.open(call)
        if method == "views.publish":
            return self.modals.publish(call)
        if method not in _METHODS:
            raise SlackError("unknown_method")
        answer = _METHODS[method](call)
        if method == "chat.postMessage":
            self.events.message_posted(install.team_id, answer["channel"], answer["message"])
        elif method == "chat.update":
            self.events.message_changed(install.team_id, answer["channel"], answer["message"])
        elif method == "chat.delete":
            deleted = answer.pop("message")
            self.events.message_deleted(install.team_id, answer["channel"], deleted)
        return answer

    def _authenticate(self, authorization: str, arguments: Json) -> Install:
        scheme, _, bearer = authorization.partition(" ")
        token = bearer.strip() if scheme.lower() == "bearer" else arguments.get("token")
        if not token:
            raise SlackError("not_authed")
        install = self.installations.of_token(str(token))
        if install is None:
            raise SlackError("invalid_auth")
        if not install.active:
            raise SlackError("account_inactive")
        if self.installations.is_expired(install.token):
            raise SlackError("token_expired")
        return install

    def _auth_test(self, install: Install) -> Json:
        bot = self.workspace.user(install.bot_user_id) or {}
        return {
            "url": f"{self.base_url}/",
            "team": self.workspace.team(install.team_id)["name"],
            "user": bot.get("name"),
            "team_id": install.team_id,
            "user_id": install.bot_user_id,
            "bot_id": install.bot_id,
            "is_enterprise_install": False,
        }

    def _auth_revoke(self, call: ApiCall) -> Json:
        if call.is_true("test"):
            return {"revoked": False}
        self.installations.end(call.install.token)
        return {"revoked": True}

    def _oauth_v2_access(self, authorization: str, arguments: Json) -> Json:
        """Exchange a code or a refresh token for a bot token.

        The client is named in the body or by basic authentication.
        """
        scheme, _, encoded = authorization.partition(" ")
        client_id = arguments.get("client_id")
        if scheme.lower() == "basic":
            client_id = base64.b64decode(encoded).decode().partition(":")[0]
        if not client_id:
            raise SlackError("invalid_client_id")
        if arguments.get("grant_type") == "refresh_token":
            refresh_token = str(arguments.get("refresh_token", ""))
            renewed = self.installations.redeem_refresh_token(refresh_token)
            if renewed is None:
                raise SlackError("invalid_refresh_token")
            install = renewed
        else:
            team_id = self.installations.redeem_code(str(arguments.get("code", "")))
            if team_id is None:
                raise SlackError("invalid_code")
            install = self.installations.install(team_id)
        rotation: Json = {}
        if self.rotates_tokens:
            next_token = self.installations.new_refresh_token(install.team_id)
            rotation = {"refresh_token": next_token, "expires_in": 43200}
        return {
            **rotation,
            "access_token": install.token,
            "token_type": "bot",
            "scope": SCOPE,
            "bot_user_id": install.bot_user_id,
            "app_id": install.app_id,
            "team": {"id": install.team_id, "name": self.workspace.team(install.team_id)["name"]},
            "enterprise": None,
            "is_enterprise_install": False,
            "authed_user": {"id": "U1"},
        }
