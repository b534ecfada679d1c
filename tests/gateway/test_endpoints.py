"""Which of the providers' endpoints are served, what they cost, and how others are refused."""

import socket
from decimal import Decimal

import pytest

from gateway import apis
from tests.conftest import wait_until
from tests.gateway.conftest import DENIED, METRICS_TOKEN, World
from tests.gateway.fake_provider import json_script

COMPACT = "/slack_app/v1/responses/compact"
COMPACTED = {
    "id": "resp_1", "object": "response.compaction", "created_at": 1, "model": "gpt-5.3-codex",
    "output": [{"type": "message", "role": "user", "content": []},
               {"type": "compaction", "id": "cmp_1", "encrypted_content": "x" * 100}],
    "usage": {"input_tokens": 10_000, "input_tokens_details": {"cached_tokens": 4_000},
              "output_tokens": 500, "output_tokens_details": {"reasoning_tokens": 64},
              "total_tokens": 10_500},
}  # fmt: skip
# What Codex sends: https://github.com/openai/codex/tree/main/codex-rs/codex-api
ASKED = {
    "model": "gpt-5.3-codex", "input": [{"type": "message", "role": "user", "content": "Hi"}],
    "instructions": "You are a coding agent.", "tools": [{"type": "function", "name": "shell"}],
    "parallel_tool_calls": True, "reasoning": {"effort": "medium"}, "text": {"verbosity": "low"},
    "prompt_cache_key": "k", "service_tier": "default",
}  # fmt: skip


def test_a_compaction_is_metered_like_a_response(world: World) -> None:
    world.provider.script = lambda _: json_script(COMPACTED)
    project = world.tollgate.project(credits=1000)
    answer = world.post(world.tollgate.token(project), COMPACT, ASKED)
    assert (answer.status_code, answer.json()) == (200, COMPACTED)
    [event] = world.booked(project)
    # 6,000 × $1.75 + 4,000 × $0.175 + 500 × $14, per million
    assert Decimal(event["properties"]["$ai_total_cost_usd"]) == Decimal("0.0182")
    assert event["properties"]["$ai_usage_estimated"] is False
    sent = world.provider.requests[-1]
    assert sent.path == "/v1/responses/compact"
    assert sent.json == ASKED, "it knows no maximum of output, so none is added"


@pytest.mark.parametrize("more", [{}, {"max_output_tokens": 1}])
def test_a_compaction_is_held_at_the_longest_output_whatever_the_caller_says(
    world: World, more: dict
) -> None:
    # 128,000 × $14 per million, at 120 credits a dollar
    project = world.tollgate.project(credits=215)
    before = len(world.provider.requests)
    refused = world.post(world.tollgate.token(project), COMPACT, {**ASKED, **more})
    assert refused.status_code == DENIED
    assert float(refused.json()["error"]["needed"]) > 215
    assert len(world.provider.requests) == before


def test_a_compaction_within_a_response_is_held_at_the_longest_output(world: World) -> None:
    project = world.tollgate.project(credits=215)
    items = [*ASKED["input"], {"type": "compaction_trigger"}]
    body = {**ASKED, "input": items, "max_output_tokens": 1}
    refused = world.post(world.tollgate.token(project), "/slack_app/v1/responses", body)
    assert refused.status_code == DENIED
    assert float(refused.json()["error"]["needed"]) > 215


def test_a_refused_compaction_has_the_shape_of_the_responses_api(world: World) -> None:
    project = world.tollgate.project(credits=0)
    refused = world.post(world.tollgate.token(project), COMPACT, ASKED)
    assert refused.json()["error"]["code"] == "insufficient_quota"
    assert isinstance(refused.json()["error"]["resets_at"], int)


@pytest.mark.parametrize(
    "model", ["gpt-4o", "claude-sonnet-4-5", "ft:gpt-4o-2024-08-06:acme::x", "claude@20250929"]
)
def test_the_sdk_decides_which_provider_describes_a_model(world: World, model: str) -> None:
    world.provider.script = lambda seen: json_script({"path": seen.path, **seen.headers})
    project = world.tollgate.project(credits=10)
    token = world.tollgate.token(project)
    path = f"/slack_app/v1/models/{model.replace(':', '%3A')}?beta=true"
    answer = world.get(path, token)
    assert answer.status_code == 200
    assert answer.json()["path"] == f"/v1/models/{model}?beta=true"
    assert answer.json()["authorization"] == "Bearer sk-key-of-the-operator"
    headers = {"x-api-key": token, "anthropic-version": "2023-06-01"}
    answer = world.http.get(path, headers=headers)
    assert answer.json()["x-api-key"] == "sk-ant-key-of-the-operator"
    assert world.account(project) == {"spent": 0, "held": 0, "pending": 0}
    assert model not in world.get("/metrics", METRICS_TOKEN).text


HOSTILE = [
    "..", ".", "%2e%2e", "%2E%2E%2Fadmin", "a%2fb", "a/b", "a/../../admin", "a%00b", "a b",
    "a%0d%0ab", "a%3Fb", "a%23b", "%252e%252e", "", "x" * 300, "..;", "a\\b", "%5c", "é", "-x",
    "a..b", "a%",
]  # fmt: skip


@pytest.mark.parametrize("name", HOSTILE)
def test_a_model_name_cannot_lead_to_another_path(world: World, name: str) -> None:
    assert apis.find(f"/v1/models/{name}", {}) is None
    project, before = world.tollgate.project(credits=10), len(world.provider.requests)
    request = (
        f"GET /slack_app/v1/models/{name.replace(' ', '%20').replace('é', '%C3%A9')} HTTP/1.1\r\n"
        f"host: x\r\nauthorization: Bearer {world.tollgate.token(project)}\r\n"
        "connection: close\r\n\r\n"
    ).encode()
    assert b" 404 " in raw(world, request).partition(b"\r\n")[0] + b" "
    assert len(world.provider.requests) == before


def raw(world: World, request: bytes) -> bytes:
    """Send raw bytes; return everything that comes back."""
    with socket.create_connection(("127.0.0.1", world.port), timeout=30) as connection:
        connection.sendall(request)
        answer = b""
        while chunk := connection.recv(65_536):
            answer += chunk
        return answer


def test_counting_the_input_of_a_response_costs_nothing_and_is_throttled(world: World) -> None:
    counted = {"object": "response.input_tokens", "input_tokens": 11}
    world.provider.script = lambda _: json_script(counted)
    project = world.tollgate.project(credits=0)
    path = "/slack_app/v1/responses/input_tokens"
    answer = world.post(world.tollgate.token(project), path, {"model": "gpt-5", "input": "Hi"})
    assert (answer.status_code, answer.json()) == (200, counted)
    assert world.account(project) == {"spent": 0, "held": 0, "pending": 0}


@pytest.mark.parametrize(
    ("method", "path", "advice"),
    [
        ("POST", "/v1/messages/batches", "Send each of their requests by itself"),
        ("GET", "/v1/messages/batches/msgbatch_1/results", "Send each of their requests by itself"),
        ("POST", "/v1/batches", "Send each of their requests by itself"),
        ("GET", "/v1/responses/resp_1", "Read the answer of POST /v1/responses"),
        ("POST", "/v1/responses/resp_1/cancel", "Read the answer of POST /v1/responses"),
        ("GET", "/v1/responses/resp_1/input_items", "Read the answer of POST /v1/responses"),
        ("POST", "/v1/conversations", "Read the answer of POST /v1/responses"),
        ("POST", "/v1/completions", "Use POST /slack_app/v1/chat/completions"),
        ("POST", "/v1/complete", "Use POST /slack_app/v1/messages"),
    ],
)
def test_the_refusal_of_an_endpoint_names_the_one_to_use(
    world: World, method: str, path: str, advice: str
) -> None:
    project, before = world.tollgate.project(credits=10), len(world.provider.requests)
    headers = {"authorization": f"Bearer {world.tollgate.token(project)}"}
    answer = world.http.request(method, f"/slack_app{path}", headers=headers, json={})
    assert answer.status_code == 404
    assert advice in answer.json()["error"]["message"]
    assert len(world.provider.requests) == before


def test_metrics_name_the_endpoint_not_what_a_caller_wrote(world: World) -> None:
    world.provider.script = lambda _: json_script({"id": "gpt-4o"})
    token = world.tollgate.token(world.tollgate.project(credits=10))
    assert world.get("/slack_app/v1/models/a-name-of-the-callers", token).status_code == 200
    wait_until(
        lambda: 'api="/v1/models/{model}"' in world.get("/metrics", METRICS_TOKEN).text,
        what="the call being counted",
    )
    assert "a-name-of-the-callers" not in world.get("/metrics", METRICS_TOKEN).text


def test_the_root_and_the_probes_answer(world: World) -> None:
    assert world.http.head("/").status_code == 200
    assert world.get("/_health").status_code == 200
    assert world.get("/_ready").json()["ready"] is True
