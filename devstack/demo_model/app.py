"""The demo model as one ASGI application."""

import asyncio
import json
import threading
import time
import uuid
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from dataclasses import dataclass
from typing import Any

from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse, Response, StreamingResponse
from starlette.routing import Route
from starlette.types import ASGIApp, Send

from devstack.demo_model import anthropic_shape, openai_shape
from devstack.demo_model.anthropic_shape import Event
from devstack.demo_model.demonstration import reply_to
from devstack.demo_model.script import Prompt, Reply, Script, ToolCall, Usage
from devstack.loopback import LoopbackOnly

Json = dict[str, Any]


@dataclass(frozen=True)
class Shape:
    """One API: how its requests are read and its answers, streams and errors are written."""

    prompt: Callable[[Json], Prompt]
    answer: Callable[[Prompt, Reply], Json]
    stream: Callable[[Prompt, Reply, Json], Iterator[Event]]
    error: Callable[[str, str], Json]
    request_id_header: str


@dataclass(frozen=True)
class Recorded:
    """A request as it arrived at `at`, in seconds since 1970. Header names are in lower case."""

    at: float
    path: str
    headers: dict[str, str]
    body: Json
    raw: bytes


MESSAGES = Shape(
    anthropic_shape.prompt,
    anthropic_shape.answer,
    anthropic_shape.stream,
    anthropic_shape.error,
    "request-id",
)
CHAT = Shape(
    openai_shape.chat_prompt,
    openai_shape.chat_answer,
    openai_shape.chat_stream,
    openai_shape.error,
    "x-request-id",
)
RESPONSES = Shape(
    openai_shape.responses_prompt,
    openai_shape.responses_answer,
    openai_shape.responses_stream,
    openai_shape.error,
    "x-request-id",
)


class ConnectionCut(Exception):
    """The script asked for the connection to break here."""


class DemoModel:
    """One local model provider: its script, its record of requests and its ASGI application."""

    def __init__(self) -> None:
        self.script = Script()
        self._requests: list[Recorded] = []
        self._lock = threading.Lock()
        routes = [
            Route("/v1/messages", self._endpoint(MESSAGES), methods=["POST"]),
            Route("/v1/messages/count_tokens", self._count_tokens, methods=["POST"]),
            Route("/v1/chat/completions", self._endpoint(CHAT), methods=["POST"]),
            Route("/v1/responses", self._endpoint(RESPONSES), methods=["POST"]),
            Route("/v1/models", self._models),
            Route("/_control/replies", self._add_replies, methods=["POST"]),
            Route("/_control/replies", self._clear_replies, methods=["DELETE"]),
            Route("/_control/requests", self._list_requests),
            Route("/_health", self._health),
            Route("/", self._page),
        ]
        self.app: ASGIApp = LoopbackOnly(Starlette(routes=routes))

    def requests(self, path: str | None = None) -> list[Recorded]:
        """Return the requests so far, oldest first, of one path or of all."""
        with self._lock:
            return [request for request in self._requests if path in (None, request.path)]

    def forget_requests(self) -> None:
        """Forget the recorded requests."""
        with self._lock:
            self._requests.clear()

    async def _record(self, request: Request) -> Json:
        arrived = time.time()
        raw = await request.body()
        try:
            parsed = json.loads(raw or b"{}")
        except ValueError:
            parsed = {}
        body = parsed if isinstance(parsed, dict) else {}
        with self._lock:
            self._requests.append(
                Recorded(arrived, request.url.path, dict(request.headers), body, raw)
            )
        return body

    def _endpoint(self, shape: Shape) -> Callable[[Request], Awaitable[Response]]:
        async def endpoint(request: Request) -> Response:
            body = await self._record(request)
            headers = {shape.request_id_header: f"req_demo_{uuid.uuid4().hex[:20]}"}
            if not body.get("model"):
                refusal = shape.error("invalid_request_error", "model: Field required")
                return JSONResponse(refusal, 400, headers)
            prompt = shape.prompt(body)
            reply = self.script.next(prompt) or reply_to(prompt)
            headers |= reply.headers
            await asyncio.sleep(reply.delay)
            if reply.error:
                await asyncio.sleep(reply.hang)
                return JSONResponse(shape.error(reply.error, reply.message), reply.status, headers)
            if body.get("stream"):
                events = shape.stream(prompt, reply, body)
                return _Stream(
                    _server_sent(events, reply), 200, headers, media_type="text/event-stream"
                )
            await asyncio.sleep(reply.hang)
            if reply.cut_after is not None:
                return _Stream(_half(shape.answer(prompt, reply)), 200, headers)
            return JSONResponse(shape.answer(prompt, reply), reply.status, headers)

        return endpoint

    async def _count_tokens(self, request: Request) -> Response:
        body = await self._record(request)
        return JSONResponse({"input_tokens": anthropic_shape.prompt(body).tokens})

    async def _models(self, request: Request) -> Response:
        if "anthropic-version" in request.headers:
            data: list[Json] = [
                {
                    "type": "model",
                    "id": name,
                    "display_name": f"{name} (demo)",
                    "created_at": "2025-01-01T00:00:00Z",
                }
                for name in anthropic_shape.MODELS
            ]
            ends = {"first_id": data[0]["id"], "last_id": data[-1]["id"], "has_more": False}
            return JSONResponse({"data": data, **ends})
        data = [
            {"id": name, "object": "model", "created": 1735689600, "owned_by": "demo"}
            for name in openai_shape.MODELS
        ]
        return JSONResponse({"object": "list", "data": data})

    async def _add_replies(self, request: Request) -> Response:
        """Give these replies next. The body is a list of objects with the fields of `Reply`."""
        try:
            replies = [_reply(fields) for fields in await request.json()]
        except (TypeError, ValueError) as error:
            return JSONResponse({"error": str(error)}, 422)
        self.script.add(*replies)
        return JSONResponse({"ok": True})

    async def _clear_replies(self, _request: Request) -> Response:
        self.script.clear()
        return JSONResponse({"ok": True})

    async def _list_requests(self, request: Request) -> Response:
        """Return the requests so far, or those that arrived after `?after=SECONDS`."""
        try:
            after = float(request.query_params.get("after", 0))
        except ValueError as error:
            return JSONResponse({"error": str(error)}, 422)
        return JSONResponse(
            [
                {"at": recorded.at, "path": recorded.path, "body": recorded.body}
                for recorded in self.requests()
                if recorded.at > after
            ]
        )

    async def _health(self, _request: Request) -> Response:
        return JSONResponse({"status": "ok"})

    async def _page(self, _request: Request) -> Response:
        return Response("Demo model: scripted answers, no real model.\n", media_type="text/plain")


def _reply(fields: Json) -> Reply:
    usage = fields.pop("usage", None)
    tools = tuple(ToolCall(**call) for call in fields.pop("tools", ()))
    return Reply(**fields, tools=tools, usage=Usage(**usage) if usage else None)


class _Stream(StreamingResponse):
    """A streamed response whose script can break the connection."""

    async def stream_response(self, send: Send) -> None:
        try:
            await super().stream_response(send)
        except ConnectionCut:
            # The server closes a chunked response that ends without its last chunk.
            return


async def _server_sent(events: Iterator[Event], reply: Reply) -> AsyncIterator[bytes]:
    for number, (name, data) in enumerate(events):
        if number == reply.cut_after:
            await asyncio.sleep(reply.hang)
            raise ConnectionCut
        text = data if isinstance(data, str) else json.dumps(data, separators=(",", ":"))
        label = f"event: {name}\n" if name else ""
        yield f"{label}data: {text}\n\n".encode()
        if reply.pause:
            await asyncio.sleep(reply.pause)


async def _half(answer: Json) -> AsyncIterator[bytes]:
    whole = json.dumps(answer).encode()
    yield whole[: len(whole) // 2]
    raise ConnectionCut
