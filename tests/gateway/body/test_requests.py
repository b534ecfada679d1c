"""Reading bodies: the most a call can use, and the bytes that go to the provider."""

import base64
import contextlib
import gc
import json
import time
from collections.abc import Callable

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway import apis
from gateway.body import divided_bodies, requests
from gateway.body.usage_bound import usage_bound_of
from gateway.errors import Refusal

PIXEL = base64.b64encode(b"\x89PNG" + b"0" * 3000).decode()
SOURCE = {"type": "base64", "media_type": "image/png", "data": PIXEL}


def usage_bound(api: apis.Api, cap: int = 1000, **body):
    return usage_bound_of(requests.read(api, json.dumps({"model": "m", **body}).encode()), cap)


def messages(*content, **body):
    return usage_bound(apis.MESSAGES, messages=[{"role": "user", "content": list(content)}], **body)


@given(st.text(max_size=300))
def test_input_is_bounded_by_its_bytes(text: str) -> None:
    bounded = messages({"type": "text", "text": text}, max_tokens=7)
    assert bounded.input_tokens >= len(text.encode())
    assert bounded.output_tokens == 7
    assert bounded.whole_context == 0


def test_an_image_counts_as_an_image_not_as_its_base64() -> None:
    bounded = messages({"type": "image", "source": SOURCE})
    assert 5_000 <= bounded.input_tokens < 6_000
    tool = {"type": "tool_result", "tool_use_id": "t", "content": [
        {"type": "image", "source": SOURCE}] * 2}  # fmt: skip
    assert 10_000 <= messages(tool).input_tokens < 11_000
    url = {"type": "image_url", "image_url": {"url": f"data:image/png;base64,{PIXEL}"}}
    chat = usage_bound(apis.CHAT_COMPLETIONS, messages=[{"role": "user", "content": [url]}])
    assert 50_000 <= chat.input_tokens < 51_000


@pytest.mark.parametrize(
    "part",
    [
        {"type": "document", "source": SOURCE},
        {"type": "document", "source": {"type": "url", "url": "https://example.com/a.pdf"}},
        {"type": "container_upload", "file_id": "f"},
        {"type": "something_new"},
        {"type": 5},
    ],
)
def test_references_and_unknown_parts_count_as_the_whole_context(part) -> None:
    assert messages(part).whole_context >= 1


def test_text_documents_count_as_their_bytes() -> None:
    document = {"type": "document", "source": {"type": "text", "data": "x" * 100}}
    assert messages(document).whole_context == 0


@pytest.mark.parametrize("field", ["previous_response_id", "conversation"])
def test_earlier_responses_count_as_the_whole_context(field: str) -> None:
    assert usage_bound(apis.RESPONSES, input="Hi", **{field: "x"}).whole_context == 1
    assert usage_bound(apis.RESPONSES, input="Hi", **{field: None}).whole_context == 0
    item = [{"type": "item_reference", "id": "x"}]
    assert usage_bound(apis.RESPONSES, input=item).whole_context == 1


def test_every_choice_and_every_thought_counts_as_output() -> None:
    hi = [{"role": "user", "content": "Hi"}]
    chat = usage_bound(apis.CHAT_COMPLETIONS, messages=hi, max_tokens=100, n=3)
    assert chat.output_tokens == 300
    thinking = {"type": "enabled", "budget_tokens": 5000}
    assert messages(max_tokens=100, thinking=thinking).output_tokens == 5100
    guessed = usage_bound(
        apis.CHAT_COMPLETIONS,
        messages=hi,
        max_tokens=100,
        prediction={"type": "content", "content": "x" * 900},
    )
    assert guessed.output_tokens > 1000


def test_cache_marks_are_found_wherever_they_are() -> None:
    mark = {"cache_control": {"type": "ephemeral"}}
    text = {"type": "text", "text": "x"}
    assert messages(text | mark).cached
    assert messages(text, system=[text | mark]).cached
    assert messages(text, tools=[{"name": "t", "input_schema": {}} | mark]).cached
    assert messages(text, **mark).cached
    assert not messages(text, tools=[{"name": "t", "input_schema": {}}]).cached


def test_every_use_of_a_server_side_tool_reads_the_context_again() -> None:
    tools = [{"type": "web_search_20250305", "name": "web_search", "max_uses": 3}]
    bounded = messages({"type": "text", "text": "x"}, tools=tools)
    assert (bounded.whole_context, bounded.searches) == (4, 3)


def test_a_group_of_tools_is_judged_by_its_tools() -> None:
    look = {"type": "function", "name": "look"}
    group = {"type": "namespace", "name": "mcp", "tools": [look]}
    assert usage_bound(apis.RESPONSES, input="Hi", tools=[look, group]).searches == 0
    group["tools"].append({"type": "web_search"})
    with pytest.raises(Refusal, match="web_search needs a maximum"):
        usage_bound(apis.RESPONSES, input="Hi", tools=[group])


FAILED_SEARCH = {"type": "web_search_tool_result", "tool_use_id": "t", "content": {
    "type": "web_search_tool_result_error", "error_code": "unavailable"}}  # fmt: skip
SCREENSHOT = {"type": "computer_call_output", "call_id": "c", "output": {
    "type": "computer_screenshot", "image_url": "https://example.com/x.png"}}  # fmt: skip
SEARCH = {"type": "web_search_20250305", "name": "web_search"}


@pytest.mark.parametrize("odd", [FAILED_SEARCH, SCREENSHOT, {"type": 5}, {"content": 5}])
def test_no_shape_of_the_content_bypasses_the_check_of_tools(odd) -> None:
    with pytest.raises(Refusal, match="needs a maximum"):
        messages(odd, tools=[SEARCH])
    with pytest.raises(Refusal, match="needs a maximum"):
        usage_bound(apis.RESPONSES, input=[odd], tools=[{"type": "web_search"}])
    bounded = messages(odd, tools=[SEARCH | {"max_uses": 3}])
    assert (bounded.searches, bounded.whole_context >= 4) == (3, True)


def test_results_in_one_object_count_as_their_bytes() -> None:
    assert messages(FAILED_SEARCH).whole_context == 0
    assert 50_000 <= usage_bound(apis.RESPONSES, input=[SCREENSHOT]).input_tokens < 51_000


@pytest.mark.parametrize("uses", [50.5, "50", -1])
def test_tools_of_another_shape_are_refused(uses) -> None:
    for tools in ([SEARCH | {"max_uses": uses}], SEARCH, [[SEARCH]]):
        with pytest.raises(Refusal, match="not valid"):
            messages(tools=tools)


@pytest.mark.parametrize(
    "beyond",
    [
        {"max_tokens": 10_000_001},
        {"max_tokens": 10**30},
        {"n": 129},
        {"thinking": {"budget_tokens": 10**9}},
        {"tools": [SEARCH | {"max_uses": 10_000}]},
    ],
)
def test_absurd_numbers_are_refused(beyond) -> None:
    with pytest.raises(Refusal, match="not valid"):
        messages(**beyond)


BODIES = st.dictionaries(
    st.text(max_size=8).filter(lambda name: name not in ("model", "stream", "n")),
    st.recursive(
        st.none() | st.booleans() | st.integers(-5, 5) | st.text(max_size=5),
        lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=3), inner),
        max_leaves=6,
    ),
    max_size=5,
)


@given(BODIES, st.sampled_from([(",", ":"), (", ", ": "), (" ,", " : ")]), st.booleans())
def test_any_body_keeps_its_meaning_except_for_added_fields(fields, separators, ascii_only):
    document = {"model": "m", "stream": True, **fields}
    body = json.dumps(document, separators=separators, ensure_ascii=ascii_only).encode()
    try:
        request = requests.read(apis.CHAT_COMPLETIONS, body)
    except Refusal as refusal:
        expect_bad_request(refusal)
        return
    sent = json.loads(request.sent_body(99))
    options = document.get("stream_options") or {}
    expected = {**document, "stream_options": {**options, "include_usage": True}}
    if request.output_tokens is None:
        expected["max_completion_tokens"] = 99
    assert sent == expected
    if not fields.keys() & {"stream_options", "max_tokens", "max_completion_tokens"}:
        assert request.sent_body(99).startswith(body.rstrip()[:-1])


@pytest.mark.case("G17")
@given(st.binary(max_size=200) | st.text(max_size=100).map(str.encode) | BODIES.map(
    msgspec.json.encode))  # fmt: skip
def test_any_bytes_are_read_or_refused(body: bytes) -> None:
    for api in (apis.MESSAGES, apis.CHAT_COMPLETIONS, apis.RESPONSES):
        try:
            request = requests.read(api, body)
            usage_bound_of(request, 100)
            json.loads(request.sent_body(100))
        except Refusal as refusal:
            expect_bad_request(refusal)


def expect_bad_request(refusal: Refusal) -> None:
    assert refusal.status == 400


@pytest.mark.parametrize(
    "body",
    [
        b'{"model":"m","max_tokens":1,"max_tokens":2}',
        b'{"model":"m","max_tokens":1, "max_tokens":2}',
        b'{"model":"m","max_tokens":1,"max_\\u0074okens":2}',
        b'{"model":"m","model":"n"}',
        b'{"n":100,"model":"m","max_tokens":10,"messages":[],"stream":false,"n":1}',
        b'{"model": "m","max_tokens":10,"messages":[],"stream":false,"max_tokens":1}',
        b'{"model":"m","thinking":{"budget_tokens":60000,"budget_tokens":1024},"messages":[]}',
        b'{"model":"m","reasoning":{"mode":"pro","mode":"standard"},"messages":[]}',
        b'{"model":"m","tools":[{"type":"web_search_20250305","type":"custom"}],"messages":[]}',
        b'{"model":"m","messages":[],"messages":[{"role":"user","content":"x"}]}',
    ],
)
def test_a_field_given_twice_is_refused(body: bytes) -> None:
    with pytest.raises(Refusal, match="twice") as refused:
        requests.read(apis.MESSAGES, body)
    assert refused.value.status == 400


MANY = 90_000  # objects, just few enough not to be refused unread


def fields() -> bytes:
    return b",".join(b'"%d":1' % number for number in range(990_000))


@pytest.mark.case("G17")
@pytest.mark.parametrize(
    "rest",
    [
        lambda: b'"messages":[' + b",".join([b"{}"] * MANY) + b"]",
        lambda: b'"messages":[' + b",".join([b'{"type":"text"}'] * MANY) + b"]",
        lambda: b'"messages":[' + b",".join([b'{"content":[' * 300 + b"]}" * 300] * 160) + b"]",
        lambda: b'"messages":[],"tools":[' + b",".join([b"{}"] * MANY) + b"]",
        lambda: b'"messages":[],"tools":[' + b",".join([b'{"a" :1}'] * 999) + b"]",
        lambda: b'"messages":[] ,"metadata":{' + fields() + b"}",
        lambda: b'"messages":[],"thinking":{' + fields() + b"}",
        lambda: b'"messages":[],' + fields(),
        lambda: b'"messages":[],"tools":[{' + fields() + b"}]",
        lambda: b'"messages":[],"n":1' + b"0" * 30_000_000 + b".5",
        lambda: b'"messages":[],"metadata":' + b'{"a":' * 900 + b"1" + b"}" * 900,
        lambda: b'"messages":[],"metadata":[' + b",".join([b"[" * 400 + b"]" * 400] * 2_300) + b"]",
    ],
    ids=["messages", "parts", "depth", "tools", "odd tools", "odd spaces", "thinking", "fields",
         "fields of a tool", "digits", "deep", "many deep"],
)  # fmt: skip
def test_no_body_blocks_the_process_for_long(rest: Callable[[], bytes]) -> None:
    body = b'{"model":"m","max_tokens":1,' + rest() + b"}"
    gc.disable()  # it would search everything that other tests left
    began = time.thread_time()
    with contextlib.suppress(Refusal):
        usage_bound_of(requests.read(apis.MESSAGES, body), 100)
    took = time.thread_time() - began
    gc.enable()
    assert took < 0.5  # 50 ms on a quiet machine


def test_large_bodies_of_text_are_read() -> None:
    text = "x = f(a, b[1]) {};\n" * 40_000
    for spaces in ((",", ":"), (", ", ": ")):
        for around in ({}, {"metadata": {"user_id": "u"}}, {"tools": [{"name": "t" * 300_000}]}):
            document = {"model": "m", "messages": [{"role": "user", "content": text}], **around}
            body = json.dumps(document, separators=spaces).encode()
            request = requests.read(apis.MESSAGES, body)
            assert usage_bound_of(request, 100).input_tokens >= len(text)


def test_a_body_of_too_many_parts_is_refused_before_it_is_read() -> None:
    body = b'{"model": "m","max_tokens":1,"messages":[' + b"{}," * 100_000 + b"{}]}"
    with pytest.raises(Refusal, match="too many parts"):
        requests.read(apis.MESSAGES, body)


@pytest.mark.parametrize(
    "body",
    [
        b'{ "model" : "m" , "max_tokens":1, "messages":[ ] , "max_tokens":12 }',
        b'{ "model" : "m" , "n":12, "messages":[ ] , "n":1 }',
        b'{ "model":"m","messages":[],"n":1,"n":1}',
        b'{"model":"m",\n"messages":[],\t"\\u006e":1,"n":1}',
    ],
)
def test_spaces_do_not_hide_a_duplicate_field(body: bytes) -> None:
    with pytest.raises(Refusal, match="twice"):
        requests.read(apis.MESSAGES, body)


@pytest.mark.parametrize("indent", [1, 2, "\t"])
def test_an_indented_body_is_accepted(indent: int | str) -> None:
    content = [{"role": "user", "content": "x" * 300_000}]
    document = {"model": "m", "max_tokens": 7, "messages": content, "metadata": {"a": "\u00e4"}}
    body = json.dumps(document, indent=indent).encode()
    assert requests.read(apis.MESSAGES, b" " + body + b"\n").output_tokens == 7


SEPARATORS = [(",", ":"), (", ", ": ")]
CONTENT = st.lists(
    st.dictionaries(st.sampled_from(["type", "content", "max_tokens"]), st.text(max_size=3))
    | st.just({"type": "image", "source": SOURCE})
    | st.just({"role": "user", "content": [{"type": "text", "text": '],"stream":true}'}]})
    | st.just({"content": [{"messages": [1], "x": []}], "n": [2]}),
    max_size=3,
)
AROUND = st.dictionaries(
    st.sampled_from(["system", "stop_sequences", "metadata", "max_tokens", "tools", "x]", "input"]),
    st.none() | st.integers(1, 9) | st.lists(st.text(max_size=2), max_size=2)
    | st.just({"messages": [{"messages": []}], "n": 1}),
    max_size=4,
)  # fmt: skip


def outcome(api: apis.Api, body: bytes, monkeypatch: pytest.MonkeyPatch, large: int) -> object:
    monkeypatch.setattr(requests, "LARGE", large)
    try:
        request = requests.read(api, body)
        fields = {name: bytes(value) for name, value in request.fields.items()}
        return (
            list(fields.items()),
            request.parsed,
            usage_bound_of(request, 100),
            request.sent_body(9),
        )
    except Refusal as refusal:
        return refusal.message


@given(AROUND, CONTENT, AROUND, st.sampled_from(SEPARATORS), st.sampled_from("ac"), st.booleans())
def test_a_divided_body_is_read_like_a_whole_one(
    before, content, behind, separators, api, twice
) -> None:
    name, field = {"a": (apis.MESSAGES, "messages"), "c": (apis.RESPONSES, "input")}[api]
    parts = [before, {field: content}, behind, {"model": "m"}]
    if twice:
        parts.insert(2, {"max_tokens": 1})
    texts = [json.dumps(part, separators=separators)[1:-1] for part in parts if part]
    body = ("{" + separators[0].join(texts) + "}").encode()
    with pytest.MonkeyPatch.context() as patch:
        assert outcome(name, body, patch, 0) == outcome(name, body, patch, 1 << 40)


@pytest.mark.parametrize(
    "body",
    [
        b'{"model":"m","messages":[],"max_tokens":1,"max_tokens":2,"stop":[]}',
        b'{"model":"m","max_tokens":1,"messages":[],"max_tokens":2}',
        b'{"max_tokens":1,"messages":[],"model":"m","messages":[{"role":"user"}]}',
        b'{"max_tokens":1,"max_tokens":2,"model":"m","messages":[]}',
        b'{"model":"m","messages":[],"max_tokens":2,"messages":[]}',
    ],
)
def test_a_field_given_twice_around_a_large_conversation_is_refused(
    body: bytes, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(requests, "LARGE", 0)
    with pytest.raises(Refusal, match="twice"):
        requests.read(apis.MESSAGES, body)


@pytest.mark.parametrize(
    "body", [b'{,"messages":[],"model":"m"}', b'{"model":"m""messages":[]}', b'{"messages":[],}']
)
def test_invalid_json_around_a_large_conversation_is_refused(
    body: bytes, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(requests, "LARGE", 0)
    with pytest.raises(Refusal, match="not valid JSON"):
        requests.read(apis.MESSAGES, body)


def test_a_large_conversation_is_taken_out_of_its_body() -> None:
    content = [{"role": "user", "content": "x" * requests.LARGE}]
    for order in ("model messages", "messages model", "max_tokens messages model stop"):
        values = {"model": "m", "messages": content, "max_tokens": 5, "stop": ["a"]}
        body = json.dumps({name: values[name] for name in order.split()}).encode()
        divided = divided_bodies.divide(body, "messages")
        assert divided is not None
        assert json.loads(bytes(divided.conversation)) == content
        assert json.loads(divided.rest) == {
            name: values[name] for name in order.split() if name != "messages"
        }
