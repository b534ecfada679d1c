"""A slow Slack: every method succeeds, 200 ms after it was called."""

import asyncio
import itertools
import json
import threading
import time
from dataclasses import dataclass
from typing import Any
from urllib.parse import parse_qsl

from benchmarks.load import wire

LATENCY = 0.2


@dataclass(frozen=True)
class Call:
    """One call: when it arrived, in seconds since 1970, its method and its arguments."""

    at: float
    method: str
    arguments: dict[str, Any]


class SlowSlack:
    """Serves the Web API at `api_url` from a thread of its own, and keeps the calls in order."""

    def __init__(self) -> None:
        self.calls: list[Call] = []
        self._numbers = itertools.count(1)
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, daemon=True)

    def __enter__(self) -> "SlowSlack":
        self._thread.start()
        serving = asyncio.run_coroutine_threadsafe(wire.serve(self._handle), self._loop)
        self._server, url = serving.result()
        self.api_url = f"{url}/api/"
        return self

    def __exit__(self, *_: object) -> None:
        self._loop.call_soon_threadsafe(self._server.close)
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()

    def of(self, method: str, since: int = 0) -> list[Call]:
        """Return the calls of a method, without the first `since` calls of all methods."""
        return [call for call in self.calls[since:] if call.method == method]

    def _handle(self, request: wire.Request, connection: wire.ServerConnection) -> None:
        method = request.target.decode().partition("?")[0].removeprefix("/api/")
        self.calls.append(Call(time.time(), method, _arguments(request)))
        answer = wire.response(200, json.dumps(self._answer(method, self.calls[-1])).encode())
        self._loop.call_later(LATENCY, connection.write, answer)

    def _answer(self, method: str, call: Call) -> dict[str, Any]:
        channel, ts = call.arguments.get("channel", "C1"), call.arguments.get("ts")
        ts = ts or f"{int(time.time())}.{next(self._numbers):06d}"
        answers: dict[str, dict[str, Any]] = {
            "chat.postMessage": {"channel": channel, "ts": ts, "message": {"ts": ts}},
            "chat.postEphemeral": {"message_ts": ts},
            "chat.update": {"channel": channel, "ts": ts},
            "chat.getPermalink": {"permalink": f"https://slack.example/{channel}/{ts}"},
            "conversations.replies": {"messages": [], "has_more": False},
            "conversations.history": {"messages": [], "has_more": False},
            "conversations.info": {"channel": {"id": channel, "name": channel.lower()}},
            "users.info": {"user": _member(call.arguments.get("user", "U1"))},
        }
        return {"ok": True} | answers.get(method, {})


def _arguments(request: wire.Request) -> dict[str, Any]:
    if request.headers.get(b"content-type", b"").startswith(b"application/json"):
        return dict(json.loads(request.body or b"{}"))
    query = request.target.partition(b"?")[2].decode()
    given: dict[str, Any] = dict(parse_qsl(query)) | dict(parse_qsl(request.body.decode()))
    if "blocks" in given:
        given["blocks"] = json.loads(given["blocks"])
    return given


def _member(user_id: str) -> dict[str, Any]:
    profile = {"display_name": user_id.lower(), "email": f"{user_id.lower()}@acme.example"}
    return {"id": user_id, "name": user_id.lower(), "profile": profile, "is_restricted": False}
