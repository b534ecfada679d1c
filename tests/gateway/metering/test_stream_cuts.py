"""A stream that breaks off after any number of bytes is passed on so far, and booked."""

import asyncio
import json
from decimal import Decimal

import pytest

from gateway.metering import meter_for
from tests.gateway.bodies import CHAT, RESPONSES, chat_body
from tests.gateway.conftest import World, messages_body
from tests.gateway.fake_provider import (
    CHAT_USAGE,
    RESPONSES_USAGE,
    SSE_HEADERS,
    Script,
    completion_stream,
    sse,
)

# Short streams, because each of their bytes means one call.
RECORDINGS = {
    "messages": (
        "/slack_app/v1/messages",
        messages_body(stream=True),
        b"".join(
            sse(
                (
                    "message_start",
                    {"type": "message_start", "message": {"usage": {"input_tokens": 100}}},
                ),
                ("message_delta", {"type": "message_delta", "usage": {"output_tokens": 20}}),
                ("message_stop", {"type": "message_stop"}),
            )
        ),
    ),
    "chat": (
        CHAT,
        chat_body(stream=True, stream_options={"include_usage": True}),
        b"".join(
            sse(
                (None, {"choices": [{"delta": {"content": "é"}}]}),
                (None, {"choices": [], "usage": CHAT_USAGE}),
                (None, "[DONE]"),
            )
        ),
    ),
    "responses": (
        RESPONSES,
        {"model": "gpt-4o", "input": "Hi", "stream": True, "max_output_tokens": 100},
        b"".join(
            sse(
                ("response.output_text.delta", {"type": "response.output_text.delta"}),
                (
                    "response.completed",
                    {"type": "response.completed", "response": {"usage": RESPONSES_USAGE}},
                ),
            )
        ),
    ),
}
FULL = {"messages": Decimal("0.0006"), "chat": Decimal("0.0004"), "responses": Decimal("0.0004")}


@pytest.mark.parametrize("kind", RECORDINGS)
@pytest.mark.parametrize("newline", [b"\n", b"\r\n"], ids=["LF", "CRLF"])
def test_usage_is_right_wherever_the_chunks_begin(kind: str, newline: bytes) -> None:
    recording = RECORDINGS[kind][2].replace(b"\n", newline)
    whole = meter_for(kind, stream=True, hide_usage=False)
    whole.feed(recording)
    assert whole.finished
    for cut in range(1, len(recording)):
        meter = meter_for(kind, stream=True, hide_usage=False)
        shown = meter.feed(recording[:cut]) + meter.feed(recording[cut:]) + meter.end()
        assert shown == recording
        assert (meter.usage(), meter.finished) == (whole.usage(), True), cut


@pytest.mark.parametrize("newline", [b"\n", b"\r\n"], ids=["LF", "CRLF"])
def test_the_usage_chunk_is_removed_wherever_the_chunks_begin(newline: bytes) -> None:
    recording = b"".join(completion_stream(with_usage=True, pieces=2)).replace(b"\n", newline)
    expected = b"".join(
        chunk
        for chunk in completion_stream(with_usage=True, pieces=2)
        if b'"choices":[]' not in chunk
    ).replace(b"\n", newline)
    for cut in range(len(recording) + 1):
        meter = meter_for("chat", stream=True, hide_usage=True)
        shown = meter.feed(recording[:cut]) + meter.feed(recording[cut:]) + meter.end()
        assert shown == expected, cut
        assert meter.usage().output == 20


@pytest.mark.parametrize("kind", RECORDINGS)
def test_a_stream_cut_at_any_byte_is_passed_on_and_booked_once(world: World, kind: str) -> None:
    path, body, recording = RECORDINGS[kind]
    cuts = dict(enumerate(range(len(recording) + 1)))
    project = world.tollgate.project(credits=None)
    token = world.tollgate.token(project)

    def script(seen) -> Script:
        cut = int(seen.headers["x-cut"])
        return Script(200, SSE_HEADERS, [recording[:cut]], cut=cut < len(recording))

    world.provider.script = script
    content = json.dumps(body).encode()

    async def call(cut: int, permits: asyncio.Semaphore) -> bytes:
        async with permits:
            reader, writer = await asyncio.open_connection("127.0.0.1", world.port)
            writer.write(
                (
                    f"POST {path} HTTP/1.1\r\nhost: x\r\nauthorization: Bearer {token}\r\n"
                    f"x-cut: {cut}\r\ncontent-length: {len(content)}\r\nconnection: close\r\n\r\n"
                ).encode()
                + content
            )
            answer = await reader.read()
            writer.close()
            return dechunked(answer.partition(b"\r\n\r\n")[2])

    async def call_all() -> list[bytes]:
        permits = asyncio.Semaphore(16)
        return await asyncio.gather(*(call(cut, permits) for cut in cuts.values()))

    for cut, received in enumerate(asyncio.run(call_all())):
        assert received == recording[:cut], cut
    events = world.booked(project, len(cuts))
    exact = [event["properties"] for event in events
             if not event["properties"]["$ai_usage_estimated"]]  # fmt: skip
    assert {Decimal(properties["$ai_total_cost_usd"]) for properties in exact} == {FULL[kind]}
    assert all(Decimal(event["properties"]["$ai_total_cost_usd"]) > 0 for event in events)
    assert world.settled(project)["held"] == 0


def dechunked(body: bytes) -> bytes:
    """Return a chunked body, as far as it came."""
    joined = b""
    while body:
        size, _, body = body.partition(b"\r\n")
        length = int(size, 16)
        joined += body[:length]
        body = body[length + 2 :]
    return joined
