"""Streams in every form that the standard allows, lines of any length, and hidden usage.

https://html.spec.whatwg.org/multipage/server-sent-events.html#parsing-an-event-stream
"""

import json

import pytest

from gateway.metering import meter_for
from gateway.metering.excerpt import MAX_VALUE
from gateway.metering.meter import MAX_HELD_BACK, MAX_KEPT
from tests.gateway.fake_provider import CHAT_USAGE, messages_stream, response_stream

START = '{"type":"message_start","message":{"usage":{"input_tokens":100,"output_tokens":1}}}'
DELTA = '{"type":"message_delta","delta":{"stop_reason":"end_turn"},"usage":{"output_tokens":20}}'
STOP = '{"type":"message_stop"}'
UNTYPED_STOP = "{}"

FORMS = {
    "plain": f"data: {START}\n\ndata: {DELTA}\n\ndata: {STOP}\n\n",
    "no space": f"data:{START}\n\ndata:{DELTA}\n\ndata:{STOP}\n\n",
    "named before": f"event: message_start\ndata: {START}\n\nevent:message_delta\ndata: {DELTA}\n\n"
    f"event:message_stop\ndata: {UNTYPED_STOP}\n\n",
    "named after": f"data: {START}\nevent: message_start\n\ndata: {DELTA}\nevent: x\n\n"
    f"data: {STOP}\nevent: message_stop\n\n",
    "comments and other fields": f": hi\n\nid: 1\ndata: {START}\nretry: 5\n:\n\nnonsense\n"
    f'data: {DELTA}\n\n: {{"usage":{{}}}}\ndata: {STOP}\n\ndata\n\ndata:\n\n',
    "several lines": f"data: {START}\n\n"
    + "".join(f"data: {line}\n" for line in json.dumps(json.loads(DELTA), indent=1).split("\n"))
    + f"\ndata: {STOP}\n\n",
    "a mark of UTF-8": f"\ufeffdata: {START}\n\ndata: {DELTA}\n\ndata: {STOP}\n\n",
    "no blank line at the end": f"data: {START}\n\ndata: {DELTA}\n\ndata: {STOP}",
    "escaped names": (f"data: {START}\n\ndata: {DELTA}\n\ndata: {STOP}\n\n")
    .replace('"usage"', '"us\\u0061ge"')
    .replace('"type"', '"t\\u0079pe"'),
    "not UTF-8 elsewhere": f'data: {START}\n\ndata: {{"type":"ping","x":"\udcff"}}\n\n'
    f"data: {DELTA}\n\ndata: {STOP}\n\n",
}  # fmt: skip


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("end", ["\n", "\r\n", "\r"], ids=["LF", "CRLF", "CR"])
def test_a_stream_in_any_form_is_read_wherever_it_is_cut(form: str, end: str) -> None:
    data = FORMS[form].replace("\n", end).encode(errors="surrogateescape")
    for cut in range(len(data)):
        meter = meter_for("messages", stream=True, hide_usage=False)
        assert meter.feed(data[:cut]) + meter.feed(data[cut:]) == data
        assert meter.end() == b""
        assert (meter.finished, meter.complete, meter.failed) == (True, True, False), cut
        assert (meter.usage().input, meter.usage().output) == (100, 20), cut


def test_decoy_usage_is_ignored() -> None:
    fake = '"usage":{"input_tokens":7,"output_tokens":7}'
    decoys = [
        f'{{"type":"ping","item":{{{fake}}}}}',
        f'{{"type":"content_block_delta","delta":{{"text":{json.dumps("{" + fake + "}")}}}}}',
        f'{{"type":"message_delta","delta":{{{fake}}}}}',
        f'{{"type":"message_start","message":{{"content":[{{{fake}}}]}}}}',
        f'{{"type":"something_new",{fake}}}',
    ]
    meter = meter_for("messages", stream=True, hide_usage=False)
    for decoy in decoys:
        meter.feed(f"data: {decoy}\n\n".encode())
        long = decoy.replace("{", '{"x":"' + "x" * 2 * MAX_KEPT + '",', 1)
        data = f"data: {long}\n\n".encode()
        for at in range(0, len(data), 1_000):
            meter.feed(data[at : at + 1_000])
    assert meter.usage() is None


def test_the_last_duplicate_member_counts() -> None:
    data = b'{"usage":{"prompt_tokens":1,"completion_tokens":1},' + b'"usage":' + (
        json.dumps(CHAT_USAGE).encode() + b"}"
    )  # fmt: skip
    for filler in (b"", b'"x":"' + b"x" * 2 * MAX_KEPT + b'",'):
        meter = meter_for("chat", stream=False, hide_usage=False)
        meter.feed(data.replace(b"{", b"{" + filler, 1))
        meter.end()
        assert (meter.complete, meter.usage().output) == (True, 20)


@pytest.mark.parametrize(
    "odd",
    [b"[" * 300_000 + b"]" * 300_000, b'{"a":' * 200_000 + b"1" + b"}" * 200_000, b"NaN",
     b"-Infinity", b"1e999", b'"\xff\x00\x01"', b'"\\ud800"', b"9" * 5_000],
    ids=["arrays", "objects", "NaN", "Infinity", "huge", "no UTF-8", "half a pair", "long"],
)  # fmt: skip
def test_odd_members_beside_the_usage_do_no_harm(odd: bytes) -> None:
    usage = json.dumps(CHAT_USAGE).encode()
    document = b'{"x":' + odd + b',"usage":' + usage + b',"choices":[]}'
    for stream in (False, True):
        meter = meter_for("chat", stream=stream, hide_usage=False)
        meter.feed(b"data: " + document + b"\n\ndata: [DONE]\n\n" if stream else document)
        meter.end()
        assert (meter.complete, meter.usage().output) == (True, 20)


@pytest.mark.parametrize("stream", [False, True])
def test_oversized_usage_is_unreadable_not_zero(stream: bool) -> None:
    usage = {**CHAT_USAGE, "x": "x" * 2 * MAX_VALUE}
    document = json.dumps({"choices": [], "usage": usage}).encode()
    meter = meter_for("chat", stream=stream, hide_usage=False)
    data = b"data: " + document + b"\n\ndata: [DONE]\n\n" if stream else document
    for at in range(0, len(data), 10_000):
        meter.feed(data[at : at + 10_000])
    meter.end()
    assert (meter.complete, meter.unreadable) == (False, True)


@pytest.mark.parametrize("kind", ["messages", "chat", "responses"])
def test_unreadable_data_is_not_read_again_for_each_line(
    kind: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    meter = meter_for(kind, stream=True, hide_usage=False)
    read, attempts = meter._reader.event, []
    monkeypatch.setattr(
        meter._reader, "event", lambda data, name: attempts.append(data) or read(data, name)
    )
    meter.feed(b'data: {"error":{"a":1!}}\n')
    for _ in range(100):
        meter.feed(b"data:\n")
    meter.feed(b"\n")
    assert len(attempts) <= 2
    assert (meter.unreadable, meter.complete) == (True, False)


@pytest.mark.parametrize("length", [MAX_KEPT * 2, 5_000_000])
def test_an_error_with_a_message_of_any_length_is_an_error(length: int) -> None:
    error = json.dumps({"error": {"message": "x" * length}}).encode()
    for kind in ("messages", "chat", "responses"):
        for stream in (False, True):
            meter = meter_for(kind, stream=stream, hide_usage=False)
            data = b"data: " + error + b"\n\n" if stream else error
            for at in range(0, len(data), 10_000):
                meter.feed(data[at : at + 10_000])
            meter.end()
            assert (meter.failed, meter.usage(), meter.unreported_output) == (True, None, 0)


@pytest.mark.parametrize("length", [0, MAX_KEPT * 2, MAX_HELD_BACK * 2, 2_000_000])
@pytest.mark.parametrize("step", [7_001, 100, 10**9])
def test_usage_is_taken_out_of_a_stream_with_lines_of_any_length(length: int, step: int) -> None:
    if step == 100 and length > MAX_HELD_BACK:
        step = 1_000
    content = {"choices": [{"index": 0, "delta": {"content": "x" * length}}], "usage": None}
    before = f": alive\n\ndata: {json.dumps(content)}\n\n".encode()
    usage = f"id: 7\ndata: {json.dumps({'choices': [], 'usage': CHAT_USAGE})}\n\n".encode()
    after = b": alive\n\ndata: [DONE]\n\n"
    data = before + usage + after
    meter = meter_for("chat", stream=True, hide_usage=True)
    shown = b"".join(meter.feed(data[at : at + step]) for at in range(0, len(data), step))
    assert shown + meter.end() == before + after
    assert (meter.complete, meter.usage().output) == (True, 20)


@pytest.mark.parametrize("end", [b"\n\n", b""], ids=["blank line", "no blank line"])
def test_usage_in_a_long_last_line_counts(end: bytes) -> None:
    chunk = {"x": "x" * 2 * MAX_KEPT, "choices": [], "usage": CHAT_USAGE}
    meter = meter_for("chat", stream=True, hide_usage=False)
    data = f"data: {json.dumps(chunk)}".encode() + end
    for at in range(0, len(data), 1_000):
        meter.feed(data[at : at + 1_000])
    meter.end()
    assert (meter.complete, meter.unreadable) == (True, False)


@pytest.mark.parametrize("next_line", [(b"id: 7",), (b"i", b"d: 7")])
def test_a_long_line_may_end_with_the_carriage_return_that_ends_a_chunk(
    next_line: tuple[bytes, ...],
) -> None:
    chunk = {"x": "x" * 2 * MAX_KEPT, "choices": [], "usage": CHAT_USAGE}
    meter = meter_for("chat", stream=True, hide_usage=False)
    for each in (f"data: {json.dumps(chunk)}\r".encode(), *next_line, b"\r\r"):
        meter.feed(each)
    assert (meter.usage().output, meter.unreadable) == (20, False)


def test_a_long_comment_is_passed_on_and_not_read() -> None:
    comment = b":" + b"x" * 2 * MAX_KEPT
    usage = f"data: {json.dumps({'choices': [], 'usage': CHAT_USAGE})}\n\n".encode()
    meter = meter_for("chat", stream=True, hide_usage=True)
    assert meter.feed(comment) + meter.feed(usage) == comment + usage
    assert meter.usage() is None


USAGE_CHUNK = json.dumps({"choices": [], "usage": CHAT_USAGE}).encode()
BEGINNING, END = USAGE_CHUNK[:13], USAGE_CHUNK[13:]  # within the white space after a comma


def test_a_usage_chunk_of_several_lines_is_hidden() -> None:
    meter = meter_for("chat", stream=True, hide_usage=True)
    assert meter.feed(b"data: " + BEGINNING + b"\ndata: " + END + b"\n\n") == b""
    assert meter.usage().output == 20


def test_a_long_comment_within_an_event_is_not_its_data() -> None:
    meter = meter_for("chat", stream=True, hide_usage=False)
    comment = b":" + b"x" * 2 * MAX_KEPT
    for piece in (b"data: " + BEGINNING + b"\n", comment, b"\ndata: " + END, b"\n\n"):
        meter.feed(piece)
    assert (meter.usage().output, meter.unreadable) == (20, False)


def test_lines_of_data_are_joined_by_a_line_break() -> None:
    meter = meter_for("chat", stream=True, hide_usage=False)
    meter.feed(b'data: {"choices":[],"usage":{"completion_tokens":1,"prompt_tokens":1\n')
    meter.feed(b"data:00}}\n\n")
    assert (meter.usage(), meter.unreadable) == (None, True)


def test_an_event_after_one_that_cannot_be_read_counts() -> None:
    meter = meter_for("chat", stream=True, hide_usage=False)
    meter.feed(b'data: {"choices":\n\n')
    assert meter.unreadable
    meter.feed(b"data: " + USAGE_CHUNK + b"\n\n")
    assert (meter.usage().output, meter.unreadable) == (20, False)


def test_data_that_cannot_be_read_after_the_end_or_an_error_does_no_harm() -> None:
    meter = meter_for("messages", stream=True, hide_usage=False)
    meter.feed(FORMS["plain"].encode() + b"data: {junk\n\n")
    assert (meter.complete, meter.unreadable) == (True, False)
    meter = meter_for("messages", stream=True, hide_usage=False)
    meter.feed(b"event: error\ndata: overloaded\n\n")
    assert (meter.finished, meter.failed, meter.unreadable) == (False, True, False)


def test_an_event_cut_off_by_the_end_of_the_stream_is_unreadable() -> None:
    meter = meter_for("chat", stream=True, hide_usage=False)
    meter.feed(b"data: " + USAGE_CHUNK[:-1])
    meter.end()
    assert (meter.usage(), meter.unreadable) == (None, True)


def test_a_chat_stream_has_finished_when_the_connection_ends() -> None:
    meter = meter_for("chat", stream=True, hide_usage=False)
    meter.feed(b"data: " + USAGE_CHUNK + b"\n\n")
    assert not meter.finished
    meter.end()
    assert (meter.finished, meter.complete) == (True, True)


def test_a_byte_order_mark_counts_only_at_the_beginning() -> None:
    meter = meter_for("chat", stream=True, hide_usage=False)
    meter.feed(b": hi\n\n")
    meter.feed(b"\xef\xbb\xbfdata: " + USAGE_CHUNK + b"\n\n")
    assert meter.usage() is None


def test_a_comment_between_events_is_passed_on_at_once() -> None:
    meter = meter_for("chat", stream=True, hide_usage=True)
    assert meter.feed(b": alive\n") == b": alive\n"
    said = b'data: {"choices":[{"delta":{"content":"x"}}]}\n'
    pieces = (said, b": within the event\n", b"\n")
    assert [meter.feed(piece) for piece in pieces] == [b"", b"", b"".join(pieces)]


def test_usage_is_hidden_after_an_event_of_any_length() -> None:
    beginning, end = b'data: {"choices":[],"x":"', b'"}\n'
    for length in (0, MAX_HELD_BACK - len(beginning + end) - 1):
        event = beginning + b"x" * length + end
        meter = meter_for("chat", stream=True, hide_usage=True)
        assert meter.feed(event) + meter.feed(b"\n") == event + b"\n"
        assert meter.feed(b"data: " + USAGE_CHUNK + b"\n") + meter.feed(b"\n") == b""
        assert meter.usage().output == 20


@pytest.mark.parametrize("kind", ["messages", "responses"])
def test_only_a_chat_has_events_that_can_be_hidden(kind: str) -> None:
    stream = {"messages": messages_stream(), "responses": response_stream()}[kind]
    meter = meter_for(kind, stream=True, hide_usage=True)
    assert b"".join(map(meter.feed, stream)) + meter.end() == b"".join(stream)


def test_a_usage_chunk_too_long_to_be_held_back_is_passed_on_and_counts() -> None:
    chunk = {"x": "x" * 2 * MAX_HELD_BACK, "choices": [], "usage": CHAT_USAGE}
    data = f"data: {json.dumps(chunk)}\n\ndata: [DONE]\n\n".encode()
    meter = meter_for("chat", stream=True, hide_usage=True)
    shown = b"".join(meter.feed(data[at : at + 1_000]) for at in range(0, len(data), 1_000))
    assert shown + meter.end() == data
    assert (meter.complete, meter.usage().output) == (True, 20)


@pytest.mark.parametrize("end", [b"data: [DONE]\n\n", b""], ids=["DONE", "nothing"])
def test_a_chat_stream_is_complete_once_its_usage_is_reported(end: bytes) -> None:
    """Some servers report it with the `finish_reason`, and some never send `[DONE]`."""
    choice = {"index": 0, "delta": {}, "finish_reason": "stop"}
    for chunk in ({"choices": [], "usage": CHAT_USAGE}, {"choices": [choice], "usage": CHAT_USAGE}):
        meter = meter_for("chat", stream=True, hide_usage=False)
        meter.feed(f"data: {json.dumps(chunk)}\n\n".encode() + end)
        assert meter.complete
        assert meter.usage().output == 20


@pytest.mark.parametrize("status", ["incomplete", "cancelled"])
def test_a_cancelled_or_incomplete_answer_is_not_an_error(status: str) -> None:
    usage = {"input_tokens": 100, "output_tokens": 20}
    response = {"status": status, "usage": usage, "error": None,
                "incomplete_details": {"reason": "content_filter"}}  # fmt: skip
    whole = meter_for("responses", stream=False, hide_usage=False)
    whole.feed(json.dumps(response).encode())
    whole.end()
    streamed = meter_for("responses", stream=True, hide_usage=False)
    event = {"type": f"response.{status}", "response": response}
    streamed.feed(f"data: {json.dumps(event)}\n\n".encode())
    assert (whole.complete, whole.failed) == (streamed.complete, streamed.failed) == (True, False)
