"""An estimate counts only the text that was generated."""

import itertools
import json
import tracemalloc
from collections.abc import Iterator
from typing import Any

import pytest

from gateway.metering import Meter, meter_for
from gateway.metering.responses import MAX_ITEMS
from tests.gateway.fake_provider import sse

WORDS = [
    "the",
    "cat",
    "sat",
    "on",
    "a",
    "mat",
    "and",
    "was",
    "not",
    "sure",
    "that",
    "this",
    "would",
    "end",
]
SENTENCE = "This sentence has some more words than one, as a chunk often does in practice. "
ECHO = "You are a helpful assistant. " * 1_700
ENVELOPE = {
    "id": "chatcmpl-0123456789012345678901234567", "object": "chat.completion.chunk",
    "created": 1, "model": "gpt-4o-2024-08-06", "service_tier": "default",
    "system_fingerprint": "fp_0123456789", "obfuscation": "abcdefghijklmnop" * 4,
}  # fmt: skip


def fed(kind: str, *events: dict[str, Any]) -> Meter:
    """Return a meter after these events of a stream that broke off."""
    meter = meter_for(kind, stream=True, hide_usage=False)
    for event in events:
        meter.feed(f"event: {event.get('type', '')}\ndata: {json.dumps(event)}\n\n".encode())
    assert not meter.complete
    return meter


def chat(delta: dict[str, Any]) -> dict[str, Any]:
    choice = {"index": 0, "delta": delta, "logprobs": None, "finish_reason": None}
    return {**ENVELOPE, "choices": [choice], "usage": None}


def tool(kind: str, **call: str) -> dict[str, Any]:
    return chat({"tool_calls": [{"index": 0, kind: call}]})


def block(**delta: Any) -> dict[str, Any]:
    return {"type": "content_block_delta", "index": 0, "delta": delta}


def output(kind: str, text: str, **fields: Any) -> dict[str, Any]:
    return {"type": f"response.{kind}.delta", "item_id": "msg_1", "output_index": 0,
            "sequence_number": 7, "obfuscation": "abcdefghij", "delta": text, **fields}  # fmt: skip


FORMS = {
    "chat content": ("chat", lambda text: chat({"content": text})),
    "chat refusal": ("chat", lambda text: chat({"refusal": text})),
    "chat reasoning": ("chat", lambda text: chat({"reasoning_content": text})),
    "chat tool": ("chat", lambda text: tool("function", arguments=text)),
    "chat custom tool": ("chat", lambda text: tool("custom", input=text)),
    "chat function": ("chat", lambda text: chat({"function_call": {"arguments": text}})),
    "chat audio": ("chat", lambda text: chat({"audio": {"transcript": text, "data": ECHO}})),
    "messages text": ("messages", lambda text: block(type="text_delta", text=text)),
    "messages thinking": ("messages", lambda text: block(type="thinking_delta", thinking=text)),
    "messages tool": ("messages", lambda text: block(type="input_json_delta", partial_json=text)),
    **{
        f"responses {kind}": ("responses", lambda text, kind=kind: output(kind, text))
        for kind in ("output_text", "refusal", "function_call_arguments", "reasoning_summary_text",
                     "reasoning_text", "custom_tool_call_input", "mcp_call_arguments",
                     "code_interpreter_call_code", "audio.transcript", "shell_call_command")
    },
}  # fmt: skip


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("chunks", ["one word each", "one word in a language of its own", "long"])
def test_an_estimate_is_within_a_factor_of_two(form: str, chunks: str) -> None:
    kind, event = FORMS[form]
    words = itertools.islice(itertools.cycle(WORDS), 500)
    texts, tokens = {
        "one word each": ([f" {word}" for word in words], 500),
        "one word in a language of its own": (["слово", "漢字", "😀", "कि"] * 100, 600),
        "long": ([SENTENCE * 100] * 5, 500 * 17),
    }[chunks]
    estimate = fed(kind, *map(event, texts)).unreported_output
    assert tokens / 2 <= estimate <= 2 * tokens


def test_one_word_is_a_token_or_two() -> None:
    for kind, event in FORMS.values():
        assert 1 <= fed(kind, event(" word")).unreported_output <= 2
        assert fed(kind, event("")).unreported_output == 0


def test_the_echo_of_a_request_does_not_count_as_output() -> None:
    created = {"type": "response.created",
               "response": {"status": "in_progress", "instructions": ECHO, "usage": None,
                            "tools": [{"type": "function", "description": ECHO}]}}  # fmt: skip
    progress = {**created, "type": "response.in_progress"}
    assert fed("responses", created, progress).unreported_output == 0
    assert (
        fed("responses", created, progress, output("output_text", "Hello")).unreported_output <= 3
    )


def test_only_text_of_the_model_is_counted() -> None:
    audio = {"type": "response.audio.delta", "delta": "QUJD" * 9_999}
    image = {"type": "response.image_generation_call.partial_image", "partial_image_b64": ECHO}
    shell = {"type": "response.shell_call_output_content.delta", "delta": {"stdout": ECHO}}
    assert fed("responses", audio, image, shell).unreported_output == 0
    signature = block(type="signature_delta", signature=ECHO)
    citation = block(type="citations_delta", citation={"cited_text": ECHO})
    result = {"type": "web_search_tool_result", "content": [{"title": ECHO}]}
    found = {"type": "content_block_start", "content_block": result}
    assert fed("messages", signature, citation, found, {"type": "ping"}).unreported_output == 0
    assert (
        fed("chat", chat({"role": "assistant"}), chat({"audio": {"data": ECHO}})).unreported_output
        == 0
    )


def test_text_that_the_last_event_repeats_counts_once() -> None:
    where = {"item_id": "msg_1", "output_index": 0}
    text = SENTENCE * 20
    part = {"type": "output_text", "text": text}
    item = {"type": "message", "content": [part]}
    deltas = [output("output_text", SENTENCE) for _ in range(20)]
    done = [
        {"type": "response.output_text.done", **where, "text": text},
        {"type": "response.content_part.done", **where, "part": part},
        {"type": "response.output_item.done", **where, "item": item},
    ]
    assert (
        fed("responses", *deltas, *done).unreported_output
        == fed("responses", *deltas).unreported_output
    )


def test_text_that_only_an_item_contains_counts() -> None:
    call = {"type": "function_call", "name": "f", "arguments": SENTENCE * 10}
    result = {"type": "function_call_output", "output": ECHO, "arguments": ECHO}
    done = [{"type": "response.output_item.done", "output_index": index, "item": item}
            for index, item in enumerate((call, result))]  # fmt: skip
    assert 100 <= fed("responses", *done).unreported_output <= 250


def test_text_after_usage_adds_to_what_was_reported() -> None:
    start = {"type": "message_start", "message": {"usage": {"input_tokens": 5, "output_tokens": 3}}}
    reported = {"type": "message_delta", "usage": {"output_tokens": 5_000}}  # most of it hidden
    text = block(type="text_delta", text="four" * 10)
    meter = fed("messages", start, text, reported, text)
    assert (meter.used_so_far().output, meter.unreported_output) == (5_000, 10)


def test_searches_that_began_are_counted_if_no_usage_is_reported() -> None:
    item = {"type": "web_search_call", "action": {"type": "search"}}
    added = {"type": "response.output_item.added", "output_index": 0, "item": item}
    assert fed("responses", added).used_so_far().web_searches == 1
    block = {"type": "server_tool_use", "name": "web_search", "input": {}}
    use = {"type": "content_block_start", "content_block": block}
    assert fed("messages", use, use).used_so_far().web_searches == 2


def test_any_number_of_searches_is_counted_in_bounded_memory() -> None:
    meter = meter_for("responses", stream=True, hide_usage=False)
    [without_index] = sse((None, {"type": "x", "item": {"type": "web_search_call"}}))
    searches = MAX_ITEMS * 3
    tracemalloc.start()
    try:
        for _ in range(searches):
            meter.feed(without_index)
        kept, _ = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert (meter.used_so_far().web_searches, meter.tools_ran) == (searches, True)
    assert kept < 100_000


def test_searches_beyond_the_tracked_items_are_counted() -> None:
    meter = meter_for("responses", stream=True, hide_usage=False)
    for index in range(MAX_ITEMS + 10):
        item = {"type": "web_search_call", "action": {"type": "search"}}
        reported = {"type": "response.output_item.done", "output_index": index, "item": item}
        for event in sse(*[(None, reported)] * (2 if index < 10 else 1)):
            meter.feed(event)
    assert meter.used_so_far().web_searches == MAX_ITEMS + 10


@pytest.mark.parametrize("ascii_only", [True, False])
def test_estimates_do_not_depend_on_escaping_or_length(ascii_only: bool) -> None:
    """Long pieces are never decoded, so the size of escaped characters is estimated."""
    for text in ("plain words ", "Ünïcödé ", "漢字", '"quoted"\n'):

        def cut(data: bytes) -> Iterator[bytes]:
            yield from (data[at : at + 5_000] for at in range(0, len(data), 5_000))

        event = chat({"content": text * 20_000})
        data = f"data: {json.dumps(event, ensure_ascii=ascii_only)}\n\n".encode()
        meter = meter_for("chat", stream=True, hide_usage=False)
        for piece in cut(data):
            meter.feed(piece)
        expected = len(text.encode()) * 20_000 / 4
        assert expected * 0.8 <= meter.unreported_output <= expected * 1.5
