"""Slack and the model for tests: the demo servers in a thread, with methods that cause faults.

    with FakeSlack() as slack:
        slack.fail_next("chat.postMessage", "ratelimited", status=429, retry_after=1)

Both are real HTTP servers at `url` on a free port. Any thread can call the methods.
"""

import json
import threading
import time
import uuid
from typing import Any, Literal, Self
from urllib.parse import urlencode

import uvicorn

from devstack.demo_model.app import DemoModel, Recorded
from devstack.demo_model.script import Reply, Usage
from devstack.demo_slack.app import Call, DemoSlack
from devstack.demo_slack.demo_team import add_demo_team
from devstack.demo_slack.events import SignedRequest, sign
from devstack.demo_slack.faults import Fault
from devstack.demo_slack.sockets import APP_TOKEN
from devstack.servers import free_port

Json = dict[str, Any]
SIGNING_SECRET = "8f742231b10e8888abcd99yyyzzz85a5"
BOT_TOKEN = "xoxb-demo"
BOT_USER = "UBOT"


class _Server:
    """Serves an ASGI application from a thread of this process."""

    def __init__(self) -> None:
        self.port = free_port()
        self.url = f"http://127.0.0.1:{self.port}"
        self._server: uvicorn.Server | None = None

    def _start(self, app: Any, ws: Literal["none", "websockets-sansio"] = "none") -> None:
        config = uvicorn.Config(
            app,
            host="127.0.0.1",
            port=self.port,
            log_config=None,
            log_level="warning",
            access_log=False,
            ws=ws,
            http="httptools",
        )
        config.timeout_graceful_shutdown = 1
        self._server = uvicorn.Server(config)
        self._thread = threading.Thread(target=self._server.run, daemon=True)
        self._thread.start()
        deadline = time.monotonic() + 60
        while not self._server.started:
            assert self._thread.is_alive(), "the fake died while starting"
            assert time.monotonic() < deadline, "the fake did not start in time"
            time.sleep(0.002)

    def stop(self) -> None:
        """Stop serving. The port refuses connections afterwards."""
        if self._server is not None:
            self._server.should_exit = True
            self._thread.join(10)
            self._server = None

    def __exit__(self, *_exception: object) -> None:
        self.stop()


class FakeSlack(_Server):
    """A Slack with team T1 (token xoxb-demo), people U1, U2 and guest U3, channels C1 and C2.

    With `app_url` it delivers signed events of every post to that address. Without it, tests pass
    the requests that `signed` returns to the view.
    """

    def __init__(
        self,
        app_url: str = "",
        signing_secret: str = SIGNING_SECRET,
        retry_after: tuple[float, ...] = (0.05, 0.1, 0.2),
    ) -> None:
        super().__init__()
        self.signing_secret = signing_secret
        self.slack = DemoSlack(self.url, app_url, signing_secret, retry_after=retry_after)
        self.api_url = f"{self.url}/api/"
        self.reset()

    def __enter__(self) -> Self:
        self._start(self.slack.app, ws="websockets-sansio")
        return self

    def stop(self) -> None:
        """Stop serving and delete everything."""
        super().stop()
        self.slack.database.close()

    def reset(self) -> None:
        """Return to the default team without messages, calls, or faults."""
        self.slack.forget_calls()
        self.slack.faults.clear()
        self.slack.limits.reset()
        self.slack.web_api.violations = []
        self.slack.sockets.is_on = False
        self.slack.web_api.rotates_tokens = False
        self.slack.modals.clear()
        self.slack.database.clear()
        add_demo_team(self.slack.workspace, self.slack.installations, "Tollgate", BOT_TOKEN)

    def use_socket_mode(self) -> str:
        """Send everything over the app's sockets from now on; return the app-level token."""
        self.slack.sockets.is_on = True
        return APP_TOKEN

    def rotate_tokens(self) -> None:
        """Give out bot tokens that expire, with refresh tokens, from now on."""
        self.slack.web_api.rotates_tokens = True

    def expire(self, token: str = BOT_TOKEN) -> None:
        """Answer calls with this token with `token_expired` from now on."""
        self.slack.installations.expire(token)

    # --- people, channels and messages -----------------------------------------------------------

    def add_user(self, user_id: str, name: str = "", team: str = "T1", **fields: Any) -> None:
        """Add a person; `email=`, `is_restricted=`, `is_bot=`, `deleted=` … as Slack names them."""
        if "email" in fields:
            fields["profile"] = {"email": fields.pop("email"), **fields.get("profile", {})}
        self.slack.workspace.add_user(team, user_id, name or user_id, **fields)

    def add_channel(self, channel_id: str, name: str = "", team: str = "T1", **fields: Any) -> None:
        """Add a channel; `is_ext_shared=`, `is_archived=`, `is_member=` … as Slack names them."""
        self.slack.workspace.add_channel(team, channel_id, name or channel_id.lower(), **fields)

    def install(
        self, team: str, token: str, bot_user: str = BOT_USER, bot_id: str = "B1", app: str = "A1"
    ) -> None:
        """Add another team with the app installed in it."""
        self.slack.workspace.add_team(team, f"Team {team}")
        self.slack.installations.add(team, token, app, bot_user, bot_id)

    def new_code(self, team: str = "T1") -> str:
        """Return an authorization code, as if somebody had agreed to the installation."""
        return self.slack.installations.new_code(team)

    def uninstall(self, token: str = BOT_TOKEN) -> None:
        """Answer calls with this token with `account_inactive` from now on."""
        self.slack.installations.end(token)

    def messages(self, channel: str = "C1", thread_ts: str | None = None) -> list[Json]:
        """Return a channel's or a thread's messages, oldest first, without ephemeral ones."""
        if thread_ts is not None:
            return self.slack.workspace.thread(channel, thread_ts)
        return self.slack.workspace.messages(channel)

    def bot_messages(self, channel: str = "C1", thread_ts: str | None = None) -> list[Json]:
        """Return the bot's messages among `messages`."""
        return [message for message in self.messages(channel, thread_ts) if message.get("bot_id")]

    def ephemeral_messages(self, channel: str = "C1") -> list[Json]:
        """Return the ephemeral messages, each with `visible_to`."""
        return self.slack.workspace.ephemeral_messages(channel)

    def violations(self) -> list[str]:
        """Return what was wrong with the blocks that were sent."""
        return self.slack.web_api.violations

    def delete(self, message: Json, channel: str = "C1") -> None:
        """Delete a message as a person does."""
        self.slack.workspace.delete_message(channel, message["ts"])

    def reactions(self, channel: str, ts: str) -> list[str]:
        """Return the names of a message's reactions."""
        return [reaction["name"] for reaction in self.slack.workspace.reactions(channel, ts)]

    def calls(self, method: str | None = None) -> list[Call]:
        """Return the Web API calls so far (`method`, `arguments`, `answer`), oldest first."""
        return self.slack.calls(method)

    def direct_messages(self, user: str = "U1") -> list[Json]:
        """Return the direct messages between the bot and a person, oldest first."""
        return self.messages(f"D{user}")

    def home(self, user: str = "U1") -> Json | None:
        """Return a person's Home tab, or None if none was published."""
        return self.slack.modals.home_of(user)

    def session(self, thread_ts: str, channel: str = "C1") -> Json | None:
        """Return the agent session of a thread, or None."""
        return self.slack.workspace.session(channel, thread_ts)

    def attach(self, name: str, content: bytes, mimetype: str = "text/plain") -> Json:
        """Keep a person's file; return the file object for `post(…, files=[…])`."""
        return self.slack.files.attach(name, content, mimetype, self.url)

    def file(self, message: Json) -> str:
        """Return the content of a message's one file."""
        [file] = message["files"]
        content = self.slack.files.content(file["id"])
        assert content is not None
        return content.decode()

    # --- faults ----------------------------------------------------------------------------------

    def fail_next(
        self,
        method: str,
        error: str = "ratelimited",
        *,
        status: int | None = None,
        retry_after: int | None = None,
        times: int = 1,
    ) -> None:
        """Answer the next calls of the method (`*`: any) with the error and do nothing else."""
        if status is None:
            status = 429 if error == "ratelimited" else 200
        if status == 429 and retry_after is None:
            retry_after = 1
        self.slack.faults.add(method, Fault(error, status, retry_after), times)

    def take_at_most(self, characters: int) -> None:
        """Refuse longer texts from now on (`msg_too_long`)."""
        self.slack.limits.text = characters

    def hang_next(self, method: str, seconds: float, times: int = 1) -> None:
        """Let the next calls of the method wait before they take effect and are answered."""
        self.slack.faults.add(method, Fault(hang=seconds), times)

    def drop_answer_next(self, method: str, times: int = 1) -> None:
        """Let the next calls take effect, but close the connection without an answer."""
        self.slack.faults.add(method, Fault(drop=True), times)

    # --- events and requests from Slack ----------------------------------------------------------

    def post(
        self,
        text: str = f"<@{BOT_USER}> please look",
        *,
        user: str = "U1",
        channel: str = "C1",
        thread_ts: str | None = None,
        ts: str | None = None,
        team: str = "T1",
        **fields: Any,
    ) -> Json:
        """Post as a person and return the message. With an `app_url`, deliver its events."""
        message: Json = {"user": user, "text": text, "team": team, **fields}
        message.setdefault("client_msg_id", str(uuid.uuid4()))
        if thread_ts is not None:
            message["thread_ts"] = thread_ts
        message = self.slack.workspace.add_message(channel, message, ts=ts)
        self.slack.events.message_posted(team, channel, message)
        return message

    def event(
        self,
        message: Json,
        kind: str = "app_mention",
        *,
        channel: str = "C1",
        team: str = "T1",
        event_id: str | None = None,
    ) -> Json:
        """Return the event envelope of a message, as `app_mention` or `message`."""
        return self.slack.events.envelope(message, channel, kind, team, event_id)

    def event_of(self, event: Json, *, team: str = "T1", event_id: str | None = None) -> Json:
        """Return the event envelope of any inner event."""
        return self.slack.events.event_envelope(event, team, event_id)

    def signed(
        self,
        path: str,
        payload: Json | bytes,
        *,
        content_type: str = "application/json",
        timestamp: int | None = None,
        secret: str | None = None,
    ) -> SignedRequest:
        """Return the signed request (`path`, `body`, `headers`) for a payload.

        A dict becomes JSON, or with a form's content type a form (values that are not text become
        JSON, as in `payload=`). Bytes are sent unchanged.
        """
        body = payload if isinstance(payload, bytes) else _encode(payload, content_type)
        return sign(secret or self.signing_secret, path, body, content_type, timestamp)


class FakeModel(_Server):
    """A model provider for both APIs. Without a script it answers like the demo model."""

    def __init__(self) -> None:
        super().__init__()
        self.model = DemoModel()

    def __enter__(self) -> Self:
        self._start(self.model.app)
        return self

    def reset(self) -> None:
        """Forget the script and the requests."""
        self.model.script.clear()
        self.model.forget_requests()

    def script(self, *replies: str | Reply) -> None:
        """Give these answers to the next requests, in order."""
        self.model.script.add(
            *(Reply(reply) if isinstance(reply, str) else reply for reply in replies)
        )

    def answer_next(self, text: str, **fields: Any) -> None:
        """Give this answer next. The fields are those of `Reply`: `usage=`, `delay=`, `pause=` …"""
        self.model.script.add(Reply(text, **fields))

    def fail_next(
        self,
        status: int = 500,
        error: str = "api_error",
        message: str = "a fault asked for by the test",
        *,
        headers: dict[str, str] | None = None,
        times: int = 1,
    ) -> None:
        """Answer the next requests with an error in the shape of the API called."""
        reply = Reply(status=status, error=error, message=message, headers=headers or {})
        self.model.script.add(*[reply] * times)

    def hang_next(self, seconds: float) -> None:
        """Let the next request wait for its first byte."""
        self.model.script.add(Reply("late", delay=seconds))

    def cut_next(self, text: str = "half of an answer", after_events: int = 4) -> None:
        """Break the next request's connection in the middle of its answer."""
        self.model.script.add(Reply(text, cut_after=after_events))

    def requests(self, path: str | None = None) -> list[Recorded]:
        """Return the requests so far (`path`, `headers`, `body`, `raw`), oldest first."""
        return self.model.requests(path)


def _encode(payload: Json, content_type: str) -> bytes:
    if content_type.startswith("application/json"):
        return json.dumps(payload).encode()
    fields = {
        name: value if isinstance(value, str) else json.dumps(value)
        for name, value in payload.items()
    }
    return urlencode(fields).encode()


__all__ = ["BOT_TOKEN", "BOT_USER", "FakeModel", "FakeSlack", "Reply", "Usage"]
