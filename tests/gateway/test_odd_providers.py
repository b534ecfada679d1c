"""Whatever a provider answers, the gateway does not fail and each call is booked."""

import gzip
import json

import httpx
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tests.examples import examples
from tests.gateway.bodies import CHAT, RESPONSES, chat_body
from tests.gateway.conftest import World, messages_body
from tests.gateway.fake_provider import (
    SSE_HEADERS,
    Script,
    completion_stream,
    message,
    messages_stream,
    response_stream,
)

CALLS = [
    ("/slack_app/v1/messages", messages_body()),
    ("/slack_app/v1/messages", messages_body(stream=True)),
    (CHAT, chat_body(stream=True)),
    (RESPONSES, {"model": "gpt-4o", "input": "Hi", "stream": True}),
]
PIECES = st.one_of(
    st.binary(max_size=80),
    st.sampled_from(
        [*messages_stream(), *completion_stream(with_usage=True), *response_stream(),
         b"data: [DONE]\n\n", b'data: {"usage":', b"\n\n", b'{"usage":{"input_tokens":-1}}']
    ),
)  # fmt: skip
SCRIPTS = st.builds(
    Script,
    status=st.sampled_from([200, 200, 200, 201, 204, 302, 400, 429, 500, 529]),
    headers=st.sampled_from(
        [{}, SSE_HEADERS, {"content-type": "application/json"}, {"content-encoding": "odd"}]
    ),
    chunks=st.lists(PIECES, max_size=5),
    cut=st.booleans(),
)


@settings(
    max_examples=examples(60),
    deadline=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture],
)
@given(st.sampled_from(CALLS), SCRIPTS)
def test_any_answer_passes_or_breaks_off_and_is_booked_once(world: World, call, script) -> None:
    if script.status == 204:
        script.chunks, script.chunked, script.cut = [], False, False
    world.provider.script = lambda _: script
    project = world.tollgate.project(credits=1000)
    path, body = call
    try:
        answer = world.post(world.tollgate.token(project), path, body, follow_redirects=False)
    except httpx.HTTPError:
        assert script.cut
    else:
        assert answer.status_code in (script.status, 502)
        assert answer.status_code == script.status or script.cut
    [event] = world.booked(project)
    assert event["debited_micro"] >= 0
    assert json.dumps(event["properties"])
    assert world.account(project)["held"] == 0


@pytest.mark.parametrize(
    "raw",
    [b"", b"nonsense\r\n\r\n", b"HTTP/1.1 200 OK\r\ncontent-length: x\r\n\r\n",
     b"HTTP/1.1 101 Switching Protocols\r\nupgrade: x\r\nconnection: upgrade\r\n\r\n"],
)  # fmt: skip
def test_a_call_without_an_answer_is_booked_at_its_bound_and_gets_the_apis_error(
    world: World, raw: bytes
) -> None:
    world.provider.script = lambda _: Script(raw=raw)
    project = world.tollgate.project(credits=100)
    answer = world.post(world.tollgate.token(project))
    assert answer.status_code == 502
    assert answer.json()["error"]["reason"] == "provider_failed"
    [event] = world.booked(project)
    assert event["properties"]["$ai_is_error"] is True
    assert event["properties"]["$ai_usage_estimated"] is True
    assert event["debited_micro"] > 100 * 15 * 120  # all that was asked for, and the input


@pytest.mark.parametrize("stream", [False, True])
def test_an_unreadable_answer_is_booked_at_its_bound(world: World, stream: bool) -> None:
    chunks = messages_stream() if stream else [json.dumps(message()).encode()]
    kind = SSE_HEADERS if stream else {"content-type": "application/json"}
    packed = gzip.compress(b"".join(chunks))
    world.provider.script = lambda _: Script(200, {**kind, "content-encoding": "gzip"}, [packed])
    project = world.tollgate.project(credits=1000)
    answer = world.post(
        world.tollgate.token(project), body=messages_body(stream=stream, max_tokens=5000)
    )
    assert answer.content == b"".join(chunks)
    [event] = world.booked(project)
    assert event["properties"]["$ai_usage_estimated"] is True
    assert event["debited_micro"] > 5000 * 15 * 120  # all that was asked for, and the input


def test_unreadable_usage_does_not_fall_back_to_earlier_usage(world: World) -> None:
    chunks = messages_stream()
    [at] = [index for index, chunk in enumerate(chunks) if b"message_delta" in chunk]
    chunks[at] = chunks[at].replace(b'"output_tokens":20', b'"output_tokens":1e400')
    assert b"1e400" in chunks[at]
    world.provider.script = lambda _: Script(200, SSE_HEADERS, chunks)
    project = world.tollgate.project(credits=1000)
    answer = world.post(world.tollgate.token(project), body=messages_body(stream=True))
    assert answer.content == b"".join(chunks)
    [event] = world.booked(project)
    assert event["properties"]["$ai_usage_estimated"] is True
    assert event["properties"]["$ai_output_tokens"] > 1
