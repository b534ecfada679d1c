"""Calls that the gateway refuses: when, in which words, and in the called API's error format."""

import json
import threading
from concurrent.futures import ThreadPoolExecutor

import pytest

from gateway.products import PRODUCTS
from gateway.refusals import denials
from tests.conftest import wait_until
from tests.gateway.bodies import CHAT, RESPONSES, chat_body
from tests.gateway.conftest import DENIED, World, messages_body
from tests.gateway.fake_provider import Script


def refused(answer, status: int) -> dict:
    """Return the error of a refusal; assert its status and that it is JSON."""
    assert answer.status_code == status, answer.text
    assert answer.headers["content-type"] == "application/json"
    return answer.json()["error"]


@pytest.mark.parametrize(
    ("zone", "shown"),
    [
        ("UTC", "They reset on 2126-11-30. "),
        ("Europe/Berlin", "They reset on 2126-12-01 (Europe/Berlin). "),
        ("Mars/Olympus", "They reset on 2126-11-30. "),
        ("../../etc/passwd", "They reset on 2126-11-30. "),
    ],
)
def test_the_reset_date_is_in_the_limits_time_zone(zone: str, shown: str) -> None:
    answer = {
        "limited": True,
        "credits_per_usd": 100,
        "account": "a",
        "version": 1,
        "ledger_epoch": "e",
        "booked_micro": 0,
        "reason": "limit_reached",
        "resets_at": "2126-11-30T23:00:00Z",
        "time_zone": zone,
    }
    refusal = denials.denial(json.dumps(answer).encode(), "ai_credits", "Bot", "https://b")
    assert shown in refusal.message


@pytest.mark.case("G6")
def test_a_bucket_without_its_own_text_has_a_general_one(world: World) -> None:
    project = world.tollgate.project(credits=100, resource="posthog_code_credits")
    world.tollgate.limit(project, "posthog_code_credits")
    token = world.tollgate.token(project, "posthog_code")
    error = refused(world.post(token, "/posthog_code/v1/messages"), DENIED)
    assert error["message"].startswith("Your team has used its monthly credits. They reset on")


@pytest.mark.parametrize(
    "reason", ["organization_inactive", "insufficient_remaining", "made up later"]
)
def test_other_reasons_have_their_own_sentences(world: World, reason: str) -> None:
    project = world.tollgate.project(credits=100)
    world.tollgate.limit(project, reason=reason)
    error = refused(world.post(world.tollgate.token(project)), DENIED)
    assert "monthly" not in error["message"]
    assert error["message"].endswith("Top up at https://billing.example.com/credits to continue.")


def test_buckets_are_limited_separately(world: World) -> None:
    project = world.tollgate.project(credits=100)
    world.tollgate.limit(project, "ai_credits")
    token = world.tollgate.token(project, "posthog_code")
    assert world.post(token, "/posthog_code/v1/messages").status_code == 200
    assert world.post(world.tollgate.token(project)).status_code == DENIED


def test_a_call_that_may_cost_more_than_is_left_says_how_much_is_left(world: World) -> None:
    project = world.tollgate.project(credits=1)
    answer = world.post(world.tollgate.token(project), body=messages_body(max_tokens=4000))
    error = refused(answer, DENIED)
    assert "1.00 are left" in error["message"]
    assert (error["reason"], error["remaining"]) == ("billable_credits", "1.00")
    assert world.account(project)["held"] == 0


def test_an_added_output_cap_shrinks_to_what_is_left(world: World) -> None:
    project = world.tollgate.project(credits=1)
    body = chat_body()
    del body["max_completion_tokens"]
    assert world.post(world.tollgate.token(project), CHAT, body).status_code == 200
    cap = world.provider.requests[-1].json["max_completion_tokens"]
    assert 256 <= cap < 1000


def test_a_remainder_that_pays_for_no_call_is_reported_to_billing(world: World) -> None:
    project = world.tollgate.project(credits=0.04)
    token = world.tollgate.token(project)
    error = refused(world.post(token), DENIED)
    assert error["cause"] == "insufficient_remaining"

    def limited() -> bool:
        return world.post(token).json()["error"]["message"].startswith("Your team has too few")

    wait_until(limited, what="everybody being refused")
    assert world.reports(project) == [40_000]


@pytest.mark.parametrize(
    ("credits", "fields"),
    [
        (0.6, {"max_tokens": 64_000}),
        (10_000, {"max_tokens": 10_000_000}),
    ],
    ids=["would fit if it asked for less", "enormous"],
)
def test_a_call_that_asks_for_too_much_is_not_reported_to_billing(world, credits, fields) -> None:
    project = world.tollgate.project(credits=credits)
    token = world.tollgate.token(project)
    refused(world.post(token, body=messages_body(**fields)), DENIED)
    assert world.post(token, body=messages_body(max_tokens=20)).status_code == 200
    world.booked(project)
    assert world.reports(project) == []


def test_credits_held_by_other_calls_are_not_reported_as_missing(
    world: World, background: ThreadPoolExecutor
) -> None:
    project = world.tollgate.project(credits=0.4)
    token = world.tollgate.token(project)
    gate, before = threading.Event(), len(world.provider.requests)
    world.provider.script = lambda _: Script(200, {}, [b"{}"], gate=gate)
    first = background.submit(world.post, token)
    wait_until(lambda: len(world.provider.requests) > before, what="a call under way")
    answers = [
        world.post(token, headers=wish) for wish in ({}, {"x-tollgate-denial-status": "402"})
    ]
    gate.set()
    assert first.result().status_code == 200
    for answer in answers:
        error = refused(answer, 429)
        assert error["message"].endswith("while other calls are under way. Please try again.")
        assert (answer.headers["retry-after"], answer.headers["x-should-retry"]) == ("1", "true")
    assert world.reports(project) == []


@pytest.mark.case("G1")
@pytest.mark.parametrize("path", ["/nothing/v1/messages", "/nothing/v1/chat/completions"])
def test_an_unknown_product_is_refused_by_name(world: World, path: str) -> None:
    token = world.tollgate.token(world.tollgate.project(credits=100))
    message = refused(world.post(token, path), 400)["message"]
    for product in PRODUCTS:
        assert product.name in message


@pytest.mark.parametrize(
    ("product", "kind", "products", "allowed"),
    [
        ("slack_app", "oauth_run", ["slack_app", "slack_app_routing"], True),
        ("slack_app", "oauth_product", ["slack_app"], True),
        ("slack_app", "oauth_run", ["posthog_code"], False),
        ("slack_app", "oauth_client", ["posthog_code"], False),
        ("slack_app", "oauth_client", ["slack_app"], False),
        ("slack_app", "personal_api_key", ["slack_app_routing"], False),
        ("slack_app_routing", "personal_api_key", ["slack_app_routing"], True),
        ("slack_app_routing", "oauth_product", ["slack_app_routing"], True),
        ("slack_app_routing", "oauth_run", ["slack_app"], False),
        ("slack_app_routing", "oauth_run", ["posthog_code"], False),
        ("slack_app_routing", "oauth_client", ["posthog_code"], False),
        ("posthog_code", "oauth_client", ["posthog_code"], True),
        ("posthog_code", "oauth_run", ["posthog_code"], True),
        ("posthog_code", "oauth_run", ["slack_app"], False),
        ("posthog_code", "personal_api_key", ["slack_app_routing"], False),
        ("posthog_code", "session", ["posthog_code"], False),
        ("llm_gateway", "personal_api_key", ["slack_app_routing", "llm_gateway"], True),
        ("llm_gateway", "personal_api_key", ["slack_app_routing"], False),
        ("llm_gateway", "oauth_client", ["posthog_code"], False),
        ("llm_gateway", "oauth_run", ["slack_app"], False),
        ("llm_gateway", "oauth_run", ["posthog_code"], False),
    ],
)
def test_each_product_has_its_callers(world, product, kind, products, allowed) -> None:
    project = world.tollgate.project(credits=100)
    token = world.tollgate.token(
        project, token_kind=kind, products=products, unmetered_gateway=None
    )
    body = messages_body(model="claude-haiku-4-5")
    answer = world.post(token, f"/{product}/v1/messages", body)
    assert answer.status_code == (200 if allowed else 403), answer.text
    if not allowed:
        assert answer.json()["error"]["type"] == "permission_error"


def test_the_unmetered_product_needs_its_switch(world: World) -> None:
    project = world.tollgate.project()
    token = world.tollgate.token(project, "llm_gateway", unmetered_gateway=False)
    refused(world.post(token, "/llm_gateway/v1/messages"), 403)


def test_the_routing_product_is_for_small_models_only(world: World) -> None:
    project = world.tollgate.project(credits=100)
    token = world.tollgate.token(project, "slack_app_routing")
    error = refused(world.post(token, "/slack_app_routing/v1/messages"), 403)
    assert error["reason"] == "model_not_allowed"


def test_the_refusal_of_a_token_names_the_missing_scope(world: World) -> None:
    token = world.tollgate.token(world.tollgate.project(credits=9), scope="project:read")
    assert "llm_gateway:read" in refused(world.post(token), 403)["message"]


def test_an_expired_token_is_refused_even_if_it_is_cached(world: World) -> None:
    token = world.tollgate.token(world.tollgate.project(credits=9), exp=1_000_000)
    refused(world.post(token), 401)


def test_a_token_of_several_projects_names_the_one_that_pays(world: World) -> None:
    first, second = world.tollgate.project(credits=9), world.tollgate.project(credits=9)
    second.organization_id = first.organization_id
    stranger = world.tollgate.project(credits=9)
    token = world.tollgate.token(
        first, "slack_app_routing", token_kind="personal_api_key",
        project_id=None, project_ids=[first.id, second.id],
    )  # fmt: skip
    path, body = "/slack_app_routing/v1/messages", messages_body(model="claude-haiku-4-5")

    def post(project: object) -> int:
        headers = {} if project is None else {"x-project-id": str(project)}
        return world.post(token, path, body, headers=headers).status_code

    assert post(None) == 400
    assert post("x") == 400
    assert post(stranger.id) == 403
    assert post(second.id) == 200
    world.booked(second)
    assert world.tollgate.events_of(first) == []


@pytest.mark.case("G10")
def test_a_token_of_one_project_pays_for_no_other(world: World) -> None:
    project, stranger = world.tollgate.project(credits=9), world.tollgate.project(credits=9)
    token = world.tollgate.token(project)
    answer = world.post(token, headers={"x-project-id": str(stranger.id)})
    refused(answer, 403)


@pytest.mark.case("C6")
@pytest.mark.parametrize(
    ("path", "body"),
    [
        ("/slack_app/v1/messages", messages_body(model="a-model-nobody-knows")),
        (CHAT, chat_body(model="ft:gpt-4o:acme::x")),
        (CHAT, chat_body(modalities=["text", "audio"])),
        (CHAT, chat_body(web_search_options={})),
        (RESPONSES, {"model": "gpt-4o", "input": "Hi", "background": True}),
        (RESPONSES, {"model": "gpt-4o", "input": "Hi", "tools": [{"type": "web_search"}]}),
        (RESPONSES, {"model": "gpt-4o", "input": "Hi", "tools": [{"type": "mcp"}],
                     "max_tool_calls": 1}),
        ("/slack_app/v1/messages", messages_body(
            tools=[{"type": "web_search_20250305", "name": "web_search"}])),
        ("/slack_app/v1/messages", messages_body(
            tools=[{"type": "code_execution_20250825", "name": "code_execution"}])),
        ("/slack_app/v1/messages", messages_body(mcp_servers=[{"type": "url"}])),
        (CHAT, chat_body(max_tokens=0)),
        (RESPONSES, {"model": "gpt-4o", "input": "Hi", "max_output_tokens": 0}),
        ("/slack_app/v1/messages", messages_body(max_tokens=-5)),
        ("/slack_app/v1/messages", messages_body(max_tokens="100")),
        ("/slack_app/v1/messages", b'{"model":"claude-sonnet-4-5","max_tokens":1,'
                                   b'"max_tokens":64000,"messages":[]}'),
        ("/slack_app/v1/messages", b'{"model":"claude-sonnet-4-5","max_tokens":1,'
                                   b'"max_\\u0074okens":64000,"messages":[]}'),
        ("/slack_app/v1/messages", b"[" * 100_000),
        ("/slack_app/v1/messages", b'{"model":' * 50_000),
        ("/slack_app/v1/messages", b'{"model": "claude-sonnet-4-5", "x": ' + b"[" * 90_000),
        ("/slack_app/v1/messages", b"{bad"),
        ("/slack_app/v1/messages", b"\xff\xfe"),
        ("/slack_app/v1/messages", b"null"),
        (CHAT, b""),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)  # fmt: skip
def test_a_call_without_a_bound_is_refused_before_it_is_made(world, path, body) -> None:
    project = world.tollgate.project(credits=1000)
    before = len(world.provider.requests)
    answer = world.post(world.tollgate.token(project), path, body)
    refused(answer, 400)
    assert answer.headers["x-should-retry"] == "false"
    assert len(world.provider.requests) == before
    assert world.account(project)["held"] == 0


def test_server_side_tools_with_a_maximum_are_allowed_and_paid(world: World) -> None:
    project = world.tollgate.project(credits=10_000)
    tools = [{"type": "web_search_20250305", "name": "web_search", "max_uses": 2}]
    answer = world.post(world.tollgate.token(project), body=messages_body(tools=tools))
    assert answer.status_code == 200


def test_an_unmetered_call_may_use_a_model_without_a_price(world: World) -> None:
    project = world.tollgate.project()
    token = world.tollgate.token(project, "llm_gateway")
    answer = world.post(token, "/llm_gateway/v1/messages", messages_body(model="brand-new"))
    assert answer.status_code == 200
    [event] = world.booked(project)
    assert event["properties"]["price_version"] == "unknown"


def test_unknown_paths_and_methods_are_refused_in_the_apis_error_format(world: World) -> None:
    token = world.tollgate.token(world.tollgate.project(credits=9))
    assert refused(world.post(token, "/slack_app/v1/embeddings"), 404)["message"]
    assert refused(world.get("/slack_app/v1/messages", token), 405)["message"]
    assert world.get("/favicon.ico").status_code == 404


def test_a_websocket_request_gets_426(world: World) -> None:
    token = world.tollgate.token(world.tollgate.project(credits=9))
    handshake = {
        "authorization": f"Bearer {token}",
        "connection": "upgrade",
        "upgrade": "websocket",
        "sec-websocket-version": "13",
        "sec-websocket-key": "dGhlIHNhbXBsZSBub25jZQ==",
    }
    answer = world.http.get(RESPONSES, headers=handshake)
    assert refused(answer, 426)["reason"] == "no_websockets"
    assert answer.headers["upgrade"] == "HTTP/1.1"


@pytest.mark.case("G17")
def test_a_body_beyond_the_limit_is_refused_with_413(world: World) -> None:
    token = world.tollgate.token(world.tollgate.project(credits=9))
    answer = world.post(token, body=b"x" * (33 * 1024 * 1024))
    assert answer.status_code == 413
    chunked = world.http.post(
        "/slack_app/v1/messages",
        headers={"authorization": f"Bearer {token}"},
        content=(b"x" * 1_000_000 for _ in range(40)),
    )
    assert chunked.status_code == 413
    assert json.loads(chunked.content)["error"]["type"] == "request_too_large"
