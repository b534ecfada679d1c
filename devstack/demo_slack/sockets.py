"""Socket Mode: the connections that the app opens, and what Slack sends over them.

Source: https://docs.slack.dev/apis/events-api/using-socket-mode/
"""

import asyncio
import json
import time
import uuid
from collections.abc import Coroutine
from contextlib import suppress
from typing import Any
from urllib.parse import parse_qsl

from starlette.websockets import WebSocket, WebSocketDisconnect

from devstack.demo_slack.api_call import SlackError
from devstack.demo_slack.workspace import Json

APP_TOKEN = "xapp-1-A1-demo"
MOST_CONNECTIONS = 10
URL_LASTS = 30.0  # seconds
_KINDS = {
    "/slack/events/": "events_api",
    "/slack/interactivity/": "interactive",
    "/slack/commands/": "slash_commands",
}


class Sockets:
    """The app's connections. While Socket Mode is on, Slack sends the app nothing over HTTP."""

    def __init__(self, base_url: str) -> None:
        self.is_on = False
        self._address = base_url.replace("http", "ws", 1)
        self._urls: dict[str, float] = {}
        self._connections: list[WebSocket] = []
        self._acknowledged: dict[str, asyncio.Future[Json]] = {}
        self._loop: asyncio.AbstractEventLoop | None = None

    def __len__(self) -> int:
        """Return how many connections are open."""
        return len(self._connections)

    def open(self, authorization: str) -> Json:
        """Answer `apps.connections.open` with an address that works once, for half a minute."""
        token = authorization.partition(" ")[2].strip()
        if not token:
            raise SlackError("not_authed")
        if not token.startswith("xapp-"):
            raise SlackError("not_allowed_token_type")
        if token != APP_TOKEN or not self.is_on:
            raise SlackError("invalid_auth")
        ticket = uuid.uuid4().hex
        self._urls[ticket] = time.monotonic() + URL_LASTS
        return {"url": f"{self._address}/link/?ticket={ticket}&app_id=A1"}

    async def serve(self, socket: WebSocket) -> None:
        """Keep one connection until either side closes it."""
        ends = self._urls.pop(socket.query_params.get("ticket", ""), 0.0)
        if ends < time.monotonic():
            await socket.close()  # before it is accepted: the app sees HTTP 403
            return
        await socket.accept()
        self._loop = asyncio.get_running_loop()
        if len(self._connections) >= MOST_CONNECTIONS:
            await socket.send_json(_disconnect("too_many_websockets"))
            await socket.close()
            return
        self._connections.append(socket)
        try:
            await socket.send_json(
                {
                    "type": "hello",
                    "num_connections": len(self._connections),
                    "debug_info": {"host": "demo", "approximate_connection_time": 18060},
                    "connection_info": {"app_id": "A1"},
                }
            )
            while True:
                self._take(await socket.receive_text())
        except WebSocketDisconnect:
            pass
        finally:
            with suppress(ValueError):
                self._connections.remove(socket)

    def _take(self, text: str) -> None:
        said = json.loads(text)
        waiting = self._acknowledged.pop(said.get("envelope_id", ""), None)
        if waiting is not None and not waiting.done():
            waiting.set_result(said.get("payload") or {})

    async def deliver(
        self, path: str, body: bytes, attempt: int, reason: str, within: float
    ) -> Json | None:
        """Send a payload over one of the connections.

        Return the payload of its acknowledgement, or None if none comes in time.
        """
        if not self._connections:
            return None
        self._connections.append(self._connections.pop(0))  # Slack uses them in turn
        envelope_id = str(uuid.uuid4())
        answer: asyncio.Future[Json] = asyncio.get_running_loop().create_future()
        self._acknowledged[envelope_id] = answer
        envelope = {
            "envelope_id": envelope_id,
            "type": _KINDS[path],
            "payload": _payload(path, body),
            "accepts_response_payload": path != "/slack/events/",
        }
        if path == "/slack/events/":
            envelope |= {"retry_attempt": attempt, "retry_reason": reason}
        try:
            await self._connections[-1].send_json(envelope)
            return await asyncio.wait_for(answer, within)
        except (TimeoutError, RuntimeError, WebSocketDisconnect):
            return None
        finally:
            self._acknowledged.pop(envelope_id, None)

    # --- verbs for tests, from any thread --------------------------------------------------------

    def announce(self, reason: str, count: int | None = None) -> None:
        """Tell the connections, or the first few, that they are about to end, and why."""
        for socket in list(self._connections)[:count]:
            self._run(socket.send_json(_disconnect(reason)))

    def say(self, text: str) -> None:
        """Send a text of any kind over every connection."""
        for socket in list(self._connections):
            self._run(socket.send_text(text))

    def close(self, code: int = 1000) -> None:
        """Close every connection."""
        for socket in list(self._connections):
            with suppress(ValueError):
                self._connections.remove(socket)
            self._run(socket.close(code))

    def cut(self) -> None:
        """Break every connection without a closing message, as a lost network does."""
        for socket in list(self._connections):
            with suppress(ValueError):
                self._connections.remove(socket)
            transport = socket.scope["tollgate.transport"]
            assert self._loop is not None
            self._loop.call_soon_threadsafe(transport.abort)

    def _run(self, action: Coroutine[Any, Any, None]) -> None:
        assert self._loop is not None, "no connection was ever opened"
        asyncio.run_coroutine_threadsafe(action, self._loop).result(10)


def _disconnect(reason: str) -> Json:
    return {"type": "disconnect", "reason": reason, "debug_info": {"host": "demo"}}


def _payload(path: str, body: bytes) -> Json:
    if path == "/slack/events/":
        return dict(json.loads(body))
    fields = dict(parse_qsl(body.decode(), keep_blank_values=True))
    return dict(json.loads(fields["payload"])) if "payload" in fields else fields
