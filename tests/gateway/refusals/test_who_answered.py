"""The gateway's own refusals and a provider's errors cannot be confused."""

import os
import signal
import threading

import pytest

from coding_tasks.failures import AnswerLost, CreditsHeld, GatewayUnavailable, ModelFailed
from coding_tasks.reading.assignments import ModelAccess, trace_of
from coding_tasks.reading.model import Question, ask
from tests.conftest import wait_until
from tests.gateway.bodies import CHAT, RESPONSES, chat_body
from tests.gateway.conftest import World
from tests.gateway.fake_provider import Script, default_script

QUESTION = Question("claude-sonnet-4-6", "", [{"role": "user", "content": "Hi"}], 100, 20.0)
IMITATION = (
    b'{"type":"error","error":{"type":"overloaded_error","message":"no",'
    b'"reason":"store_unavailable"}}'
)


def ask_through(world: World, token: str) -> str:
    """Make a call as the agent of a run does; return what it reports."""
    return ask(ModelAccess(f"{world.url}/slack_app", token, trace_of("x")), QUESTION)


@pytest.mark.parametrize(
    ("path", "body"),
    [
        ("/slack_app/v1/messages", None),
        (CHAT, chat_body()),
        (RESPONSES, {"model": "gpt-4o", "input": "Hi"}),
        ("/no_product/v1/messages", None),
    ],
)
def test_a_refusal_names_its_reason_in_a_header(world: World, path, body) -> None:
    answer = world.post("pha_of-nobody", path, body)
    assert answer.status_code in (400, 401)
    assert answer.headers["x-tollgate-reason"] == answer.json()["error"]["reason"]
    assert "x-tollgate-provider" not in answer.headers


@pytest.mark.parametrize("stream", [False, True])
def test_a_provider_answer_names_the_provider_in_a_header(world: World, stream) -> None:
    token = world.tollgate.token(world.tollgate.project())
    answer = world.post(token, CHAT, chat_body(stream=stream))
    assert answer.status_code == 200
    assert answer.headers["x-tollgate-provider"] == "openai"
    assert "x-tollgate-reason" not in answer.headers


@pytest.mark.parametrize("status", [429, 503, 529])
def test_a_provider_that_imitates_a_refusal_still_counts_as_the_provider(
    world: World, status
) -> None:
    world.provider.script = lambda _: Script(
        status=status,
        headers={
            "content-type": "application/json",
            "X-Tollgate-Reason": "store_unavailable",
            "x-tollgate-provider": "nobody",
            "connection": "x-tollgate-provider",
        },
        chunks=[IMITATION],
    )
    token = world.tollgate.token(world.tollgate.project())
    answer = world.post(token)
    assert "x-tollgate-reason" not in answer.headers
    assert answer.headers.get_list("x-tollgate-provider") == ["anthropic"]
    with pytest.raises(ModelFailed):
        ask_through(world, token)


def test_a_missing_provider_answer_is_attributed_to_the_provider(world: World) -> None:
    world.provider.script = lambda _: Script(raw=b"")
    with pytest.raises(ModelFailed, match="provider_failed"):
        ask_through(world, world.tollgate.token(world.tollgate.project()))


@pytest.mark.parametrize("cap", [None, "project", "user", "run"])
def test_the_refusal_says_if_other_calls_hold_the_credits(world: World, background, cap) -> None:
    """The second call is refused while the first holds all credits, and admitted after it."""
    project = world.tollgate.project(credits=0.45 if cap is None else 1000)
    scopes = {"project": f"project:{project.id}", "user": "user:slack:T1:U1", "run": "run"}
    if cap is not None:
        world.tollgate.cap(project, scopes[cap], 0.45)
    token = world.tollgate.token(project, distinct_id="slack:T1:U1")
    gate = threading.Event()

    def held_back(seen) -> Script:
        script = default_script(seen)
        script.gate = gate
        return script

    world.provider.script = held_back
    before = len(world.provider.requests)
    first = background.submit(ask_through, world, token)
    wait_until(lambda: len(world.provider.requests) > before, what="the first call")
    try:
        with pytest.raises(CreditsHeld):
            ask_through(world, token)
    finally:
        gate.set()
    assert first.result()
    assert ask_through(world, token)


def test_a_frozen_redis_is_attributed_to_the_gateway(fragile: World) -> None:
    token = fragile.tollgate.token(fragile.tollgate.project())
    assert ask_through(fragile, token)
    asked = len(fragile.provider.requests)
    os.kill(fragile.store.popen.pid, signal.SIGSTOP)
    try:
        with pytest.raises(GatewayUnavailable, match="store_unavailable"):
            ask_through(fragile, token)
    finally:
        os.kill(fragile.store.popen.pid, signal.SIGCONT)
    assert len(fragile.provider.requests) == asked
    wait_until(lambda: _answered(fragile, token), what="an answer")


def _answered(world: World, token: str) -> bool:
    try:
        return bool(ask_through(world, token))
    except GatewayUnavailable:
        return False


def test_an_unavailable_django_is_attributed_to_the_gateway(fragile: World) -> None:
    token = fragile.tollgate.token(fragile.tollgate.project())
    fragile.tollgate.fail("introspect")
    with pytest.raises(GatewayUnavailable, match="authentication_unavailable"):
        ask_through(fragile, token)


def test_a_killed_gateway_is_not_attributed_to_the_provider(fragile: World, background) -> None:
    token = fragile.tollgate.token(fragile.tollgate.project())
    gate = threading.Event()

    def held_back(seen) -> Script:
        script = default_script(seen)
        script.gate = gate
        return script

    fragile.provider.script = held_back
    before = len(fragile.provider.requests)
    call = background.submit(ask_through, fragile, token)
    wait_until(lambda: len(fragile.provider.requests) > before, what="the call")
    fragile.process.kill()
    try:
        with pytest.raises(AnswerLost):
            call.result()
        with pytest.raises(GatewayUnavailable):
            ask_through(fragile, token)
    finally:
        gate.set()
        fragile.process.start()
