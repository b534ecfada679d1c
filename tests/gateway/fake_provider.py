"""A fake provider. Tests decide every byte that it sends, when, and where it breaks off."""

import asyncio
import itertools
import json
import threading
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from tests.gateway.threads import SocketThread, opened


@dataclass
class Seen:
    """A request as it arrived, with header names in lower case."""

    method: str
    path: str
    headers: dict[str, str]
    body: bytes

    @property
    def json(self) -> Any:
        """Return the parsed body."""
        return json.loads(self.body)


@dataclass
class Script:
    """One answer: the raw chunks to write (None closes), and what to wait for in between."""

    status: int = 200
    headers: dict[str, str] = field(default_factory=dict)
    chunks: list[bytes] = field(default_factory=list)
    chunked: bool = True
    cut: bool = False  # close without the end of the body
    gate: threading.Event | None = None  # opened before the head is written
    between: float = 0.0
    hold_after: int | None = None  # wait for `release` after this many chunks
    release: threading.Event | None = None
    raw: bytes | None = None  # send only this, then close
    served: bool = False  # the provider sent all of it


class FakeProvider(SocketThread):
    """The server. `script` returns the answer to each request."""

    def __init__(self) -> None:
        super().__init__(self._connection)
        self.requests: list[Seen] = []
        self.script: Callable[[Seen], Script] = default_script
        self._lock = threading.Lock()

    async def _connection(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while True:
            head = await reader.readuntil(b"\r\n\r\n")
            first, *lines = head.decode("latin-1").split("\r\n")
            method, path, _ = first.split(" ")
            headers = {
                name.lower(): value.strip()
                for name, _, value in (line.partition(":") for line in lines if line)
            }
            body = await reader.readexactly(int(headers.get("content-length", 0)))
            seen = Seen(method, path, headers, body)
            with self._lock:
                self.requests.append(seen)
            if not await self._answer(self.script(seen), reader, writer):
                return

    async def _answer(
        self, script: Script, reader: asyncio.StreamReader, writer: asyncio.StreamWriter
    ) -> bool:
        if script.gate is not None:
            await opened(script.gate)
        if script.raw is not None:
            writer.write(script.raw)
            return False
        head = [f"HTTP/1.1 {script.status} Scripted"]
        head += [f"{name}: {value}" for name, value in script.headers.items()]
        if script.chunked:
            head.append("transfer-encoding: chunked")
        else:
            head.append(f"content-length: {sum(map(len, script.chunks))}")
        writer.write("\r\n".join([*head, "", ""]).encode("latin-1"))
        for number, chunk in enumerate(script.chunks):
            if script.hold_after == number and script.release is not None:
                await opened(script.release)
            framed = b"%x\r\n%b\r\n" % (len(chunk), chunk) if script.chunked else chunk
            if chunk:
                writer.write(framed)
            await writer.drain()
            if script.between:
                await asyncio.sleep(script.between)
            if reader.at_eof() or writer.transport.is_closing():
                return False
        if script.cut:
            return False
        if script.chunked and script.status != 204:
            writer.write(b"0\r\n\r\n")
        await writer.drain()
        script.served = True
        return True


def sse(*events: tuple[str | None, Any]) -> list[bytes]:
    """Return server-sent events, one chunk each."""
    chunks = []
    for name, data in events:
        text = data if isinstance(data, str) else json.dumps(data, separators=(",", ":"))
        chunks.append(((f"event: {name}\n" if name else "") + f"data: {text}\n\n").encode())
    return chunks


def messages_usage(**fields: Any) -> dict[str, Any]:
    """Return usage in Anthropic's format."""
    return {
        "input_tokens": 100,
        "cache_creation_input_tokens": 0,
        "cache_read_input_tokens": 0,
        "output_tokens": 20,
        "service_tier": "standard",
        **fields,
    }


def messages_stream(usage: dict[str, Any] | None = None, pieces: int = 3) -> list[bytes]:
    """Return a streamed Anthropic message."""
    usage = usage or messages_usage()
    start = {
        "id": "msg_1", "type": "message", "role": "assistant", "model": "claude-sonnet-4-5",
        "content": [], "stop_reason": None, "usage": {**usage, "output_tokens": 1},
    }  # fmt: skip
    block = {"type": "text", "text": ""}
    deltas = [
        ("content_block_delta", {"type": "content_block_delta", "index": 0,
                                 "delta": {"type": "text_delta", "text": f"piece {number} é "}})
        for number in range(pieces)
    ]  # fmt: skip
    return sse(
        ("message_start", {"type": "message_start", "message": start}),
        ("content_block_start",
         {"type": "content_block_start", "index": 0, "content_block": block}),
        ("ping", {"type": "ping"}),
        *deltas,
        ("content_block_stop", {"type": "content_block_stop", "index": 0}),
        ("message_delta", {
            "type": "message_delta", "delta": {"stop_reason": "end_turn", "stop_sequence": None},
            "usage": {"output_tokens": usage["output_tokens"]}}),
        ("message_stop", {"type": "message_stop"}),
    )  # fmt: skip


def message(usage: dict[str, Any] | None = None) -> dict[str, Any]:
    """Return an Anthropic message."""
    return {
        "id": "msg_1", "type": "message", "role": "assistant", "model": "claude-sonnet-4-5",
        "content": [{"type": "text", "text": "Hello there"}], "stop_reason": "end_turn",
        "stop_sequence": None, "usage": usage or messages_usage(),
    }  # fmt: skip


CHAT_USAGE = {
    "prompt_tokens": 100, "completion_tokens": 20, "total_tokens": 120,
    "prompt_tokens_details": {"cached_tokens": 40},
}  # fmt: skip


def completion() -> dict[str, Any]:
    """Return an OpenAI chat completion."""
    return {
        "id": "chatcmpl-1", "object": "chat.completion", "created": 1, "model": "gpt-4o",
        "choices": [{"index": 0, "message": {"role": "assistant", "content": "Hello"},
                     "finish_reason": "stop"}],
        "usage": CHAT_USAGE, "service_tier": "default",
    }  # fmt: skip


def completion_stream(with_usage: bool, pieces: int = 3) -> list[bytes]:
    """Return a streamed OpenAI chat completion."""
    common = {"id": "chatcmpl-1", "object": "chat.completion.chunk", "created": 1,
              "model": "gpt-4o"}  # fmt: skip
    null = {"usage": None} if with_usage else {}
    events: list[tuple[None, Any]] = [
        (None, {**common, **null, "choices": [
            {"index": 0, "delta": {"content": f"piece {number} é"}, "finish_reason": None}]})
        for number in range(pieces)
    ]  # fmt: skip
    events.append((None, {**common, **null, "choices": [
        {"index": 0, "delta": {}, "finish_reason": "stop"}]}))  # fmt: skip
    if with_usage:
        events.append((None, {**common, "choices": [], "usage": CHAT_USAGE}))
    return sse(*events, (None, "[DONE]"))


RESPONSES_USAGE = {
    "input_tokens": 100, "output_tokens": 20, "total_tokens": 120,
    "input_tokens_details": {"cached_tokens": 40},
}  # fmt: skip


def response(status: str = "completed") -> dict[str, Any]:
    """Return an OpenAI response."""
    return {
        "id": "resp_1", "object": "response", "created_at": 1, "status": status,
        "model": "gpt-4o", "output": [
            {"type": "message", "id": "m1", "role": "assistant", "status": "completed",
             "content": [{"type": "output_text", "text": "Hello", "annotations": []}]}],
        "usage": RESPONSES_USAGE, "service_tier": "default", "parallel_tool_calls": True,
        "tool_choice": "auto", "tools": [],
    }  # fmt: skip


def response_stream(pieces: int = 3) -> list[bytes]:
    """Return a streamed OpenAI response."""
    created = {**response("in_progress"), "usage": None, "output": []}
    numbers = itertools.count()
    item = {"type": "message", "id": "m1", "role": "assistant", "status": "in_progress",
            "content": []}  # fmt: skip
    part = {"type": "output_text", "text": "", "annotations": []}
    where = {"item_id": "m1", "output_index": 0, "content_index": 0}
    events: list[tuple[str, dict[str, Any]]] = [
        ("response.created", {"response": created}),
        ("response.output_item.added", {"output_index": 0, "item": item}),
        ("response.content_part.added", {**where, "part": part}),
    ]
    events += [
        ("response.output_text.delta",
         {**where, "delta": f"piece {number} é", "logprobs": []})
        for number in range(pieces)
    ]  # fmt: skip
    events.append(("response.completed", {"response": response()}))
    return sse(
        *((name, {"type": name, "sequence_number": next(numbers), **data}) for name, data in events)
    )


JSON_HEADERS = {"content-type": "application/json", "request-id": "req_of_the_provider"}
SSE_HEADERS = {"content-type": "text/event-stream; charset=utf-8"}


def json_script(document: Any, status: int = 200, **headers: str) -> Script:
    """Return a script that answers with a JSON document."""
    body = document if isinstance(document, bytes) else json.dumps(document).encode()
    return Script(status, {**JSON_HEADERS, **headers}, [body], chunked=False)


def default_script(seen: Seen) -> Script:
    """Return a valid answer for any API."""
    path = seen.path.partition("?")[0]
    if path == "/v1/models":
        model = {"id": "gpt-4o", "object": "model", "created": 1, "owned_by": "x"}
        return json_script({"object": "list", "data": [model]})
    if path.endswith("/count_tokens"):
        return json_script({"input_tokens": 7})
    stream = seen.json.get("stream")
    if path == "/v1/messages":
        return Script(200, SSE_HEADERS, messages_stream()) if stream else json_script(message())
    if path == "/v1/chat/completions":
        if not stream:
            return json_script(completion())
        asked = (seen.json.get("stream_options") or {}).get("include_usage", False)
        return Script(200, SSE_HEADERS, completion_stream(asked))
    return Script(200, SSE_HEADERS, response_stream()) if stream else json_script(response())
