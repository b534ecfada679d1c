"""The table "What is booked when a call does not end well" of docs/gateway.md, row by row."""

import gzip
import json
from typing import Any

import httpx
import pytest

from gateway.booking import Ending, basis_of
from gateway.metering import meter_for
from tests.gateway.bodies import CHAT, RESPONSES, chat_body
from tests.gateway.conftest import World, messages_body
from tests.gateway.fake_provider import (
    CHAT_USAGE,
    RESPONSES_USAGE,
    SSE_HEADERS,
    Script,
    Seen,
    completion,
    completion_stream,
    json_script,
    message,
    messages_stream,
    messages_usage,
    response,
    response_stream,
    sse,
)

MESSAGES = "/slack_app/v1/messages"
CALLS = {
    "messages": (MESSAGES, messages_body(), message()),
    "chat": (CHAT, chat_body(), completion()),
    "responses": (
        RESPONSES,
        {"model": "gpt-4o", "input": "Hi", "max_output_tokens": 100},
        response(),
    ),
}
STREAMS = {
    "messages": messages_stream(),
    "chat": completion_stream(with_usage=True),
    "responses": response_stream(),
}
kinds = pytest.mark.parametrize("kind", CALLS)


class Booked:
    """How a call with this answer was booked, and the bound of its hold."""

    def __init__(self, world: World, path: str, body: dict[str, Any], answer: Script) -> None:
        project = world.tollgate.project(credits=10_000)

        def script(seen: Seen) -> Script:
            self.bound = world.account(project)["held"]
            return answer

        world.provider.script = script
        try:
            self.status = world.post(world.tollgate.token(project), path, body).status_code
        except httpx.HTTPError:
            assert answer.cut
        [event] = world.booked(project)
        self.micro = event["debited_micro"]
        self.estimated = event["properties"]["$ai_usage_estimated"]
        self.output = event["properties"]["$ai_output_tokens"]
        assert event["properties"]["$ai_is_error"] is True
        assert world.account(project)["held"] == 0


@kinds
@pytest.mark.parametrize("length", [0, 60, -1])
def test_an_unstreamed_answer_that_breaks_off_is_booked_at_its_bound(
    world: World, kind: str, length: int
) -> None:
    path, body, document = CALLS[kind]
    data = json.dumps(document).encode()[:length]
    result = Booked(world, path, body, Script(200, {}, [data], cut=True))
    assert (result.micro, result.estimated) == (result.bound, True)


def test_metrics_count_why_calls_were_estimated(world: World) -> None:
    before = world.metric('tollgate_gateway_estimated_total{why="broken_off"}')
    uncertain = world.metric("tollgate_gateway_uncertain_credits_total")
    path, body, document = CALLS["messages"]
    data = json.dumps(document).encode()[:60]
    Booked(world, path, body, Script(200, {}, [data], cut=True))
    assert world.metric("tollgate_gateway_uncertain_credits_total") == uncertain
    stream = Script(200, SSE_HEADERS, STREAMS["messages"][:5], cut=True)
    result = Booked(world, path, {**body, "stream": True}, stream)
    text = world.get("/metrics", "metrics-token-of-the-gateway-tests").text
    assert 'tollgate_gateway_estimated_total{why="broken_off"}' in text
    added = world.metric("tollgate_gateway_uncertain_credits_total") - uncertain
    assert added == pytest.approx((result.bound - result.micro) / 1_000_000)
    assert before >= 0


@kinds
def test_a_connection_that_breaks_before_any_answer_is_booked_at_its_bound(
    world: World, kind: str
) -> None:
    path, body, _ = CALLS[kind]
    for stream in (False, True):
        result = Booked(world, path, {**body, "stream": stream}, Script(raw=b""))
        assert (result.status, result.micro, result.estimated) == (502, result.bound, True)


@pytest.mark.parametrize("kind", ["chat", "responses"])
def test_a_broken_stream_is_booked_by_its_text_and_the_input_bound(world: World, kind: str) -> None:
    """It never costs more than the bound of a call that asks for as much output as arrived."""
    path, body, _ = CALLS[kind]
    name = "max_completion_tokens" if kind == "chat" else "max_output_tokens"
    tokens = 140
    if kind == "chat":
        text = [(None, {"choices": [{"index": 0, "delta": {"content": "word"}}]})] * tokens
    else:
        delta = {"type": "response.output_text.delta", "output_index": 0, "delta": "word"}
        echo = {"type": "response.created", "response": {"instructions": "x" * 48_000}}
        text = [(echo["type"], echo), *[(delta["type"], delta)] * tokens]
    answer = Script(200, SSE_HEADERS, sse(*text), cut=True)
    result = Booked(world, path, {**body, name: 400, "stream": True}, answer)
    as_short = Booked(world, path, {**body, name: tokens, "stream": True}, Script(raw=b""))
    assert (result.output, result.estimated) == (tokens, True)
    assert result.micro == as_short.bound < result.bound


def test_a_broken_stream_is_booked_with_the_reported_input(world: World) -> None:
    chunks = messages_stream(messages_usage(inference_geo="global"), pieces=10)[:13]
    answer = Script(200, SSE_HEADERS, chunks, cut=True)
    result = Booked(world, MESSAGES, messages_body(stream=True), answer)
    # 100 in, and one out that was reported; each piece, "piece 0 é ", has eleven bytes.
    assert (result.output, result.micro) == (1 + 28, (100 * 3 + 29 * 15) * 120)


@kinds
def test_a_stream_that_broke_off_is_never_booked_above_its_bound(world: World, kind: str) -> None:
    path, body, _ = CALLS[kind]
    text = "word " * 10_000
    data = {
        "messages": {"type": "content_block_delta", "delta": {"type": "text_delta", "text": text}},
        "chat": {"choices": [{"index": 0, "delta": {"content": text}}]},
        "responses": {"type": "response.output_text.delta", "delta": text},
    }[kind]
    answer = Script(200, SSE_HEADERS, sse((None, data)), cut=True)
    result = Booked(world, path, {**body, "stream": True}, answer)
    assert (result.micro, result.estimated) == (result.bound, True)


def test_an_error_costs_nothing_even_if_the_caller_left_after_it() -> None:
    meter = meter_for("messages", stream=True, hide_usage=False)
    meter.feed(b'data: {"type":"error","error":{"type":"overloaded_error"}}\n\n')
    left = Ending(0.0, status=200, sent=True, failed=True, given_up=True)
    assert basis_of(meter, left)[0] == "reported"


def test_nothing_is_booked_if_no_byte_was_sent_even_after_a_timeout() -> None:
    meter = meter_for("messages", stream=True, hide_usage=False)
    assert basis_of(meter, Ending(0.0, failed=True, given_up=True))[0] == "reported"
    assert basis_of(meter, Ending(0.0, sent=True, failed=True, given_up=True))[0] == "bound"


@kinds
@pytest.mark.parametrize("status", [302, 400, 429, 500, 529])
def test_an_answer_that_is_not_a_success_costs_nothing(
    world: World, kind: str, status: int
) -> None:
    path, body, _ = CALLS[kind]
    for document in ({"error": {"message": "Sorry"}}, b"<html>", b""):
        result = Booked(world, path, body, json_script(document, status))
        assert (result.status, result.micro, result.estimated) == (status, 0, False)


USAGES = {"messages": messages_usage(), "chat": CHAT_USAGE, "responses": RESPONSES_USAGE}
INPUT = {"messages": "input_tokens", "chat": "prompt_tokens", "responses": "input_tokens"}
OUTPUT = {"messages": "output_tokens", "chat": "completion_tokens", "responses": "output_tokens"}
ODD = ["20", 20.5, -1, True, [20], {}, 2**70, 1e30]


def with_usage(kind: str, usage: object, *, stream: bool) -> Script:
    """Return a script that answers with this usage."""
    if not stream:
        return json_script({**CALLS[kind][2], "usage": usage})
    parts = {
        "messages": [
            ("message_start", {"type": "message_start", "message": {"usage": messages_usage()}}),
            ("message_delta", {"type": "message_delta", "usage": usage}),
            ("message_stop", {"type": "message_stop"}),
        ],
        "chat": [(None, {"choices": [], "usage": usage}), (None, "[DONE]")],
        "responses": [
            (None, {"type": "response.completed", "response": {**response(), "usage": usage}})
        ],
    }
    return Script(200, SSE_HEADERS, sse(*parts[kind]))


@kinds
@pytest.mark.parametrize("stream", [False, True], ids=["document", "stream"])
def test_unreadable_usage_is_never_booked_as_zero(world: World, kind: str, stream: bool) -> None:
    path, body, _ = CALLS[kind]
    for count in (INPUT[kind], OUTPUT[kind]):
        for odd in ODD:
            answer = with_usage(kind, {**USAGES[kind], count: odd}, stream=stream)
            result = Booked(world, path, {**body, "stream": stream}, answer)
            assert result.estimated, odd
            assert result.micro == result.bound if not stream else result.micro > 0, odd
    for odd in (5, "x", [], {}, None, float("nan")):
        answer = with_usage(kind, odd, stream=stream)
        result = Booked(world, path, {**body, "stream": stream}, answer)
        assert result.estimated, odd
        assert result.micro == result.bound if not stream else result.micro > 0, odd


@kinds
@pytest.mark.parametrize(
    "encodings",
    ["gzip", "GZip", "identity, gzip", " gzip , identity", "x-gzip", "IDENTITY , br"],
)
def test_a_compressed_answer_is_booked_at_its_bound(world: World, kind: str, encodings) -> None:
    path, body, document = CALLS[kind]
    packed = gzip.compress(json.dumps(document).encode())
    project = world.tollgate.project(credits=10_000)
    world.provider.script = lambda _: Script(
        200, {"content-type": "application/json", "content-encoding": encodings}, [packed]
    )
    with world.http.stream(
        "POST",
        path,
        json=body,
        headers={"authorization": f"Bearer {world.tollgate.token(project)}"},
    ) as answer:
        assert b"".join(answer.iter_raw()) == packed
    [event] = world.booked(project)
    assert event["properties"]["$ai_usage_estimated"] is True
    assert event["debited_micro"] > 100 * 10 * 120


@pytest.mark.parametrize("encodings", ["identity", "Identity", "", "identity, identity"])
def test_an_answer_with_identity_encoding_is_read(world: World, encodings: str) -> None:
    project = world.tollgate.project(credits=100)
    world.provider.script = lambda _: json_script(message(), **{"content-encoding": encodings})
    world.post(world.tollgate.token(project))
    [event] = world.booked(project)
    assert event["debited_micro"] == 72_000
