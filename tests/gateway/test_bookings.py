"""Calls that work are priced and booked once."""

import threading
from concurrent.futures import ThreadPoolExecutor
from decimal import Decimal

import httpx
import pytest

from tests.conftest import wait_until
from tests.gateway.bodies import CHAT, chat_body
from tests.gateway.conftest import DENIED, World, messages_body
from tests.gateway.fake_provider import (
    SSE_HEADERS,
    Script,
    Seen,
    completion,
    default_script,
    json_script,
    message,
    messages_stream,
    messages_usage,
)


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


@pytest.mark.case("G2")
def test_an_alias_is_the_same_product_in_check_and_event(world: World) -> None:
    project = world.tollgate.project(credits=100)
    token = world.tollgate.token(project, "slack_app_routing")
    body = messages_body(model="claude-haiku-4-5")
    assert world.post(token, "/slack-posthog-code/v1/messages", body).status_code == 200
    [event] = world.booked(project)
    assert event["properties"]["ai_product"] == "slack_app_routing"


@pytest.mark.case("G10")
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


@pytest.mark.case("G4")
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


@pytest.mark.case("C9")
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


@pytest.mark.case("G13")
@pytest.mark.parametrize("stream", [False, True])
@pytest.mark.parametrize(
    ("path", "body", "status", "error", "headers"),
    [
        (
            "/slack_app/v1/messages",
            messages_body,
            529,
            b'{"type":"error","error":{"type":"overloaded_error","message":"Overloaded"}}',
            {
                "request-id": "req_011CSHoEeqs5C35K2UUqR7Fy",
                "retry-after": "7",
                "anthropic-ratelimit-requests-remaining": "0",
                "anthropic-ratelimit-requests-reset": "2026-11-23T08:00:07Z",
            },
        ),
        (
            CHAT,
            chat_body,
            429,
            b'{"error": {"message": "Slow down.", "code": "rate_limit_exceeded"}}',
            {
                "x-request-id": "req_9c3f",
                "retry-after-ms": "1500",
                "x-ratelimit-remaining-tokens": "0",
                "x-ratelimit-reset-tokens": "1.5s",
            },
        ),
        (CHAT, chat_body, 500, b"<html>oops</html>", {"content-type": "text/html"}),
    ],
    ids=["anthropic", "openai", "not JSON"],
)
def test_provider_errors_pass_unchanged_and_are_booked_at_what_they_cost(
    world: World, path, body, status, error, headers, stream
) -> None:
    world.provider.script = lambda _: json_script(error, status, **headers)
    project = world.tollgate.project(credits=100)
    answer = world.post(world.tollgate.token(project), path, body(stream=stream))
    assert (answer.status_code, answer.content) == (status, error)
    assert headers.items() <= dict(answer.headers).items()
    [event] = world.booked(project)
    assert event["properties"]["$ai_is_error"] is True
    assert event["properties"]["$ai_http_status"] == status
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
