"""What each reader knows after an unusual answer: its end, errors, usage and unreported text."""

import json
from typing import Any

import pytest

from gateway.metering import Meter, meter_for
from gateway.metering.token_estimates import UnreportedText, size_of
from tests.gateway.fake_provider import sse

USAGE = {"input_tokens": 9, "output_tokens": 5}
START = {"type": "message_start", "message": {"model": "claude", "usage": USAGE}}
ENDED = {"type": "message_delta", "delta": {"stop_reason": "end_turn"}, "usage": USAGE}
STOP = {"type": "message_stop"}
UNREADABLE = {"input_tokens": "many", "output_tokens": -1}


def stream(kind: str, *events: Any) -> Meter:
    meter = meter_for(kind, stream=True, hide_usage=False)
    for each in sse(*((None, event) for event in events)):
        meter.feed(each)
    return meter


def document(kind: str, body: Any) -> Meter:
    meter = meter_for(kind, stream=False, hide_usage=False)
    meter.feed(json.dumps(body).encode())
    meter.end()
    return meter


@pytest.mark.parametrize("kind", ["messages", "chat", "responses"])
def test_an_error_counts_before_the_end_of_its_event(kind: str) -> None:
    meter = meter_for(kind, stream=True, hide_usage=False)
    meter.feed(b'event: error\ndata: {"message": "overloaded"}\n')
    assert meter.failed, "the connection may break before the empty line"


def test_a_message_ends_when_it_says_so() -> None:
    assert not stream("messages", START, ENDED).finished
    whole = stream("messages", START, ENDED, STOP)
    assert (whole.finished, whole.complete) == (True, True)
    cut = stream("messages", START, STOP)
    assert (cut.finished, cut.complete) == (True, False), "its output was not reported at the end"
    again = stream("messages", START, ENDED, {**ENDED, "delta": {}}, STOP)
    assert again.complete, "the usage came again after the reason to stop"
    assert not stream("messages", START, {**ENDED, "usage": None}, STOP).complete
    assert not stream("messages", START, {**ENDED, "usage": None}).complete
    assert not stream("messages", START, {**ENDED, "delta": {}}).complete
    only_output = {**ENDED, "usage": {"output_tokens": 5}}
    assert not stream("messages", only_output, STOP).complete, "its input was never reported"


def test_text_and_thinking_that_begin_a_block_count() -> None:
    for block in ({"text": "x" * 40}, {"thinking": "x" * 40}):
        begun = {"type": "content_block_start", "content_block": block}
        assert stream("messages", begun).unreported_output == 10


@pytest.mark.parametrize("kind", ["messages", "chat", "responses"])
def test_nothing_is_wrong_before_something_is_reported(kind: str) -> None:
    meter = stream(kind, {"type": "ping"})
    assert (meter.failed, meter.unreadable, meter.input_reported) == (False, False, False)


@pytest.mark.parametrize(
    ("kind", "body", "failed"),
    [
        ("messages", {"type": "message", "usage": USAGE}, False),
        ("messages", {"type": "error"}, True),
        ("messages", {"error": {"type": "overloaded_error"}}, True),
        ("chat", {"object": "chat.completion"}, False),
        ("chat", {"object": "error"}, True),
        ("chat", {"error": {"code": 500}}, True),
        ("responses", {"status": "completed"}, False),
        ("responses", {"status": "failed"}, True),
    ],
)
def test_a_document_has_failed_if_it_says_so(kind: str, body: dict[str, Any], failed: bool) -> None:
    assert document(kind, body).failed is failed


@pytest.mark.parametrize("kind", ["messages", "chat", "responses"])
def test_a_model_has_a_name_of_at_most_sixty_four_characters(kind: str) -> None:
    for length, kept in ((64, True), (65, False)):
        reported = {**USAGE, "prompt_tokens": 9, "completion_tokens": 5}
        usage = document(kind, {"model": "m" * length, "usage": reported}).usage()
        assert usage is not None
        assert usage.model == ("m" * length if kept else None)


def test_a_message_is_incomplete_if_its_output_was_only_reported_unreadably() -> None:
    broken = {**ENDED, "usage": UNREADABLE}
    meter = stream("messages", START, broken, {**ENDED, "usage": {"input_tokens": 9}}, STOP)
    assert (meter.unreadable, meter.complete) == (False, False)


@pytest.mark.parametrize(
    "error", [{"type": "error", "usage": USAGE}, {"type": "odd", "error": {}, "usage": USAGE}]
)
def test_a_message_that_fails_may_report_usage(error: dict[str, Any]) -> None:
    error = {**error, "error": {"type": "overloaded_error"}}
    meter = stream("messages", {"type": "message_start", "message": {}}, error)
    assert meter.failed
    usage = meter.usage()
    assert usage is not None
    assert (usage.input, usage.output) == (9, 5)


def test_a_message_names_its_model_even_if_no_usage_follows() -> None:
    named = stream("messages", {"type": "message_start", "message": {"model": "claude"}})
    assert named.used_so_far().model == "claude"


@pytest.mark.parametrize(("speed", "fast"), [("fast", True), ("standard", False), (None, None)])
def test_a_message_reports_its_speed(speed: str | None, fast: bool | None) -> None:
    usage = document("messages", {"type": "message", "usage": {**USAGE, "speed": speed}}).usage()
    assert usage is not None
    assert usage.fast is fast


@pytest.mark.parametrize(
    ("kind", "body", "tokens"),
    [
        ("messages", {"content": [{"text": "x" * 40}, None, {"thinking": "x" * 40}]}, 20),
        ("chat", {"choices": [{"message": {"content": "x" * 40}}, None]}, 10),
        ("responses", {"output": [{"type": "message", "content": [{"text": "x" * 40}]}, None]}, 10),
        (
            "responses",
            {
                "output": [
                    {"type": "message", "content": [{"text": "x" * 41}]},
                    {"type": "function_call_output", "arguments": "x" * 40},
                ]
            },
            11,
        ),
        ("responses", {"output": [{"content": [{"text": "x" * 40}]}], "usage": UNREADABLE}, 10),
    ],
)
def test_the_text_of_a_document_without_readable_usage_is_estimated(kind, body, tokens) -> None:
    meter = document(kind, body)
    assert (meter.finished, meter.complete, meter.unreported_output) == (True, False, tokens)


@pytest.mark.parametrize(
    ("kind", "events"),
    [
        ("messages", [{**START, "message": {"usage": UNREADABLE}}, ENDED, STOP]),
        ("responses", [
            {"type": "response.in_progress", "response": {"usage": UNREADABLE}},
            {"type": "response.completed", "response": {"usage": USAGE}},
        ]),
        ("chat", [
            {"choices": [], "usage": {"prompt_tokens": "many", "completion_tokens": 1}},
            {"choices": [], "usage": {"prompt_tokens": 9, "completion_tokens": 5}},
            "[DONE]",
        ]),
    ],
)  # fmt: skip
def test_usage_that_can_be_read_replaces_what_could_not(kind, events) -> None:
    broken = stream(kind, events[0])
    assert (broken.unreadable, broken.complete) == (True, False)
    mended = stream(kind, *events)
    assert (mended.unreadable, mended.complete) == (False, True)


def test_only_its_end_makes_the_usage_of_a_chat_final() -> None:
    said = {"choices": [{"delta": {"content": "x"}, "finish_reason": None}]}
    usage = {"prompt_tokens": 9, "completion_tokens": 5}
    under_way = stream("chat", {**said, "usage": usage})
    assert not under_way.complete
    assert stream("chat", {**said, "usage": usage}, "[DONE]").complete
    assert not stream("chat", said, "[DONE]").complete


def test_a_response_that_is_an_error_has_failed() -> None:
    assert document("responses", {"type": "error", "message": "Sorry"}).failed
    assert not document("responses", {"type": "response", "output": []}).failed
    assert stream("responses", {"type": "error"}).failed
    assert stream("responses", {"type": "response.failed", "response": {}}).failed


def test_a_response_is_complete_only_at_its_end() -> None:
    response = {"response": {"usage": USAGE}}
    assert not stream("responses", {"type": "response.in_progress", **response}).complete
    assert stream("responses", {"type": "response.completed", **response}).complete


@pytest.mark.parametrize("body", [b"", b"Sorry", b"[]", b'{"usage":'])
def test_an_answer_that_is_not_an_object_is_unreadable(body: bytes) -> None:
    for kind in ("messages", "chat", "responses"):
        meter = meter_for(kind, stream=False, hide_usage=False)
        meter.feed(body)
        meter.end()
        assert (meter.unreadable, meter.finished) == (True, False), kind


def test_only_the_data_of_an_unfinished_event_counts() -> None:
    text = b'{"choices":[{"delta":{"content":"' + b"x" * 400
    for beginning, tokens in ((b"data:", 100), (b"data: ", 100), (b"xxxx:", 0), (b"id:  ", 0)):
        meter = meter_for("chat", stream=True, hide_usage=False)
        meter.feed(beginning + text)
        assert meter.unreported_output == tokens, beginning


def test_text_that_came_in_deltas_counts_once_by_its_place_in_the_output() -> None:
    def item(index: int | None, size: int = 40) -> dict[str, Any]:
        content = {"type": "message", "content": [{"type": "output_text", "text": "x" * size}]}
        return {"type": "response.output_item.done", "output_index": index, "item": content}

    deltas = [
        {"type": "response.output_text.delta", "output_index": index, "delta": "x" * 40}
        for index in (0, 1)
    ]
    assert stream("responses", *deltas, item(0), item(1)).unreported_output == 20
    assert stream("responses", deltas[1], item(1), item(0)).unreported_output == 20
    assert stream("responses", deltas[0], item(None)).unreported_output == 10
    assert stream("responses", item(0, size=41)).unreported_output == 11
    assert stream("responses", deltas[0], item(0, size=41)).unreported_output == 11
    longer = {**deltas[0], "delta": "x" * 41}
    assert stream("responses", longer, item(0, size=36)).unreported_output == 11


def test_tools_of_a_response_are_counted_by_their_kind() -> None:
    def ran(kind: str, **more: Any) -> dict[str, Any]:
        return {"type": "response.output_item.done", "item": {"type": kind, **more}}

    opened = {"action": {"type": "open_page"}}
    seen = stream(
        "responses",
        ran("file_search_call"),
        ran("code_interpreter_call"),
        ran("web_search_call", **opened),
        ran("web_search_call"),
    )
    usage = seen.used_so_far()
    assert (usage.file_searches, usage.code_executions, usage.web_searches) == (1, 1, 1)
    assert seen.tools_ran
    assert not stream("responses", ran("web_search_call", **opened)).tools_ran
    assert not stream("chat", {"choices": []}).tools_ran


@pytest.mark.parametrize(
    ("text", "size"),
    [("", 0), ("x", 4), ("xxx", 4), ("xxxx", 4), ("xxxxx", 5), ("é", 4), ("ééé", 6), (None, 0)],
)
def test_a_piece_counts_by_its_bytes_but_at_least_as_one_token(text, size) -> None:
    counted = UnreportedText()
    assert counted.add(text) == size
    assert counted.tokens == -(-size // 4)
    counted.reset()
    assert counted.tokens == 0
    counted.add("x" * 5)
    assert counted.tokens == 2


def test_a_size_is_never_negative_and_counts_bytes() -> None:
    assert [size_of(text) for text in (-1, 0, 3, "", "abc", "éé")] == [0, 0, 3, 0, 3, 4]
