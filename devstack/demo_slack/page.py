"""The page on which a person plays a Slack user."""

import base64
import uuid
from pathlib import Path

from starlette.requests import Request
from starlette.responses import FileResponse, JSONResponse, Response
from starlette.routing import BaseRoute, Route

from devstack.demo_slack.database import Database
from devstack.demo_slack.events import Events
from devstack.demo_slack.file_methods import Files, media_type
from devstack.demo_slack.interactions import Interactions
from devstack.demo_slack.typing_text import as_stored
from devstack.demo_slack.workspace import Json, Workspace

SHOWN = 200  # messages of a channel, the newest
MOST_ATTACHED = 10  # files of a message, as in Slack
LARGEST_ATTACHED = 20_000_000  # bytes
_HTML = Path(__file__).with_name("page.html")
_POLICY = (
    "default-src 'none'; style-src 'unsafe-inline'; script-src 'unsafe-inline'; connect-src 'self';"
    " img-src 'self' data:; form-action 'none'; frame-ancestors 'none'; base-uri 'none'"
)


class Page:
    """Serves the page and handles its requests. A refusal is HTTP 422 with a sentence."""

    def __init__(
        self,
        database: Database,
        workspace: Workspace,
        events: Events,
        interactions: Interactions,
        files: Files,
        base_url: str,
    ) -> None:
        self.database = database
        self.workspace = workspace
        self.events = events
        self.interactions = interactions
        self.files = files
        self.base_url = base_url

    def routes(self) -> list[BaseRoute]:
        """Return the page's paths."""
        return [
            Route("/", self._html),
            Route("/archives/{channel}/{message}", self._html),
            Route("/page/state", self._state),
            Route("/page/messages", self._post, methods=["POST"]),
            Route("/page/options", self._options, methods=["POST"]),
            Route("/page/actions", self._act, methods=["POST"]),
            Route("/page/home", self._open_home, methods=["POST"]),
            Route("/page/home/actions", self._act_in_home, methods=["POST"]),
            Route("/page/sessions/stop", self._stop_session, methods=["POST"]),
            Route("/page/modal", self._submit, methods=["POST"]),
            Route("/page/modal/close", self._close, methods=["POST"]),
        ]

    async def _html(self, _request: Request) -> Response:
        return FileResponse(_HTML, headers={"Content-Security-Policy": _POLICY})

    async def _state(self, request: Request) -> Response:
        """Return everything that the user sees, or 204 if nothing changed since `version`."""
        user = request.query_params.get("user", "")
        modals = self.interactions.modals
        version = f"{self.database.version}.{modals.version}.{user}"
        if request.query_params.get("version") == version:
            return Response(status_code=204)
        bots = [user for user in self.workspace.users() if user["is_bot"]]
        channels = [
            channel
            for channel in self.workspace.channels()
            if not channel.get("is_im") or channel["user"] == user
        ]
        return JSONResponse(
            {
                "version": version,
                "team": self.workspace.team("T1"),
                "bot": bots[0] if bots else None,
                "users": self.workspace.users(),
                "channels": channels,
                "messages": {
                    channel["id"]: self.workspace.seen_by(user, channel["id"])[-SHOWN:]
                    for channel in channels
                },
                "sessions": {
                    channel["id"]: self.workspace.sessions(channel["id"]) for channel in channels
                },
                "modal": modals.of(user),
                "home": modals.home_of(user),
                "undelivered": [
                    {"attempts": pending.attempt, "reason": pending.reason}
                    for pending in self.events.outbox.due(float("inf"))
                    if pending.attempt
                ],
            }
        )

    async def _post(self, request: Request) -> Response:
        """Post what a person typed. A text that begins with `/` is a slash command."""
        body = await _body(request)
        user, channel = str(body.get("user")), str(body.get("channel"))
        typed = str(body.get("text") or "").strip()
        sender = self.workspace.user(user)
        if sender is None or self.workspace.channel(channel) is None:
            return _refusal("This person or channel does not exist.")
        attached = _attached(body.get("files"))
        if attached is None:
            return _refusal("At most 10 files of 20 MB can be attached.")
        if not typed and not attached:
            return _refusal("There is nothing to post.")
        if typed.startswith("/"):
            return await self._command(user, channel, typed)
        message: Json = {
            "user": user,
            "team": sender["team_id"],
            "text": as_stored(typed, self.workspace.users(), self.workspace.channels()),
            "client_msg_id": str(uuid.uuid4()),
        }
        if body.get("thread_ts"):
            message["thread_ts"] = str(body["thread_ts"])
        if attached:
            message["subtype"] = "file_share"
            message["files"] = [
                self.files.attach(name, content, media_type(content), self.base_url)
                for name, content in attached
            ]
        message = self.workspace.add_message(channel, message)
        self.events.message_posted(sender["team_id"], channel, message)
        return JSONResponse({"ok": True, "message": message})

    async def _command(self, user: str, channel: str, typed: str) -> Response:
        command, _, text = typed.partition(" ")
        fields = self.interactions.slash_command(channel, user, command, text.strip())
        try:
            await self.interactions.command(fields)
        except LookupError as error:
            return _refusal(f"{command} failed: {error}")
        return JSONResponse({"ok": True})

    async def _options(self, request: Request) -> Response:
        """Return the options that the app offers for an external select."""
        body = await _body(request)
        message = self._clicked(body)
        if message is None:
            return _refusal("The message is gone.")
        payload = self.interactions.block_suggestion(
            message,
            body["channel"],
            body["user"],
            str(body.get("block_id", "")),
            str(body.get("action_id", "")),
            str(body.get("value", "")),
        )
        try:
            return JSONResponse({"options": await self.interactions.suggestions(payload)})
        except LookupError as error:
            return _refusal(f"The app gave no options: {error}")

    async def _act(self, request: Request) -> Response:
        """Send the app a clicked button or a chosen option."""
        body = await _body(request)
        message = self._clicked(body)
        action = body.get("action")
        if message is None or not isinstance(action, dict):
            return _refusal("The message is gone.")
        payload = self.interactions.block_actions(message, body["channel"], body["user"], action)
        try:
            await self.interactions.act(payload)
        except LookupError as error:
            return _refusal(f"The app did not accept it: {error}")
        return JSONResponse({"ok": True})

    async def _open_home(self, request: Request) -> Response:
        """Tell the app that a person opened its Home tab."""
        user = str((await _body(request)).get("user"))
        channel = self.workspace.direct_channel(user)
        if channel is None:
            return _refusal("This person does not exist.")
        self.events.home_opened(channel["context_team_id"], user, channel["id"])
        return JSONResponse({"ok": True})

    async def _act_in_home(self, request: Request) -> Response:
        """Send the app a button that was clicked in its Home tab."""
        body = await _body(request)
        user, action = str(body.get("user")), body.get("action")
        view = self.interactions.modals.home_of(user)
        if view is None or not isinstance(action, dict):
            return _refusal("The tab is gone.")
        try:
            await self.interactions.act(self.interactions.home_actions(user, view, action))
        except LookupError as error:
            return _refusal(f"The app did not accept it: {error}")
        return JSONResponse({"ok": True})

    async def _stop_session(self, request: Request) -> Response:
        """Tell the app that a person clicked the stop button of an agent session."""
        body = await _body(request)
        user, channel = self.workspace.user(str(body.get("user"))), str(body.get("channel"))
        thread = str(body.get("thread_ts"))
        if user is None or self.workspace.session(channel, thread) is None:
            return _refusal("There is nothing to stop.")
        self.events.session_stopped(user["team_id"], channel, thread, user["id"])
        return JSONResponse({"ok": True})

    async def _submit(self, request: Request) -> Response:
        """Send the app the modal that a person filled in; return the errors that it shows."""
        body = await _body(request)
        user = str(body.get("user"))
        view, values = self.interactions.modals.of(user), body.get("values")
        if view is None or not isinstance(values, dict):
            return _refusal("The form is closed.")
        payload = self.interactions.view_submission(user, view, values)
        try:
            return JSONResponse({"errors": await self.interactions.submit(payload)})
        except LookupError as error:
            return _refusal(f"The app did not accept it: {error}")

    async def _close(self, request: Request) -> Response:
        self.interactions.modals.close(str((await _body(request)).get("user")))
        return JSONResponse({"ok": True})

    def _clicked(self, body: Json) -> Json | None:
        """Return the message whose control was used, if the person can see it."""
        channel, user = str(body.get("channel")), str(body.get("user"))
        if self.workspace.user(user) is None:
            return None
        seen = self.workspace.seen_by(user, channel)
        return next((message for message in seen if message["ts"] == body.get("ts")), None)


async def _body(request: Request) -> Json:
    try:
        body = await request.json()
    except ValueError:
        return {}
    return body if isinstance(body, dict) else {}


def _attached(files: object) -> list[tuple[str, bytes]] | None:
    """Return the names and contents of attached files, or None if they are too many or wrong."""
    given = files if isinstance(files, list) else []
    if len(given) > MOST_ATTACHED:
        return None
    found = []
    for file in given:
        try:
            content = base64.b64decode(file["content"], validate=True)
        except (KeyError, TypeError, ValueError):
            return None
        if not content or len(content) > LARGEST_ATTACHED:
            return None
        found.append((str(file.get("name") or "file"), content))
    return found


def _refusal(sentence: str) -> Response:
    return JSONResponse({"ok": False, "error": sentence}, 422)
