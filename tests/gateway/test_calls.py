"""Calls that work pass through the gateway unchanged."""

import threading
from decimal import Decimal

import pytest

from tests.gateway.bodies import CHAT, RESPONSES, chat_body
from tests.gateway.conftest import DENIED, World, messages_body
from tests.gateway.fake_provider import (
    Script,
    Seen,
    completion_stream,
    default_script,
    json_script,
    message,
    messages_stream,
    response_stream,
)


def test_headers_named_in_connection_are_not_passed_on(world: World) -> None:
    headers = {"connection": "keep-alive, X-Edge", "x-edge": "7", "keep-alive": "5", "x-kept": "y"}
    world.provider.script = lambda _: json_script(message(), **headers)
    answer = world.post(world.tollgate.token(world.tollgate.project(credits=100)))
    assert answer.status_code == 200
    assert answer.headers["x-kept"] == "y"
    assert not {"x-edge", "keep-alive", "connection"} & answer.headers.keys()


def test_a_message_passes_unchanged_and_is_booked_once(world: World) -> None:
    project = world.tollgate.project(credits=100)
    answer = world.post(world.tollgate.token(project))
    assert answer.status_code == 200
    assert answer.json() == message()
    assert answer.headers["request-id"] == "req_of_the_provider"
    [event] = world.booked(project)
    properties = event["properties"]
    assert Decimal(properties["$ai_total_cost_usd"]) == Decimal("0.0006")
    assert event["debited_micro"] == 72_000 == world.tollgate.credits_booked(project)
    assert properties["$ai_billable"] is True
    assert properties["ai_product"] == "slack_app"
    assert properties["organization_id"] == project.organization_id
    assert (properties["$ai_input_tokens"], properties["$ai_output_tokens"]) == (100, 20)
    assert (properties["$ai_is_error"], properties["$ai_usage_estimated"]) == (False, False)
    assert event["account"] == f"{project.organization_id}:ai_credits"
    assert event["hold_id"] == event["uuid"]
    assert world.settled(project) == {"spent": 72_000, "held": 0, "pending": 0}


@pytest.mark.case("G11")
@pytest.mark.parametrize(
    ("path", "body", "expected"),
    [
        ("/slack_app/v1/messages", messages_body(stream=True), messages_stream()),
        (CHAT, chat_body(stream=True), completion_stream(with_usage=False)),
        (
            CHAT,
            chat_body(stream=True, stream_options={"include_usage": True}),
            completion_stream(with_usage=True),
        ),
        (RESPONSES, {"model": "gpt-4o", "input": "Hi", "stream": True,
                     "max_output_tokens": 100}, response_stream()),
    ],
    ids=["messages", "chat without usage", "chat with usage", "responses"],
)  # fmt: skip
def test_a_stream_passes_unchanged_and_is_metered(world, path, body, expected) -> None:
    project = world.tollgate.project(credits=100)
    answer = world.post(world.tollgate.token(project), path, body)
    shown = answer.content.replace(b',"usage":null', b"")
    assert shown == b"".join(expected).replace(b',"usage":null', b"")
    [event] = world.booked(project)
    properties = event["properties"]
    assert properties["$ai_output_tokens"] == 20
    assert properties["$ai_stream"] is True
    assert (properties["$ai_is_error"], properties["$ai_usage_estimated"]) == (False, False)


@pytest.mark.case("G11")
@pytest.mark.parametrize(
    ("path", "body", "first"),
    [
        ("/slack_app/v1/messages", messages_body(stream=True), 4),
        (CHAT, chat_body(stream=True), 1),
        (RESPONSES, {"model": "gpt-4o", "input": "Hi", "stream": True}, 4),
    ],
    ids=["messages", "chat", "responses"],
)
def test_a_stream_is_passed_on_as_it_arrives(
    world: World, path: str, body: dict, first: int
) -> None:
    release = threading.Event()

    def script(seen: Seen) -> Script:
        answer = default_script(seen)
        answer.hold_after, answer.release = first, release
        return answer

    world.provider.script = script
    project = world.tollgate.project(credits=1000)
    headers = {"authorization": f"Bearer {world.tollgate.token(project)}"}
    received = b""
    with world.http.stream("POST", path, json=body, headers=headers) as answer:
        for chunk in answer.iter_raw():
            received += chunk
            if b"piece 0" in received and not release.is_set():
                assert b"piece 1" not in received
                release.set()
    assert b"piece 2" in received
    world.booked(project)


def test_request_bytes_reach_the_provider_unchanged(world: World) -> None:
    project = world.tollgate.project(credits=100)
    body = (
        b'{ "model":"claude-sonnet-4-5" ,\n "max_tokens": 100, "metadata": {"a": [1, 2.50]},'
        b' "messages":[{"role":"user","content":[{"type":"text","text":"\\u00e9"}]}] }'
    )
    headers = {
        "anthropic-version": "2023-06-01",
        "anthropic-beta": "one-2025-01-01,two-2025-02-02",
        "content-type": "application/json",
    }
    answer = world.post(
        world.tollgate.token(project),
        "/slack_app/v1/messages?beta=true",
        body,
        headers=headers,
    )
    assert answer.status_code == 200
    seen = world.provider.requests[-1]
    assert seen.body == body
    assert seen.path == "/v1/messages?beta=true"
    assert headers.items() <= seen.headers.items()


def test_callers_cannot_choose_who_pays_at_the_provider(world: World) -> None:
    names = {"anthropic-workspace-id": "w", "anthropic-user-profile-id": "p"}
    named = {"anthropic-organization-id": "o", "openai-organization": "o", "openai-project": "p",
             "set-cookie": "edge=1"}  # fmt: skip

    def script(seen: Seen) -> Script:
        answer = default_script(seen)
        answer.headers = {**answer.headers, **named}
        return answer

    world.provider.script = script
    token = world.tollgate.token(world.tollgate.project(credits=100))
    answer = world.post(token, headers=names)
    assert answer.status_code == 200
    assert not names.keys() & world.provider.requests[-1].headers.keys()
    assert not named.keys() & answer.headers.keys()


def test_compressed_bodies_are_refused_because_they_cannot_be_read(world: World) -> None:
    token = world.tollgate.token(world.tollgate.project(credits=100))
    assert world.post(token, headers={"content-encoding": "deflate"}).status_code == 415


def test_every_beta_header_counts_for_the_size_of_the_context(world: World) -> None:
    """A document counts as the whole context, which one of the betas makes five times larger."""
    token = world.tollgate.token(world.tollgate.project(credits=200))
    document = {"type": "document", "source": {"type": "url", "url": "https://example.com/a.pdf"}}
    body = messages_body(messages=[{"role": "user", "content": [document]}])
    betas = [("anthropic-beta", "context-1m-2025-08-07"), ("anthropic-beta", "other")]
    for headers, status in ((betas[1:], 200), (betas, DENIED), (betas[::-1], DENIED)):
        answer = world.http.post(
            "/slack_app/v1/messages",
            json=body,
            headers=[*headers, ("authorization", f"Bearer {token}")],
        )
        assert answer.status_code == status


def test_what_identifies_the_caller_never_reaches_the_provider(world: World) -> None:
    project = world.tollgate.project(credits=100)
    token = world.tollgate.token(project)
    world.post(
        token,
        headers={
            "cookie": "session=1",
            "x-project-id": str(project.id),
            "x-api-key": token,
            "x-forwarded-for": "10.1.2.3",
            "connection": "x-private",
            "x-private": "for one hop",
        },
    )
    seen = world.provider.requests[-1]
    assert token not in str(seen)
    assert seen.headers["x-api-key"] == "sk-ant-key-of-the-operator"
    for name in ("authorization", "cookie", "x-project-id", "x-forwarded-for", "x-private"):
        assert name not in seen.headers
    assert seen.headers["accept-encoding"] == "identity"


def test_openai_gets_the_operators_key_and_no_account_of_the_callers_choice(
    world: World,
) -> None:
    project = world.tollgate.project(credits=100)
    world.post(
        world.tollgate.token(project),
        CHAT,
        chat_body(),
        headers={"openai-organization": "org-other", "openai-project": "proj-other"},
    )
    seen = world.provider.requests[-1]
    assert seen.headers["authorization"] == "Bearer sk-key-of-the-operator"
    assert "openai-organization" not in seen.headers
    assert "openai-project" not in seen.headers


def test_the_gateway_adds_a_missing_output_cap_and_usage_option(
    world: World,
) -> None:
    project = world.tollgate.project(credits=100)
    body = chat_body(stream=True, stream_options={"include_obfuscation": False})
    del body["max_completion_tokens"]
    world.post(world.tollgate.token(project), CHAT, body)
    assert world.provider.requests[-1].json == {
        **body,
        "max_completion_tokens": 16_384,
        "stream_options": {"include_obfuscation": False, "include_usage": True},
    }
