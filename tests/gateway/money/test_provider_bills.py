"""The whole gateway books what the provider charges, in dollars."""

import json
from decimal import Decimal
from typing import Any

import httpx
import pytest

from tests.gateway.bodies import CHAT, RESPONSES, chat_body
from tests.gateway.conftest import World, messages_body
from tests.gateway.fake_provider import (
    RESPONSES_USAGE,
    SSE_HEADERS,
    Script,
    completion,
    json_script,
    message,
    messages_usage,
    sse,
)

MESSAGES = "/slack_app/v1/messages"


def booked(
    world: World, path: str, body: dict[str, Any], answer: Script, credits: int = 100_000
) -> dict[str, Any]:
    """Make a call with this answer; return its event's properties, with the cost in dollars."""
    world.provider.script = lambda _: answer
    project = world.tollgate.project(credits=credits)
    try:
        world.post(world.tollgate.token(project), path, body)
    except httpx.HTTPError:
        assert answer.cut
    [event] = world.booked(project)
    assert world.account(project)["held"] == 0
    properties = event["properties"]
    return {
        **properties,
        "cost": Decimal(properties["$ai_total_cost_usd"]),
        "estimated": properties["$ai_usage_estimated"],
    }


def pieces(data: bytes, size: int = 60_000) -> list[bytes]:
    """Return an answer in pieces."""
    return [data[at : at + size] for at in range(0, len(data), size)]


def responses_body(**fields: Any) -> dict[str, Any]:
    return {"model": "gpt-5-mini", "input": "Hi", "max_output_tokens": 1_000, **fields}


def events(*data: dict[str, Any]) -> list[bytes]:
    """Return events of the Responses API, each named by its type."""
    return sse(*((each["type"], each) for each in data))


def responses_usage(input_tokens: int, cached: int, output_tokens: int) -> dict[str, Any]:
    return {
        "input_tokens": input_tokens,
        "output_tokens": output_tokens,
        "total_tokens": input_tokens + output_tokens,
        "input_tokens_details": {"cached_tokens": cached},
    }


@pytest.mark.parametrize("size", [2_400_000, 30_000_000])
def test_usage_is_found_after_an_echo_of_any_length(world: World, size: int) -> None:
    echo = "Read the manual. " * (size // 17)
    created = {"model": "gpt-4.1", "instructions": echo, "usage": None, "status": "in_progress"}
    usage = responses_usage(300_000, 299_000, 500)
    stream = events(
        {"type": "response.created", "response": created},
        {"type": "response.completed",
         "response": {**created, "status": "completed", "usage": usage, "service_tier": "default"}},
    )  # fmt: skip
    answer = Script(200, SSE_HEADERS, [each for event in stream for each in pieces(event)])
    body = responses_body(model="gpt-4.1", stream=True)
    result = booked(world, RESPONSES, body, answer)
    assert (result["cost"], result["estimated"]) == (Decimal("0.1555"), False)


def test_usage_is_found_after_twenty_megabytes_of_logprobs(world: World) -> None:
    top = [{"token": f"w{n}", "logprob": -n / 7, "bytes": [119, 48 + n]} for n in range(20)]
    logprobs = [{"token": "w", "logprob": -0.1, "bytes": [119], "top_logprobs": top}] * 14_000
    document = {
        **completion(),
        "choices": [
            {"index": 0, "message": {"role": "assistant", "content": "w " * 14_000},
             "logprobs": {"content": logprobs}, "finish_reason": "length"}
        ],
        "usage": {"prompt_tokens": 10, "completion_tokens": 14_000},
    }  # fmt: skip
    data = json.dumps(document).encode()
    assert len(data) > 15_000_000
    answer = Script(200, {"content-type": "application/json"}, pieces(data))
    result = booked(world, CHAT, chat_body(max_completion_tokens=16_000), answer)
    assert (result["cost"], result["estimated"]) == (Decimal("0.140025"), False)


FAILED = {"status": "failed", "usage": None, "error": {"code": "rate_limit_exceeded"}}
OVERLOADED = {"type": "error", "error": {"type": "overloaded_error", "message": "Overloaded"}}
LONG_INPUT = "x" * 50_000


@pytest.mark.parametrize(
    ("path", "body", "answer"),
    [
        (RESPONSES, responses_body(model="gpt-5", input=LONG_INPUT, stream=True),
         events({"type": "response.created", "response": {"instructions": LONG_INPUT}},
                {"type": "response.in_progress", "response": {"instructions": LONG_INPUT}},
                {"type": "response.failed", "response": FAILED})),
        (RESPONSES, responses_body(stream=True),
         events({"type": "error", "code": "server_error", "message": "Sorry"})),
        (RESPONSES, responses_body(stream=True),
         [b'event: error\ndata: {"code":"server_error"}\n\n']),
        (RESPONSES, responses_body(), FAILED),
        (RESPONSES, responses_body(), {"error": {"message": "Sorry"}}),
        (MESSAGES, messages_body(stream=True), events(OVERLOADED)),
        (MESSAGES, messages_body(stream=True), [b"event: error\ndata: Overloaded\n\n"]),
        (MESSAGES, messages_body(), OVERLOADED),
        (CHAT, chat_body(stream=True), [b'data: {"error":{"message":"Sorry"}}\n\n']),
        (CHAT, chat_body(stream=True),
         [b'data: {"id": "x" , "error" : {"message":"Sorry"}}\n\n', b"data: [DONE]\n\n"]),
        (CHAT, chat_body(), {"error": {"message": "Sorry"}}),
    ],
    ids=["failed", "error event", "untyped error event", "unstreamed failed", "unstreamed error",
         "messages error event", "messages error in words", "messages error",
         "chat error chunk", "chat error chunk in another order", "chat error"],
)  # fmt: skip
def test_an_error_without_usage_costs_nothing(world, path, body, answer) -> None:
    script = json_script(answer) if isinstance(answer, dict) else Script(200, SSE_HEADERS, answer)
    result = booked(world, path, body, script)
    assert (result["cost"], result["estimated"]) == (0, False)
    assert result["$ai_is_error"] is True


def test_an_error_costs_the_usage_it_reports(world: World) -> None:
    failed = {**FAILED, "usage": responses_usage(1_000, 0, 100), "model": "gpt-5-mini"}
    for script in (
        json_script(failed),
        Script(200, SSE_HEADERS, events({"type": "response.failed", "response": failed})),
    ):
        body = responses_body(stream="text/event-stream" in str(script.headers))
        result = booked(world, RESPONSES, body, script)
        assert (result["cost"], result["estimated"]) == (Decimal("0.00045"), False)
        assert result["$ai_is_error"] is True


def test_an_error_after_text_costs_what_was_generated_before_it(world: World) -> None:
    start = {"type": "message_start", "message": {"usage": messages_usage(output_tokens=1)}}
    delta = {"type": "content_block_delta", "delta": {"type": "text_delta", "text": "word"}}
    answer = Script(
        200, SSE_HEADERS, sse(*((None, each) for each in (start, *[delta] * 40, OVERLOADED)))
    )
    result = booked(world, MESSAGES, messages_body(stream=True), answer)
    assert result["estimated"] is True
    assert (result["$ai_input_tokens"], result["$ai_output_tokens"]) == (100, 41)


def web_search(action: str | None) -> dict[str, Any]:
    item = {"type": "web_search_call", "id": "ws", "status": "completed"}
    return item if action is None else {**item, "action": {"type": action}}


@pytest.mark.parametrize(
    ("actions", "cost"),
    [
        (["search", "open_page", "open_page", "find_in_page"], "0.01045"),
        ([None], "0.01045"),
        (["open_page"], "0.00045"),
        ([None, "search"], "0.02045"),
    ],
)
@pytest.mark.parametrize("where", ["document", "stream", "items only"])
def test_only_the_search_action_of_the_web_search_tool_is_billed(
    world: World, actions: list[str | None], cost: str, where: str
) -> None:
    items = [web_search(action) for action in actions]
    response = {
        "status": "completed", "model": "gpt-5-mini", "usage": responses_usage(1_000, 0, 100),
        "output": items if where != "items only" else [],
    }  # fmt: skip
    done = [
        {"type": f"response.output_item.{kind}", "output_index": index,
         "item": item if kind == "done" else web_search(None)}
        for index, item in enumerate(items) for kind in ("added", "done")
    ]  # fmt: skip
    stream = events(*done, {"type": "response.completed", "response": response})
    answer = json_script(response) if where == "document" else Script(200, SSE_HEADERS, stream)
    tools = {"tools": [{"type": "web_search"}], "max_tool_calls": 10}
    body = responses_body(stream=where != "document", **tools)
    result = booked(world, RESPONSES, body, answer)
    assert (result["cost"], result["estimated"]) == (Decimal(cost), False)


def chunk(**fields: Any) -> tuple[None, dict[str, Any]]:
    return None, {"id": "c", "object": "chat.completion.chunk", "model": "gpt-5-mini",
                  "choices": [{"index": 0, "delta": {"content": "Hi"}}], **fields}  # fmt: skip


@pytest.mark.parametrize(
    ("asked", "reported", "cost"),
    [
        (None, "default", "0.001275"),
        (None, "flex", "0.0006375"),
        (None, "priority", "0.002295"),
        ("flex", None, "0.0006375"),
        ("flex", "auto", "0.0006375"),
        ("priority", None, "0.002295"),
        ("priority", "default", "0.001275"),
        (None, None, "0.001275"),
    ],
)
def test_the_tier_reported_in_any_chunk_counts_else_the_one_asked_for(
    world: World, asked: str | None, reported: str | None, cost: str
) -> None:
    usage = {"prompt_tokens": 2_000, "completion_tokens": 500,
             "prompt_tokens_details": {"cached_tokens": 1_000}}  # fmt: skip
    stream = sse(
        chunk(service_tier=reported), chunk(service_tier=None), chunk(),
        chunk(choices=[], usage=usage), (None, "[DONE]"),
    )  # fmt: skip
    tier = {} if asked is None else {"service_tier": asked}
    body = chat_body(model="gpt-5-mini", stream=True, **tier)
    result = booked(world, CHAT, body, Script(200, SSE_HEADERS, stream))
    assert (result["cost"], result["estimated"]) == (Decimal(cost), False)


def test_the_tier_of_a_created_response_counts_until_another_is_reported(world: World) -> None:
    final = {"status": "completed", "usage": RESPONSES_USAGE}
    for tiers, expected in ((("flex", None), "flex"), (("auto", "priority"), "priority")):
        stream = events(
            {"type": "response.created", "response": {"service_tier": tiers[0], "usage": None}},
            {"type": "response.completed", "response": {**final, "service_tier": tiers[1]}},
        )
        result = booked(
            world, RESPONSES, responses_body(stream=True), Script(200, SSE_HEADERS, stream)
        )
        assert result["$ai_service_tier"] == expected


@pytest.mark.parametrize(
    "media_type",
    ["Text/Event-Stream; charset=UTF-8", "TEXT/EVENT-STREAM", "text/event-stream;charset=utf-8"],
)
def test_media_types_are_compared_without_case(world: World, media_type: str) -> None:
    usage = {"type": "message_delta", "usage": {"output_tokens": 20}}
    start = {"type": "message_start", "message": {"usage": messages_usage()}}
    stream = events(start, usage, {"type": "message_stop"})
    answer = Script(200, {"content-type": media_type}, stream)
    result = booked(world, MESSAGES, messages_body(stream=True), answer)
    assert (result["$ai_output_tokens"], result["estimated"]) == (20, False)
    answer = json_script(message())
    answer.headers["content-type"] = "Application/JSON"
    assert booked(world, MESSAGES, messages_body(), answer)["estimated"] is False
