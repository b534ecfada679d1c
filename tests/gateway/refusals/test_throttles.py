"""Calls that cost nothing are throttled too, with their own budget."""

import threading
import uuid
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace

import pytest

from tests.conftest import wait_until
from tests.gateway.conftest import World, messages_body, world_of
from tests.gateway.fake_provider import default_script

CALL, COUNT = "/slack_app/v1/messages", "/slack_app/v1/messages/count_tokens"
PER_MINUTE = 40


@pytest.fixture(scope="module")
def strict() -> Iterator[World]:
    """A gateway that allows few requests per minute."""
    with world_of(
        GATEWAY_REQUESTS_PER_MINUTE=str(PER_MINUTE),
        GATEWAY_MAX_CONCURRENT="5",
    ) as world:
        yield world


@pytest.fixture
def token(strict: World) -> str:
    return strict.tollgate.token(strict.tollgate.project(credits=1000))


def passed_until_refused(ask) -> tuple[int, object]:
    """Call `ask` until the first refusal; return how often it passed, and the refusal."""
    for passed in range(3 * PER_MINUTE):
        if (answer := ask()).status_code != 200:
            return passed, answer
    pytest.fail("nothing was refused")


def test_counting_tokens_is_throttled_and_leaves_room_for_calls(strict: World, token) -> None:
    passed, refusal = passed_until_refused(lambda: strict.post(token, COUNT))
    assert PER_MINUTE <= passed < 1.5 * PER_MINUTE
    assert refusal.status_code == 429
    assert refusal.json()["error"]["type"] == "rate_limit_error"
    assert refusal.json()["error"]["reason"] == "requests_per_minute"
    assert int(refusal.headers["retry-after"]) >= 1
    assert strict.post(token).status_code == 200
    other = strict.tollgate.token(strict.tollgate.project(credits=1000))
    assert strict.post(other, COUNT).status_code == 200


@pytest.mark.parametrize(
    ("headers", "kind"),
    [({}, "rate_limit_exceeded"), ({"anthropic-version": "2023-06-01"}, "rate_limit_error")],
)
def test_listing_models_is_throttled_in_the_sdks_error_format(
    strict: World, token, headers: dict[str, str], kind: str
) -> None:
    headers = {**headers, "authorization": f"Bearer {token}"}
    _, refusal = passed_until_refused(
        lambda: strict.http.get("/slack_app/v1/models", headers=headers)
    )
    assert refusal.status_code == 429
    error = refusal.json()["error"]
    assert kind in (error["type"], error.get("code"))


def test_the_usage_endpoint_is_throttled(strict: World, token) -> None:
    _, refusal = passed_until_refused(lambda: strict.get("/v1/usage/slack_app", token))
    assert refusal.status_code == 429
    assert refusal.json()["error"]["reason"] == "requests_per_minute"


def test_unmetered_calls_are_throttled(strict: World) -> None:
    token = strict.tollgate.token(strict.tollgate.project(), "llm_gateway")
    _, refusal = passed_until_refused(lambda: strict.post(token, "/llm_gateway/v1/messages"))
    assert refusal.json()["error"]["reason"] == "requests_per_minute"


@pytest.mark.parametrize("status", [200, 409, 422])
def test_repeating_a_call_with_an_idempotency_key_is_throttled_and_leaves_room_for_calls(
    strict: World, token, background: ThreadPoolExecutor, status: int
) -> None:
    key, gate = {"Idempotency-Key": uuid.uuid4().hex}, threading.Event()
    before = len(strict.provider.requests)
    strict.provider.script = lambda seen: replace(default_script(seen), gate=gate)
    call = background.submit(strict.post, token, headers=key)
    wait_until(lambda: len(strict.provider.requests) == before + 1, what="the call")
    if status != 409:
        gate.set()
        call.result()
    body = messages_body(max_tokens=99 if status == 422 else 100)
    try:
        answers = [strict.post(token, body=body, headers=key) for _ in range(3 * PER_MINUTE)]
    finally:
        gate.set()
    statuses = [answer.status_code for answer in answers]
    passed = statuses.index(429)
    assert PER_MINUTE <= passed < 1.5 * PER_MINUTE
    assert set(statuses) == {status, 429}
    assert answers[passed].json()["error"]["reason"] == "requests_per_minute"
    assert call.result().status_code == 200
    assert strict.post(token).status_code == 200


@pytest.mark.parametrize("path", [CALL, COUNT], ids=["calls", "counting tokens"])
def test_a_token_has_limited_concurrent_calls(
    strict: World, token, background: ThreadPoolExecutor, path: str
) -> None:
    gate, before = threading.Event(), len(strict.provider.requests)
    strict.provider.script = lambda seen: replace(default_script(seen), gate=gate)
    calls = [background.submit(strict.post, token, path) for _ in range(5)]
    wait_until(lambda: len(strict.provider.requests) == before + 5, what="five being under way")
    refusal = strict.post(token, path)
    gate.set()
    assert refusal.status_code == 429
    assert refusal.json()["error"]["reason"] == "too_many_concurrent_requests"
    assert refusal.headers["retry-after"] == "1"
    assert {call.result().status_code for call in calls} == {200}
    assert strict.post(token, path).status_code == 200


def test_a_coding_agents_burst_passes_by_default(world: World) -> None:
    token = world.tollgate.token(world.tollgate.project(credits=1000))
    assert set(world.post_at_once(token, 60, COUNT)) == {200}


def test_without_redis_counting_tokens_still_works(fragile: World) -> None:
    token = fragile.tollgate.token(fragile.tollgate.project(credits=1000))
    assert fragile.post(token, COUNT, messages_body()).status_code == 200
    fragile.store.stop()
    try:
        assert fragile.post(token, COUNT, messages_body()).status_code == 200
    finally:
        fragile.store.start()
