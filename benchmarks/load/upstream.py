"""A fake provider that needs almost no CPU: Anthropic's Messages API, JSON and SSE.

A call's usage follows from its trace id, so its own record can be compared with billing's, call by
call.
"""

import asyncio
import json
from dataclasses import dataclass, field

from benchmarks.load import wire

MODEL = "claude-sonnet-4-5"


@dataclass(frozen=True, slots=True)
class Used:
    """Tokens of one call."""

    input: int
    output: int

    def micro_credits(self, credits_per_usd: int = 120) -> int:
        """Return the micro-credits, at 3 and 15 dollars per million tokens."""
        return (3 * self.input + 15 * self.output) * credits_per_usd


def used_by(trace: str) -> Used:
    """Return what the call with this trace id uses."""
    seed = int(trace[:8], 16)
    return Used(50 + seed % 100, 20 + seed % 71)


@dataclass
class Upstream:
    """The provider. Close the `gate` to make calls wait. `interval` sets the pace of streams."""

    events: int = 20
    interval: float = 0.0  # seconds between the events of a stream
    arrived: int = 0
    waiting: int = 0
    books: dict[str, Used] = field(default_factory=dict)  # by trace id, once an answer is begun
    gate: asyncio.Event = field(default_factory=asyncio.Event)
    url: str = ""

    def __post_init__(self) -> None:
        self.gate.set()
        self._tasks: set[asyncio.Task[None]] = set()

    async def start(self) -> None:
        """Start listening."""
        self._server, self.url = await wire.serve(self.handle)

    def handle(self, request: wire.Request, connection: wire.ServerConnection) -> bytes | None:
        """Return the answer to one call, or None if it is written later."""
        if request.method != b"POST":
            return wire.response(200, b"{}")
        self.arrived += 1
        trace = request.headers.get(b"traceparent", b"").decode()[3:35] or f"{self.arrived:032x}"
        ends = request.body[:300] + request.body[-300:]
        stream = b'"stream":true' in ends or b'"stream": true' in ends
        if self.gate.is_set():
            self.books[trace] = used_by(trace)
            if not stream:
                return wire.response(200, _message(trace))
            if not self.interval:
                return _STREAM_HEAD + b"".join(map(_chunk, _events(trace, self.events))) + _END
        task = asyncio.ensure_future(self._answer_later(trace, stream, connection))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        return None

    async def _answer_later(
        self, trace: str, stream: bool, connection: wire.ServerConnection
    ) -> None:
        self.waiting += 1
        await self.gate.wait()
        self.waiting -= 1
        self.books[trace] = used_by(trace)
        if not stream:
            connection.write(wire.response(200, _message(trace)))
            return
        events = _events(trace, self.events)
        connection.write(_STREAM_HEAD + _chunk(events[0]))
        for event in events[1:]:
            if self.interval:
                await asyncio.sleep(self.interval)
            connection.write(_chunk(event))
        connection.write(_END)


_STREAM_HEAD = (
    b"HTTP/1.1 200 X\r\ncontent-type: text/event-stream; charset=utf-8\r\n"
    b"request-id: req_bench\r\ntransfer-encoding: chunked\r\n\r\n"
)
_END = b"0\r\n\r\n"
_TEXT = "The quick brown fox jumps over the lazy dog. " * 4


def _message(trace: str) -> bytes:
    used = used_by(trace)
    return (
        b'{"id":"msg_%b","type":"message","role":"assistant","model":"%b",'
        b'"content":[{"type":"text","text":"%b"}],"stop_reason":"end_turn","stop_sequence":null,'
        b'"usage":{"input_tokens":%d,"cache_creation_input_tokens":0,"cache_read_input_tokens":0,'
        b'"output_tokens":%d,"service_tier":"standard"}}'
    ) % (trace.encode(), MODEL.encode(), _TEXT.encode(), used.input, used.output)


def _events(trace: str, count: int) -> list[bytes]:
    """Return the server-sent events of a message, `count` of them with text."""
    used = used_by(trace)
    usage = {
        "input_tokens": used.input, "cache_creation_input_tokens": 0,
        "cache_read_input_tokens": 0, "output_tokens": 1, "service_tier": "standard",
    }  # fmt: skip
    start = {
        "id": f"msg_{trace}", "type": "message", "role": "assistant", "model": MODEL,
        "content": [], "stop_reason": None, "stop_sequence": None, "usage": usage,
    }  # fmt: skip
    return [
        _event("message_start", message=start),
        _event("content_block_start", index=0, content_block={"type": "text", "text": ""}),
        *[_DELTA] * count,
        _event("content_block_stop", index=0),
        _event(
            "message_delta",
            delta={"stop_reason": "end_turn", "stop_sequence": None},
            usage={"output_tokens": used.output},
        ),
        _event("message_stop"),
    ]


def _event(name: str, **fields: object) -> bytes:
    return f"event: {name}\ndata: {json.dumps({'type': name, **fields})}\n\n".encode()


_DELTA = _event(
    "content_block_delta", index=0, delta={"type": "text_delta", "text": "lazy dog sleeps "}
)


def _chunk(data: bytes) -> bytes:
    return b"%x\r\n%b\r\n" % (len(data), data)
