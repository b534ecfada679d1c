"""Calls that work: passed through unchanged, priced, and booked once."""

import json
import threading
from concurrent.futures import ThreadPoolExecutor
from decimal import Decimal

import httpx
import pytest

from gateway.telemetry import logs
from tests.conftest import wait_until
from tests.gateway.conftest import DENIED, METRICS_TOKEN, World, messages_body
from tests.gateway.fake_provider import (
    SSE_HEADERS,
    Script,
    Seen,
    completion,
    completion_stream,
    default_script,
    json_script,
    message,
    messages_stream,
    messages_usage,
    response_stream,
)

CHAT = "/slack_app/v1/chat/completions"
RESPONSES = "/slack_app/v1/responses"


def chat_body(**fields):
    return {
        "model": "gpt-4o",
        "max_completion_tokens": 100,
        "messages": [{"role": "user", "content": "Hi"}],
        **fields,
    }


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


@pytest.mark.parametrize(
    ("stream", "end"), [(False, b"}"), (True, b'{"type":"message_stop"}\n\n')], ids=["JSON", "SSE"]
)
def test_a_call_is_booked_before_the_end_of_its_answer_is_sent(
    fragile: World, stream: bool, end: bytes
) -> None:
    gate = threading.Event()

    def script(seen: Seen) -> Script:
        answer = default_script(seen)
        answer.gate = gate
        return answer

    fragile.provider.script = script
    project = fragile.tollgate.project(credits=100)
    headers = {"authorization": f"Bearer {fragile.tollgate.token(project)}"}
    body, path = messages_body(stream=stream), "/slack_app/v1/messages"

    def spent_at_the_end() -> int:
        received = b""
        with fragile.http.stream("POST", path, json=body, headers=headers) as answer:
            for chunk in answer.iter_raw():
                received += chunk
                if received.endswith(end):
                    return fragile.account(project)["spent"]
        return -1

    with ThreadPoolExecutor() as pool:
        call = pool.submit(spent_at_the_end)
        wait_until(lambda: fragile.account(project)["held"] > 0, what="the hold")
        # Redis is paused now. If the answer could end before the booking, it would end now.
        fragile.redis.execute_command("CLIENT", "PAUSE", 600, "WRITE")
        gate.set()
        assert call.result() == 72_000


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


def test_an_alias_is_the_same_product_in_check_and_event(world: World) -> None:
    project = world.tollgate.project(credits=100)
    token = world.tollgate.token(project, "slack_app_routing")
    body = messages_body(model="claude-haiku-4-5")
    assert world.post(token, "/slack-posthog-code/v1/messages", body).status_code == 200
    [event] = world.booked(project)
    assert event["properties"]["ai_product"] == "slack_app_routing"


def test_billing_fields_of_the_caller_are_ignored(world: World) -> None:
    project, stranger = world.tollgate.project(credits=100), world.tollgate.project(credits=100)
    answer = world.post(
        world.tollgate.token(project),
        body=messages_body(
            metadata={"user_id": "x", "$ai_billable": False, "ai_product": "llm_gateway"}
        ),
        headers={
            "x-posthog-property-$ai_billable": "false",
            "x-posthog-property-ai_product": "llm_gateway",
            "x-posthog-team-id": str(stranger.id),
            "x-organization-id": stranger.organization_id,
        },
    )
    assert answer.status_code == 200
    [event] = world.booked(project)
    assert event["properties"]["$ai_billable"] is True
    assert event["properties"]["ai_product"] == "slack_app"
    assert event["properties"]["organization_id"] == project.organization_id
    assert world.tollgate.events_of(stranger) == []


def test_counting_tokens_and_listing_models_cost_nothing(world: World) -> None:
    project = world.tollgate.project(credits=0)
    token = world.tollgate.token(project)
    counted = world.post(token, "/slack_app/v1/messages/count_tokens")
    assert counted.json() == {"input_tokens": 7}
    listed = world.get("/slack_app/v1/models", token)
    assert listed.json()["data"][0]["id"] == "gpt-4o"
    assert world.account(project)["spent"] == 0


def test_the_unmetered_product_needs_no_hold_and_is_reported_unbilled(world: World) -> None:
    project = world.tollgate.project(credits=0)
    world.tollgate.limit(project)
    token = world.tollgate.token(project, "llm_gateway")
    assert world.post(token, "/llm_gateway/v1/messages").status_code == 200
    assert project.id not in world.tollgate.asked_about
    [event] = world.booked(project)
    assert event["properties"]["$ai_billable"] is False
    assert event["debited_micro"] == 0
    assert event["account"] is None
    assert Decimal(event["properties"]["$ai_total_cost_usd"]) == Decimal("0.0006")


@pytest.mark.parametrize("stream", [False, True])
def test_a_compaction_and_an_advisor_are_priced_separately(world: World, stream: bool) -> None:
    """Billable products refuse both; on the unmetered one the event has their cost."""
    none = {"cache_creation_input_tokens": 0, "cache_read_input_tokens": 0}
    usage = messages_usage(
        iterations=[
            {"type": "compaction", "input_tokens": 1000, "output_tokens": 50, **none},
            {"type": "message", "input_tokens": 100, "output_tokens": 20, **none},
            {"type": "advisor_message", "model": "claude-opus-4-5",
             "input_tokens": 500, "output_tokens": 9, **none},
        ]
    )  # fmt: skip
    answer = (
        Script(200, SSE_HEADERS, messages_stream(usage)) if stream else json_script(message(usage))
    )
    world.provider.script = lambda _: answer
    project = world.tollgate.project()
    token = world.tollgate.token(project, "llm_gateway")
    body = messages_body(
        stream=stream,
        context_management={"edits": [{"type": "compact_20260112"}]},
        tools=[{"type": "advisor_20260301", "name": "advisor", "model": "claude-opus-4-5"}],
    )
    assert world.post(token, "/llm_gateway/v1/messages", body).status_code == 200
    [event] = world.booked(project)
    properties = event["properties"]
    assert properties["$ai_input_tokens"] == 100 + 1000 + 500
    assert properties["$ai_output_tokens"] == 20 + 50 + 9
    # (100 + 1000) × $3 + (20 + 50) × $15 of one model, 500 × $5 + 9 × $25 of the other, per million
    assert Decimal(properties["$ai_total_cost_usd"]) == Decimal("0.007075")


def test_cache_reads_and_writes_have_their_own_prices(world: World) -> None:
    usage = messages_usage(
        cache_read_input_tokens=1000,
        cache_creation_input_tokens=700,
        cache_creation={"ephemeral_5m_input_tokens": 500, "ephemeral_1h_input_tokens": 200},
    )
    world.provider.script = lambda _: json_script(message(usage))
    project = world.tollgate.project(credits=100)
    body = messages_body(system=[{"type": "text", "text": "x" * 2000, "cache_control": {
        "type": "ephemeral", "ttl": "1h"}}])  # fmt: skip
    world.post(world.tollgate.token(project), body=body)
    [event] = world.booked(project)
    # 100 × $3 + 20 × $15 + 1000 × $0.30 + 500 × $3.75 + 200 × $6, per million
    assert Decimal(event["properties"]["$ai_total_cost_usd"]) == Decimal("0.003975")
    assert event["properties"]["$ai_cache_creation_1h_input_tokens"] == 200
    assert event["debited_micro"] == 477_000


def test_the_service_tier_that_was_served_is_charged(world: World) -> None:
    world.provider.script = lambda _: json_script({**completion(), "service_tier": "priority"})
    project = world.tollgate.project(credits=100)
    world.post(world.tollgate.token(project), CHAT, chat_body(service_tier="priority"))
    [event] = world.booked(project)
    # 60 × $4.25 + 40 × $2.125 + 20 × $17, per million
    assert Decimal(event["properties"]["$ai_total_cost_usd"]) == Decimal("0.00068")
    assert event["properties"]["$ai_service_tier"] == "priority"


def test_a_cost_beyond_the_bound_is_booked_in_full_and_reported(
    fragile: World,
) -> None:
    fragile.provider.script = lambda _: json_script(message(messages_usage(output_tokens=10_000)))
    project = fragile.tollgate.project(credits=1)
    overrun = fragile.metric("tollgate_gateway_overrun_credits_total")
    token = fragile.tollgate.token(project)
    assert fragile.post(token).status_code == 200
    # 100 × $3 + 10,000 × $15 per million, at 120 credits a dollar
    assert fragile.settled(project)["spent"] == 18_036_000
    assert fragile.tollgate.credits_booked(project) == 18_036_000
    assert fragile.post(token).status_code == DENIED
    wait_until(
        lambda: fragile.metric("tollgate_gateway_overrun_credits_total") > overrun + 17,
        what="the overrun in the metric",
    )


def test_provider_errors_pass_unchanged_and_are_booked_at_what_they_cost(world: World) -> None:
    error = b'{"type":"error","error":{"type":"overloaded_error","message":"Overloaded"}}'
    headers = {"retry-after": "7", "anthropic-ratelimit-requests-remaining": "0"}
    world.provider.script = lambda _: json_script(error, 529, **headers)
    project = world.tollgate.project(credits=100)
    answer = world.post(world.tollgate.token(project))
    assert (answer.status_code, answer.content) == (529, error)
    assert headers.items() <= dict(answer.headers).items()
    [event] = world.booked(project)
    assert event["properties"]["$ai_is_error"] is True
    assert event["properties"]["$ai_http_status"] == 529
    assert event["properties"]["$ai_billable"] is True
    assert event["properties"]["$ai_total_cost_usd"] == "0"
    assert world.settled(project)["held"] == 0


def test_an_answer_that_breaks_off_is_booked_as_far_as_it_got(world: World) -> None:
    world.provider.script = lambda _: Script(
        200, {"content-type": "text/event-stream"}, messages_stream()[:5], cut=True
    )
    project = world.tollgate.project(credits=100)
    with pytest.raises(httpx.RemoteProtocolError):
        world.post(world.tollgate.token(project), body=messages_body(stream=True))
    [event] = world.booked(project)
    properties = event["properties"]
    assert (properties["$ai_is_error"], properties["$ai_usage_estimated"]) == (True, True)
    assert properties["$ai_input_tokens"] == 100
    assert 0 < event["debited_micro"] <= 72_000


def test_the_usage_endpoint_shows_what_is_left(world: World) -> None:
    project = world.tollgate.project(credits=100)
    token = world.tollgate.token(project)
    world.post(token)
    world.booked(project)
    page = world.get("/v1/usage/slack_app", token).json()
    assert page["limited"] is False
    assert (page["usage"], page["limit"]) == (0.072, 100)
    assert page["remaining"] == pytest.approx(99.928)
    assert page["held"] == 0


def test_the_root_and_the_probes_answer(world: World) -> None:
    assert world.http.head("/").status_code == 200
    assert world.get("/_health").status_code == 200
    assert world.get("/_ready").json()["ready"] is True


def test_credentials_and_prompts_are_never_logged(world: World) -> None:
    project = world.tollgate.project(credits=100)
    token = world.tollgate.token(project)
    prompt = "a prompt that nobody may read"
    world.post(token, body=messages_body(messages=[{"role": "user", "content": prompt}]))
    world.post(token, f"/slack_app/{token}")
    world.post(token, body=f'{{"model": "{token}", "max_tokens": "x"}}'.encode())
    log = world.log.read_text()
    assert "slack_app" in log
    assert token not in log
    assert prompt not in log
    assert "sk-ant-key-of-the-operator" not in log
    lines = [json.loads(line) for line in log.splitlines() if line.startswith("{")]
    assert {"call_id", "product", "status", "seconds"} <= lines[-1].keys()


def test_anything_like_a_credential_is_removed_from_the_log() -> None:
    secrets = ("pha_0123456789abcdef", "phx_0123456789abcdef", "sk-ant-0123456789abcdef")
    event = {"event": "odd", "error": " ".join((*secrets, "Bearer 0123456789abcdef"))}
    line = logs._render(None, "", event).decode()
    assert "odd" in line
    assert "0123456789abcdef" not in line


def test_metrics_need_their_token_and_name_no_caller(world: World) -> None:
    project = world.tollgate.project(credits=100)
    token = world.tollgate.token(project)
    overrun = world.metric("tollgate_gateway_overrun_credits_total")  # of tests before this one
    world.post(token)
    assert world.get("/metrics").status_code == 401
    assert world.metric("tollgate_gateway_requests_total") > 0
    assert world.metric("tollgate_gateway_overrun_credits_total") == overrun
    world.post(token, f"/{token}/v1/messages")
    world.post(token, f"/slack_app/{token}")
    world.post(token, body=messages_body(model=token))
    shown = world.get("/metrics", METRICS_TOKEN).text
    for secret in (token, project.organization_id, METRICS_TOKEN, "claude-sonnet-4-5"):
        assert secret not in shown
