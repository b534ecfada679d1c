"""What a call with a wrong path, method or API gets."""

import pytest

from gateway.refusals import wrong_paths
from tests.gateway.bodies import CHAT, RESPONSES, chat_body
from tests.gateway.conftest import World, messages_body

MESSAGES = "/slack_app/v1/messages"
COUNT, MODELS = f"{MESSAGES}/count_tokens", "/slack_app/v1/models"
SHAPES = {MESSAGES: "anthropic", COUNT: "anthropic", CHAT: "openai", RESPONSES: "openai"}


@pytest.fixture
def token(world: World) -> str:
    return world.tollgate.token(world.tollgate.project(credits=100))


def message_of(answer, status: int) -> str:
    """Return the message of a refusal, in any error format."""
    assert answer.status_code == status, answer.text
    return answer.json()["error"]["message"]


@pytest.mark.parametrize(
    ("path", "meant"),
    [
        ("/slack_app/messages", MESSAGES),
        ("/slack_app/v1/v1/messages", MESSAGES),
        ("/slack_app/v2/messages", MESSAGES),
        ("/slack_app/v1/messages/", MESSAGES),
        ("/slack_app/v1//messages", MESSAGES),
        ("//slack_app/v1/messages", MESSAGES),
        ("/slack_app//v1/messages//", MESSAGES),
        ("/slack_app/v1/message", MESSAGES),
        ("/slack_app/V1/Messages", MESSAGES),
        ("/slack_app/v1/complete", MESSAGES),
        ("/slack_app/anthropic/v1/messages", MESSAGES),
        ("/v1/slack_app/messages", MESSAGES),
        ("/api/slack_app/v1/messages", MESSAGES),
        ("/slack_app/messages/count_tokens", COUNT),
        ("/slack_app/v1/messages/count-tokens", COUNT),
        ("/slack_app/v1/completions", CHAT),
        ("/slack_app/v1/chat/completion", CHAT),
        ("/slack_app/v1/chat/completions/", CHAT),
        ("/slack_app/v1/chat", CHAT),
        ("/slack_app/chat/completions", CHAT),
        ("/slack_app/v1/v1/chat/completions", CHAT),
        ("/slack_app/v1/response", RESPONSES),
        ("/slack_app/responses", RESPONSES),
        ("/slack_app/v1/openai/responses/", RESPONSES),
        ("/slack_app/models", MODELS),
        ("/slack_app/v1/models/", MODELS),
        ("/slack_app/v1/usage", "/v1/usage/slack_app"),
        ("/v1/usage/slack_app/", "/v1/usage/slack_app"),
        ("/slack-posthog-code/messages", "/slack-posthog-code/v1/messages"),
    ],
)
def test_the_refusal_of_a_wrong_path_names_the_right_one(world, path, meant) -> None:
    project = world.tollgate.project(credits=100)
    token = world.tollgate.token(
        project, products=["slack_app", "slack_app_routing"], token_kind="oauth_run"
    )
    method = "GET" if "models" in meant or "usage" in meant else "POST"
    before = len(world.provider.requests)
    answer = world.post(token, f"{world.url}{path}")
    assert message_of(answer, 404).endswith(f" Use {method} {meant}.")
    assert answer.headers["x-should-retry"] == "false"
    assert len(world.provider.requests) == before
    if (shape := SHAPES.get(meant)) is not None:
        assert (answer.json().get("type") == "error") == (shape == "anthropic")


@pytest.mark.parametrize(
    ("path", "meant"),
    [
        ("/v1/messages", "POST /<product>/v1/messages"),
        ("/v1/v1/messages", "POST /<product>/v1/messages"),
        ("//v1/messages", "POST /<product>/v1/messages"),
        ("/messages", "POST /<product>/v1/messages"),
        ("/v1/messages/count_tokens", "POST /<product>/v1/messages/count_tokens"),
        ("/v1/chat/completions", "POST /<product>/v1/chat/completions"),
        ("/chat/completions", "POST /<product>/v1/chat/completions"),
        ("/v1/completions", "POST /<product>/v1/chat/completions"),
        ("/v1/responses", "POST /<product>/v1/responses"),
        ("/v1/models", "GET /<product>/v1/models"),
        ("/v1/usage", "GET /v1/usage/<product>"),
        ("/v1/usage/", "GET /v1/usage/<product>"),
    ],
)
def test_the_refusal_of_a_path_without_a_product_lists_the_products(
    world, token, path, meant
) -> None:
    message = message_of(world.post(token, f"{world.url}{path}"), 404)
    assert f"Use {meant}. The products are slack_app, " in message


def test_the_refusal_of_an_unknown_path_lists_all_paths(world: World, token: str) -> None:
    for path in ("/slack_app", "/slack_app/", "/slack_app/v1/embeddings", "/slack_app/v1/files"):
        message = message_of(world.post(token, path), 404)
        assert all(each in message for each in (MESSAGES, CHAT, RESPONSES, MODELS))


def test_a_long_path_is_shortened_in_the_refusal() -> None:
    message = wrong_paths.not_found("/slack_app/" + "m" * 60_000).message
    assert len(message) < 500


def test_the_path_of_a_known_product_needs_a_known_token(world: World) -> None:
    assert world.post(None, "/slack_app/messages").status_code == 401


def test_models_are_refused_in_the_error_format_of_the_calling_sdk(world, token) -> None:
    headers = {"authorization": f"Bearer {token}", "anthropic-version": "2023-06-01"}
    assert world.http.get("/slack_app/models", headers=headers).json()["type"] == "error"


@pytest.mark.parametrize(
    ("method", "path", "allowed"),
    [
        ("GET", MESSAGES, "POST"),
        ("PUT", COUNT, "POST"),
        ("DELETE", CHAT, "POST"),
        ("GET", RESPONSES, "POST"),
        ("OPTIONS", RESPONSES, "POST"),
        ("POST", MODELS, "GET"),
        ("POST", "/v1/usage/slack_app", "GET, HEAD"),
    ],
)
def test_the_refusal_of_a_wrong_method_names_the_right_one(
    world, token, method, path, allowed
) -> None:
    answer = world.http.request(method, path, headers={"authorization": f"Bearer {token}"})
    assert message_of(answer, 405) == f"Use {allowed} for {path}."
    assert answer.headers["allow"] == allowed


@pytest.mark.parametrize(
    ("path", "model", "own"),
    [
        (CHAT, "claude-sonnet-4-5", MESSAGES),
        (RESPONSES, "claude-haiku-4-5", MESSAGES),
        (CHAT, "anthropic/claude-opus-4-1", MESSAGES),
        (RESPONSES, "us.anthropic.claude-sonnet-4-5-20250929-v1:0", MESSAGES),
        (CHAT, "claude-made-up-later", MESSAGES),
        (MESSAGES, "gpt-4o", f"{RESPONSES} or {CHAT}"),
        (MESSAGES, "openai/gpt-5-mini", f"{RESPONSES} or {CHAT}"),
        (MESSAGES, "o3-mini", f"{RESPONSES} or {CHAT}"),
        (MESSAGES, "gpt-made-up-later", f"{RESPONSES} or {CHAT}"),
    ],
)
def test_the_refusal_of_another_apis_model_names_its_api(world, token, path, model, own) -> None:
    bodies = {
        MESSAGES: messages_body(model=model),
        CHAT: chat_body(model=model),
        RESPONSES: {"model": model, "input": "Hi"},
    }
    before = len(world.provider.requests)
    message = message_of(world.post(token, path, bodies[path]), 400)
    assert message.endswith(f" Call it at {own}.")
    assert "price" not in message
    assert len(world.provider.requests) == before
