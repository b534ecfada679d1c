"""What Slack sends to the app: signed events and interactions, delivered again if they fail.

Sources: https://docs.slack.dev/authentication/verifying-requests-from-slack and
https://docs.slack.dev/apis/events-api (retries: at once, after one and after five minutes).
"""

import asyncio
import hashlib
import hmac
import json
import time
import uuid
from dataclasses import dataclass
from functools import partial
from urllib.error import HTTPError
from urllib.request import Request, urlopen

from devstack.demo_slack.installations import Installations
from devstack.demo_slack.outbox import Outbox, Pending
from devstack.demo_slack.sockets import Sockets
from devstack.demo_slack.workspace import Json

EVENTS_PATH = "/slack/events/"
ANSWER_WITHIN = 3.0  # seconds; Slack counts a slower answer as a failure
RETRY_AFTER = (0.5, 2.0, 4.0, 8.0, 16.0, 30.0, 30.0, 30.0)
"""Seconds. Slack retries at once, after 1 minute and after 5 minutes. With these values, an app
that starts together with the demo Slack gets its events soon, and one that needs two minutes on a
busy machine still gets them."""


@dataclass(frozen=True)
class SignedRequest:
    """A request as Slack sends it."""

    path: str
    body: bytes
    headers: dict[str, str]


@dataclass(frozen=True)
class Answer:
    """The app's answer. Status 0 means no answer; `reason` is then Slack's name for the cause."""

    status: int
    body: bytes
    reason: str
    no_retry: bool = False


def sign(
    secret: str,
    path: str,
    body: bytes,
    content_type: str = "application/json",
    timestamp: int | None = None,
) -> SignedRequest:
    """Return the request with Slack's signature (version 0) over timestamp and raw body."""
    at = str(int(time.time()) if timestamp is None else timestamp)
    digest = hmac.new(secret.encode(), b"v0:" + at.encode() + b":" + body, hashlib.sha256)
    return SignedRequest(
        path,
        body,
        {
            "Content-Type": content_type,
            "X-Slack-Request-Timestamp": at,
            "X-Slack-Signature": f"v0={digest.hexdigest()}",
            "User-Agent": "Slackbot 1.0 (+https://api.slack.com/robots)",
        },
    )


class Events:
    """Delivers events to the app until it acknowledges them."""

    def __init__(
        self,
        outbox: Outbox,
        installations: Installations,
        sockets: Sockets,
        app_url: str,
        signing_secret: str,
        retry_after: tuple[float, ...] = RETRY_AFTER,
    ) -> None:
        self.outbox = outbox
        self.installations = installations
        self.sockets = sockets
        self.app_url = app_url.rstrip("/")
        self.signing_secret = signing_secret.partition(",")[0]
        self.retry_after = retry_after
        self._loop: asyncio.AbstractEventLoop | None = None
        self._wake = asyncio.Event()
        self._in_flight: dict[int, asyncio.Task[None]] = {}

    # --- events ----------------------------------------------------------------------------------

    def message_posted(self, team_id: str, channel: str, message: Json) -> None:
        """Queue the events of a new post: `message`, and `app_mention` if it names the app."""
        install = self.installations.of_team(team_id)
        if install is None:
            return
        if f"<@{install.bot_user_id}>" in message["text"] and not message.get("bot_id"):
            self.queue(self.envelope(message, channel, "app_mention", team_id))
        self.queue(self.envelope(message, channel, "message", team_id))

    def message_changed(self, team_id: str, channel: str, message: Json) -> None:
        """Queue the event of an edit."""
        changed = {"subtype": "message_changed", "hidden": True, "message": message}
        self.queue(self.envelope({**changed, "ts": message["ts"]}, channel, "message", team_id))

    def message_deleted(self, team_id: str, channel: str, message: Json) -> None:
        """Queue the event of a deletion."""
        deleted = {
            "subtype": "message_deleted",
            "hidden": True,
            "deleted_ts": message["ts"],
            "previous_message": message,
            "ts": f"{time.time():.6f}",
        }
        self.queue(self.envelope(deleted, channel, "message", team_id))

    def home_opened(self, team_id: str, user: str, channel: str) -> None:
        """Queue the event of somebody who opens the app's Home tab."""
        event = {
            "type": "app_home_opened",
            "user": user,
            "channel": channel,
            "tab": "home",
            "event_ts": f"{time.time():.6f}",
        }
        self.queue(self.event_envelope(event, team_id))

    def session_stopped(self, team_id: str, channel: str, thread_ts: str, user: str) -> None:
        """Queue the event of somebody who clicks the stop button of an agent session."""
        event = {
            "type": "agent_session_stopped",
            "channel": channel,
            "thread_ts": thread_ts,
            "user": user,
            "streaming_message_ts": [],
            "event_ts": f"{time.time():.6f}",
        }
        self.queue(self.event_envelope(event, team_id))

    def envelope(
        self,
        message: Json,
        channel: str = "C1",
        kind: str = "app_mention",
        team_id: str = "T1",
        event_id: str | None = None,
    ) -> Json:
        """Return the event envelope for a message, with a new `event_id`."""
        event = {**message, "type": kind, "channel": channel, "event_ts": message["ts"]}
        if kind == "message":
            event["channel_type"] = "im" if channel.startswith("D") else "channel"
        return self.event_envelope(event, team_id, event_id)

    def event_envelope(self, event: Json, team_id: str = "T1", event_id: str | None = None) -> Json:
        """Return the envelope for any inner event."""
        install = self.installations.of_team(team_id)
        return {
            "token": "deprecated",
            "team_id": team_id,
            "context_team_id": team_id,
            "context_enterprise_id": None,
            "api_app_id": install.app_id if install else "A1",
            "event": event,
            "type": "event_callback",
            "event_id": event_id or f"Ev{uuid.uuid4().hex[:10].upper()}",
            "event_time": int(time.time()),
            "authorizations": [
                {
                    "enterprise_id": None,
                    "team_id": team_id,
                    "user_id": install.bot_user_id if install else "UBOT",
                    "is_bot": True,
                    "is_enterprise_install": False,
                }
            ],
            "is_ext_shared_channel": False,
        }

    def queue(self, envelope: Json) -> None:
        """Queue the event for delivery until it is acknowledged. Without an app, do nothing."""
        if not (self.app_url or self.sockets.is_on):
            return
        self.outbox.add(EVENTS_PATH, envelope, time.time())
        if self._loop is not None:
            self._loop.call_soon_threadsafe(self._wake.set)

    # --- delivering ------------------------------------------------------------------------------

    async def deliver_forever(self) -> None:
        """Deliver queued events when they are due. This runs until it is cancelled."""
        self._loop = asyncio.get_running_loop()
        try:
            while True:
                self._wake.clear()
                for pending in self.outbox.due(time.time()):
                    if pending.id not in self._in_flight:
                        task = asyncio.create_task(self._deliver(pending))
                        self._in_flight[pending.id] = task
                        task.add_done_callback(partial(self._delivery_ended, pending.id))
                next_due = self.outbox.next_due()
                wait = 60.0 if next_due is None else max(0.02, next_due - time.time())
                try:
                    await asyncio.wait_for(self._wake.wait(), wait)
                except TimeoutError:
                    continue
        finally:
            for task in self._in_flight.values():
                task.cancel()

    def _delivery_ended(self, event_id: int, _task: asyncio.Task[None]) -> None:
        self._in_flight.pop(event_id, None)
        self._wake.set()

    async def _deliver(self, pending: Pending) -> None:
        headers = {}
        if pending.attempt:
            headers = {
                "X-Slack-Retry-Num": str(pending.attempt),
                "X-Slack-Retry-Reason": pending.reason,
            }
        request = sign(self.signing_secret, pending.path, pending.body)
        answer = await self.send(request, headers)
        gave_up = pending.attempt >= len(self.retry_after)
        if 200 <= answer.status < 300 or answer.no_retry or gave_up:
            self.outbox.settle(pending.id)
        else:
            due = time.time() + self.retry_after[pending.attempt]
            self.outbox.postpone(pending.id, answer.reason, due)

    async def send(self, request: SignedRequest, headers: Json | None = None) -> Answer:
        """Send one request to the app, and return what it answers within three seconds.

        It goes over HTTP and is signed, or over one of the app's sockets in Socket Mode.
        """
        if self.sockets.is_on:
            return await self._send_over_socket(request, headers or {})
        if not self.app_url:
            return Answer(0, b"", "connection_failed")
        return await asyncio.to_thread(_post, self.app_url, request, headers or {})

    async def _send_over_socket(self, request: SignedRequest, headers: Json) -> Answer:
        attempt = int(headers.get("X-Slack-Retry-Num", 0))
        reason = headers.get("X-Slack-Retry-Reason", "")
        payload = await self.sockets.deliver(
            request.path, request.body, attempt, reason, ANSWER_WITHIN
        )
        if payload is None:
            return Answer(0, b"", "timeout")
        return Answer(200, json.dumps(payload).encode() if payload else b"", "")


def _post(app_url: str, request: SignedRequest, headers: Json) -> Answer:
    sent = Request(app_url + request.path, request.body, {**request.headers, **headers})
    try:
        with urlopen(sent, timeout=ANSWER_WITHIN) as response:
            return Answer(response.status, response.read(), "")
    except HTTPError as error:
        with error:
            no_retry = error.headers.get("X-Slack-No-Retry") == "1"
            return Answer(error.code, error.read(), "http_error", no_retry)
    except TimeoutError:
        return Answer(0, b"", "http_timeout")
    except OSError as error:
        slow = isinstance(getattr(error, "reason", None), TimeoutError)
        return Answer(0, b"", "http_timeout" if slow else "connection_failed")
