"""Meters raise no exception and change no byte, whatever they read."""

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.metering import meter_for
from gateway.metering.meter import MAX_HELD_BACK, MAX_KEPT
from gateway.metering.usage import ExtraUsage, Usage
from tests.gateway.conftest import MODEL
from tests.gateway.fake_provider import (
    completion,
    completion_stream,
    message,
    messages_stream,
    messages_usage,
    response,
    response_stream,
)

KINDS = ("messages", "chat", "responses")
STREAMS = {
    "messages": b"".join(messages_stream()),
    "chat": b"".join(completion_stream(with_usage=True)),
    "responses": b"".join(response_stream()),
}
NUMBERS = st.one_of(st.integers(-(2**70), 2**70), st.none(), st.text(max_size=3), st.floats())


def mangled(document):
    """Return documents in which one value is replaced by something else."""
    return st.sampled_from(list(document)).flatmap(
        lambda name: NUMBERS.map(lambda value: {**document, name: value})
    )


@given(
    st.sampled_from(KINDS),
    st.lists(
        st.one_of(
            st.binary(max_size=60),
            st.sampled_from(list(STREAMS.values())),
            st.sampled_from([b"data: {}\n", b'data: {"usage": 5}\n\n', b"\r\n\r\n", b"data:\n"]),
        ),
        max_size=6,
    ),
    st.booleans(),
)
def test_any_stream_passes_unchanged(kind: str, chunks: list[bytes], hide: bool) -> None:
    meter = meter_for(kind, stream=True, hide_usage=hide)
    shown = b"".join([meter.feed(chunk) for chunk in chunks]) + meter.end()
    if not hide:
        assert shown == b"".join(chunks)
    usage = meter.usage()
    assert usage is None or min(usage.all_input, usage.output) >= 0
    assert meter.unreported_output >= 0


@given(st.one_of(st.binary(max_size=200), mangled(message()).map(json.dumps).map(str.encode)))
def test_any_document_passes_unchanged(body: bytes) -> None:
    for kind in KINDS:
        meter = meter_for(kind, stream=False, hide_usage=False)
        assert meter.feed(body) + meter.end() == body
        meter.usage()


@given(mangled(messages_usage()))
def test_reported_numbers_never_become_negative(usage) -> None:
    meter = meter_for("messages", stream=False, hide_usage=False)
    meter.feed(json.dumps(message(usage)).encode())
    meter.end()
    reported = meter.usage()
    assert reported is None or (
        reported.input >= 0 and reported.output >= 0 and reported.cache_read >= 0
    )


@pytest.mark.parametrize(
    ("kind", "document", "expected"),
    [
        ("messages", message(), Usage(100, output=20, service_tier="standard", model=MODEL)),
        ("chat", completion(), Usage(60, 40, output=20, service_tier="default", model="gpt-4o")),
        ("responses", response(), Usage(60, 40, output=20, service_tier="default", model="gpt-4o")),
    ],
)
def test_documents_and_streams_report_the_same(kind, document, expected) -> None:
    whole = meter_for(kind, stream=False, hide_usage=False)
    whole.feed(json.dumps(document).encode())
    whole.end()
    assert whole.usage() == expected
    assert whole.finished
    streamed = meter_for(kind, stream=True, hide_usage=False)
    streamed.feed(STREAMS[kind])
    reported = streamed.usage()
    assert (reported.all_input, reported.cache_read, reported.output) == (
        100,
        expected.cache_read,
        20,
    )


@pytest.mark.parametrize(
    ("kind", "document", "names"),
    [
        ("chat", completion(), ("prompt_tokens", "completion_tokens")),
        ("responses", response(), ("input_tokens", "output_tokens")),
    ],
)
def test_twelve_hour_cache_writes_are_counted_separately(kind, document, names) -> None:
    read, made = names
    details = {
        "cached_tokens": 10,
        "cache_write_tokens": 50,
        "cache_write_tokens_details": {"ttl_12h_tokens": 30},
    }
    usage = {read: 100, made: 20, f"{read}_details": details}
    meter = meter_for(kind, stream=False, hide_usage=False)
    meter.feed(json.dumps(document | {"usage": usage}).encode())
    meter.end()
    reported = meter.usage()
    assert (reported.input, reported.cache_read) == (40, 10)
    assert (reported.cache_write_5m, reported.cache_write_12h, reported.output) == (20, 30, 20)


@pytest.mark.parametrize(
    ("kind", "document"),
    [
        ("messages", message(messages_usage(service_tier="x" * 100_000))),
        ("chat", completion() | {"service_tier": "x" * 100_000}),
        ("responses", response() | {"service_tier": "x" * 100_000}),
    ],
)
def test_overlong_reported_names_do_not_enter_events(kind: str, document: dict) -> None:
    meter = meter_for(kind, stream=False, hide_usage=False)
    meter.feed(json.dumps(document).encode())
    meter.end()
    assert meter.usage().service_tier is None
    assert meter.usage().output == 20


ITERATIONS = [
    {"type": "compaction", "input_tokens": 1_000, "output_tokens": 50,
     "cache_creation_input_tokens": 30, "cache_read_input_tokens": 7,
     "cache_creation": {"ephemeral_1h_input_tokens": 20, "ephemeral_5m_input_tokens": 10}},
    {"type": "message", "input_tokens": 60, "output_tokens": 12, "cache_read_input_tokens": 0},
    {"type": "advisor_message", "model": "claude-opus-4-5", "input_tokens": 500,
     "output_tokens": 9, "cache_creation_input_tokens": 0, "cache_read_input_tokens": 0},
    {"type": "fallback_message", "model": "claude-haiku-4-5", "input_tokens": 40,
     "output_tokens": 8},
    {"type": "something new", "input_tokens": 10**9},
    {"type": "compaction"},
]  # fmt: skip


@pytest.mark.parametrize("stream", [False, True])
def test_usage_beside_the_message_is_counted_separately(stream: bool) -> None:
    meter = meter_for("messages", stream=stream, hide_usage=False)
    if stream:
        for event in (
            {"type": "message_start", "message": {"usage": messages_usage()}},
            {"type": "message_delta", "usage": {"output_tokens": 20, "iterations": ITERATIONS[:1]}},
            {"type": "message_delta", "usage": {"output_tokens": 20, "iterations": ITERATIONS}},
            {"type": "message_delta", "usage": {"output_tokens": 20}},
        ):
            meter.feed(f"data: {json.dumps(event)}\n\n".encode())
    else:
        meter.feed(json.dumps(message(messages_usage(iterations=ITERATIONS))).encode())
    meter.end()
    reported = meter.usage()
    assert (reported.input, reported.output) == (100, 20)
    assert reported.extra == (
        ExtraUsage(None, Usage(1_000, 7, 10, 20, 50)),
        ExtraUsage("claude-opus-4-5", Usage(500, output=9)),
        ExtraUsage(None, Usage()),
    )
    total = reported.total()
    assert (total.input, total.output, total.all_input) == (1_600, 79, 1_637)
    assert total.service_tier == "standard"


@pytest.mark.parametrize("odd", [5, {}, [5], [{"type": 5}], "x", [{"input_tokens": "x"}]])
def test_unreadable_iterations_do_no_harm_but_do_not_count_as_none(odd) -> None:
    meter = meter_for("messages", stream=False, hide_usage=False)
    meter.feed(json.dumps(message(messages_usage(iterations=odd))).encode())
    meter.end()
    assert (meter.usage().input, meter.usage().extra) == (100, ())
    assert not meter.complete


def test_one_hour_cache_writes_stay_so_if_the_stream_ends_with_only_a_total() -> None:
    written = {"ephemeral_5m_input_tokens": 10, "ephemeral_1h_input_tokens": 90}
    usage = messages_usage(cache_creation_input_tokens=100, cache_creation=written)
    total = {"output_tokens": 20, "cache_creation_input_tokens": 100}
    meter = meter_for("messages", stream=True, hide_usage=False)
    for event in (
        {"type": "message_start", "message": {"usage": usage}},
        {"type": "message_delta", "usage": total},
    ):
        meter.feed(f"data: {json.dumps(event)}\n\n".encode())
    reported = meter.usage()
    assert (reported.cache_write_5m, reported.cache_write_1h) == (10, 90)


@pytest.mark.parametrize(
    ("kind", "prefix", "output"),
    [("chat", "prompt", "completion_tokens"), ("responses", "input", "output_tokens")],
)
def test_openai_cache_writes_are_counted_separately(kind: str, prefix: str, output: str) -> None:
    details = {"cached_tokens": 10, "cache_write_tokens": 60}
    usage = {f"{prefix}_tokens": 100, f"{prefix}_tokens_details": details, output: 5}
    meter = meter_for(kind, stream=False, hide_usage=False)
    meter.feed(json.dumps({"usage": usage}).encode())
    meter.end()
    reported = meter.usage()
    assert (reported.input, reported.cache_read, reported.cache_write_5m) == (30, 10, 60)


@pytest.mark.parametrize("prefix", ["prompt", "input"])
def test_no_part_of_the_input_exceeds_what_the_others_leave(prefix: str) -> None:
    kind = {"prompt": "chat", "input": "responses"}[prefix]
    output = {"prompt": "completion_tokens", "input": "output_tokens"}[prefix]
    for cached, written, lasting, expected in (
        (10, 95, 0, (0, 10, 90, 0)),
        (10, 95, 95, (0, 10, 0, 90)),
        (101, 5, 0, (0, 100, 0, 0)),
    ):
        details = {
            "cached_tokens": cached,
            "cache_write_tokens": written,
            "cache_write_tokens_details": {"ttl_12h_tokens": lasting},
        }
        usage = {f"{prefix}_tokens": 100, f"{prefix}_tokens_details": details, output: 5}
        meter = meter_for(kind, stream=False, hide_usage=False)
        meter.feed(json.dumps({"usage": usage}).encode())
        meter.end()
        reported = meter.usage()
        writes = reported.cache_write_5m, reported.cache_write_12h
        assert (reported.input, reported.cache_read, *writes) == expected


def test_a_line_without_end_is_not_kept() -> None:
    for hide in (False, True):
        meter = meter_for("chat", stream=True, hide_usage=hide)
        shown = b""
        for _ in range(5):
            shown += meter.feed(b"x" * MAX_HELD_BACK)
        assert len(shown) >= 4 * MAX_HELD_BACK
        assert len(shown + meter.end()) == 5 * MAX_HELD_BACK


def test_errors_inside_a_stream_are_noticed() -> None:
    for kind in ("messages", "responses"):
        meter = meter_for(kind, stream=True, hide_usage=False)
        meter.feed(b'event: error\ndata: {"type":"error","error":{"type":"overloaded_error"}}\n\n')
        assert meter.failed
    meter = meter_for("chat", stream=True, hide_usage=False)
    meter.feed(b'data: {"error":{"message":"x"}}\n\n')
    assert meter.failed


def test_the_estimate_of_a_broken_stream_does_not_depend_on_its_chunks() -> None:
    cut = messages_stream(pieces=50)[:-2]
    for pieces in (cut, [b"".join(cut)]):
        meter = meter_for("messages", stream=True, hide_usage=False)
        for piece in pieces:
            meter.feed(piece)
        assert not meter.finished
        assert meter.unreported_output >= 50


@pytest.mark.parametrize("data", [b"{}", b'{"type":"ping"}', b"overloaded", b"[1]\ndata:,2", b""])
def test_an_error_event_is_an_error_whatever_its_data_is(data: bytes) -> None:
    for kind in ("messages", "chat") if b"type" in data else KINDS:
        look_for_an_error(kind, data)


def look_for_an_error(kind: str, data: bytes) -> None:
    meter = meter_for(kind, stream=True, hide_usage=False)
    meter.feed(b"event: ping\ndata: " + data + b"\n\n")
    assert not meter.failed
    meter.feed(b"event: error\ndata: " + data + b"\n\n")
    assert meter.failed


def test_an_event_without_data_is_no_error() -> None:
    for kind in KINDS:
        meter = meter_for(kind, stream=True, hide_usage=False)
        meter.feed(b"event: error\n\n")
        assert not meter.failed
        meter.feed(b"data: {}\n\n")
        assert not meter.failed, "the name belonged to the event before"


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("size", [1, 2 * MAX_KEPT])
@pytest.mark.parametrize("end", [b"", b"\n\n"], ids=["cut", "whole"])
def test_an_error_event_of_any_length_counts_even_if_it_is_the_last(kind, size, end) -> None:
    meter = meter_for(kind, stream=True, hide_usage=False)
    meter.feed(b"event: error\ndata: " + b"x" * size + end)
    meter.end()
    assert meter.failed


@pytest.mark.parametrize(
    ("first", "last", "written"),
    [
        ({"cache_creation_input_tokens": 100}, {}, (100, 0)),
        ({}, {"cache_creation_input_tokens": 100}, (100, 0)),
        ({}, {"cache_creation": {"ephemeral_1h_input_tokens": 30}}, (0, 30)),
        ({}, {"cache_creation": {"ephemeral_5m_input_tokens": 30}}, (30, 0)),
        (
            {"cache_creation": {"ephemeral_1h_input_tokens": 90}},
            {"cache_creation_input_tokens": 40},
            (0, 40),
        ),
        (
            {"cache_creation": {"ephemeral_1h_input_tokens": 30}},
            {"cache_creation_input_tokens": 40},
            (10, 30),
        ),
    ],
)
def test_a_cache_write_is_counted_however_it_is_reported(first, last, written) -> None:
    meter = meter_for("messages", stream=True, hide_usage=False)
    for event in (
        {"type": "message_start", "message": {"usage": {"input_tokens": 5, **first}}},
        {"type": "message_delta", "usage": {"output_tokens": 20, **last}},
    ):
        meter.feed(f"data: {json.dumps(event)}\n\n".encode())
    reported = meter.usage()
    assert (reported.cache_write_5m, reported.cache_write_1h) == written


def test_searches_that_began_count_until_as_many_are_reported() -> None:
    meter = meter_for("messages", stream=True, hide_usage=False)
    block = {"type": "server_tool_use", "name": "web_search"}

    def feed(**event) -> None:
        meter.feed(f"data: {json.dumps(event)}\n\n".encode())

    feed(type="message_start", message={"usage": {"input_tokens": 5}})
    assert not meter.tools_ran
    feed(type="content_block_start", content_block={**block, "name": "get_weather"})
    assert not meter.tools_ran
    feed(type="content_block_start", content_block=block)
    feed(type="content_block_start", content_block=block)
    assert meter.tools_ran
    assert meter.used_so_far().web_searches == 2
    used = {"web_search_requests": 1}
    feed(type="message_delta", usage={"output_tokens": 1, "server_tool_use": used})
    assert meter.tools_ran
    used = {"web_search_requests": 2}
    feed(type="message_delta", usage={"output_tokens": 1, "server_tool_use": used})
    assert not meter.tools_ran


def test_what_a_tool_wrote_is_not_output_of_the_model() -> None:
    meter = meter_for("responses", stream=False, hide_usage=False)
    output = [{"type": "function_call_output", "arguments": "x" * 400}]
    meter.feed(json.dumps({"status": "incomplete", "output": output}).encode())
    meter.end()
    assert meter.unreported_output == 0


@pytest.mark.parametrize("number", ["1" * 5000, "1e400", "-1", "1.5", '"7"', str(2**41)])
def test_a_number_that_is_no_count_is_unreadable(number: str) -> None:
    for kind, name in (("messages", "input_tokens"), ("responses", "input_tokens")):
        meter = meter_for(kind, stream=False, hide_usage=False)
        meter.feed(b'{"usage":{"%b":%b,"output_tokens":1}}' % (name.encode(), number.encode()))
        meter.end()
        assert meter.unreadable, kind
        assert not meter.complete
