"""Idempotency keys: a repeated call gets the answer that was already paid for, at no cost."""

import asyncio
import os
import signal
import socket
import threading
import time
import uuid
from collections import Counter
from contextlib import suppress
from types import SimpleNamespace

import pytest
import redis

from gateway import kept_answers, keys
from gateway.errors import Refusal
from gateway.kept_answers import KeptAnswers, KeyInUse
from gateway.network.redis_connection import Redis
from tests.conftest import wait_until
from tests.gateway.bodies import CHAT, chat_body
from tests.gateway.conftest import DENIED, World, messages_body
from tests.gateway.fake_provider import Script, default_script, json_script, message
from tests.gateway.lossy_redis import LosesAnswers

REPLAYED = "tollgate_gateway_replayed_answers_total"
REPEATED = "tollgate_gateway_repeated_generations_total"


def new_key() -> dict[str, str]:
    return {"Idempotency-Key": uuid.uuid4().hex}


@pytest.fixture
def project(world: World):
    return world.tollgate.project(credits=10)


def asked(world: World) -> int:
    return len(world.provider.requests)


@pytest.mark.parametrize(("path", "body"), [("/slack_app/v1/messages", None), (CHAT, chat_body())])
def test_the_same_call_is_made_and_paid_once(world: World, project, path, body) -> None:
    key, before = new_key(), asked(world)
    first = world.post(world.tollgate.token(project), path, body, headers=key)
    replayed = world.metric(REPLAYED)
    again = world.post(world.tollgate.token(project), path, body, headers=key)
    assert (first.status_code, again.status_code) == (200, 200)
    assert again.content == first.content
    assert again.headers["content-type"] == first.headers["content-type"]
    assert again.headers["x-tollgate-replayed"] == "true"
    assert "x-tollgate-replayed" not in first.headers
    assert asked(world) == before + 1
    assert world.metric(REPLAYED) == replayed + 1
    world.booked(project, 1)
    assert world.settled(project)["held"] == 0


def test_the_key_is_not_forwarded_to_the_provider(world: World, project) -> None:
    world.post(world.tollgate.token(project), headers=new_key())
    assert "idempotency-key" not in world.provider.requests[-1].headers


def test_an_answer_is_replayed_to_a_team_without_credits(world: World, project) -> None:
    key, token = new_key(), world.tollgate.token(project)
    first = world.post(token, headers=key)
    world.tollgate.limit(project)
    wait_until(lambda: world.post(token).status_code == DENIED, what="the limit")
    assert world.post(world.tollgate.token(project), headers=key).content == first.content


def test_another_body_under_the_same_key_is_refused(world: World, project) -> None:
    key, token, before = new_key(), world.tollgate.token(project), asked(world)
    world.post(token, headers=key)
    other = world.post(token, body=messages_body(max_tokens=99), headers=key)
    assert other.status_code == 422
    assert other.headers["x-tollgate-reason"] == "idempotency_key_reused"
    assert asked(world) == before + 1


def test_a_key_means_nothing_to_another_project(world: World, project) -> None:
    key, before = new_key(), asked(world)
    world.post(world.tollgate.token(project), headers=key)
    stranger = world.tollgate.project(credits=10)
    answer = world.post(world.tollgate.token(stranger), headers=key)
    assert "x-tollgate-replayed" not in answer.headers
    assert asked(world) == before + 2
    world.booked(stranger, 1)


@pytest.mark.parametrize("key", ["", "short", "x" * 256])
def test_a_key_of_the_wrong_length_is_ignored(world: World, project, key) -> None:
    before, token = asked(world), world.tollgate.token(project)
    for _ in range(2):
        assert world.post(token, headers={"Idempotency-Key": key}).status_code == 200
    assert asked(world) == before + 2


def test_a_stream_is_never_replayed(world: World, project) -> None:
    key, before, token = new_key(), asked(world), world.tollgate.token(project)
    for _ in range(2):
        answer = world.post(token, body=messages_body(stream=True), headers=key)
        assert answer.status_code == 200
    assert asked(world) == before + 2


@pytest.mark.parametrize("status", [400, 429, 503])
def test_an_error_is_not_kept(world: World, project, status) -> None:
    key, token, repeated = new_key(), world.tollgate.token(project), world.metric(REPEATED)
    world.provider.script = lambda _: json_script({"error": {"type": "api_error"}}, status)
    assert world.post(token, headers=key).status_code == status
    world.provider.script = default_script
    assert world.post(token, headers=key).status_code == 200
    assert world.metric(REPEATED) == repeated


def test_a_call_that_failed_can_be_repeated_at_once(world: World, project) -> None:
    token = world.tollgate.token(project)
    for _ in range(30):
        key = new_key()
        world.provider.script = lambda _: json_script({"error": {"type": "api_error"}}, 503)
        assert world.post(token, headers=key).status_code == 503
        world.provider.script = default_script
        assert world.post(token, headers=key).status_code == 200


@pytest.mark.parametrize(
    "document", [{"type": "error", "error": {"type": "overloaded_error"}}, {"id": "msg_1"}]
)
def test_an_error_or_incomplete_answer_with_status_200_is_not_kept(
    world: World, project, document
) -> None:
    key, token, before = new_key(), world.tollgate.token(project), asked(world)
    world.provider.script = lambda _: json_script(document)
    assert world.post(token, headers=key).status_code == 200
    world.provider.script = default_script
    assert world.post(token, headers=key).json()["content"]
    assert asked(world) == before + 2


def test_a_refused_call_does_not_use_its_key_up(world: World, project) -> None:
    key, token = new_key(), world.tollgate.token(project)
    world.post(token)
    world.tollgate.limit(project)
    wait_until(lambda: world.post(token).status_code == DENIED, what="the limit")
    assert world.post(token, headers=key).status_code == DENIED
    world.tollgate.lift(project)
    wait_until(lambda: world.post(token, headers=key).status_code == 200, what="an answer")


def test_an_answer_that_broke_off_is_made_again_and_counted(world: World, project) -> None:
    key, token, repeated = new_key(), world.tollgate.token(project), world.metric(REPEATED)
    world.provider.script = lambda _: Script(
        headers={"content-type": "application/json"}, chunks=[b'{"half":'], cut=True
    )
    assert world.post(token, headers=key).status_code == 502
    world.provider.script = default_script
    assert world.post(token, headers=key).status_code == 200
    assert world.metric(REPEATED) == repeated + 1


def test_a_call_that_broke_off_before_its_answer_is_made_again_and_counted(
    world: World, project
) -> None:
    key, token, repeated = new_key(), world.tollgate.token(project), world.metric(REPEATED)
    world.provider.script = lambda _: Script(raw=b"")
    assert world.post(token, headers=key).status_code == 502
    world.provider.script = default_script
    assert world.post(token, headers=key).status_code == 200
    wait_until(lambda: world.metric(REPEATED) == repeated + 1, what="the metric")


def test_a_very_long_answer_passes_and_is_not_kept(world: World, project) -> None:
    text = "x" * (kept_answers.LARGEST_ANSWER + 1)
    long = message() | {"content": [{"type": "text", "text": text}]}
    world.provider.script = lambda _: json_script(long)
    key, token, before = new_key(), world.tollgate.token(project), asked(world)
    for _ in range(2):
        assert world.post(token, headers=key).json() == long
    assert asked(world) == before + 2


def test_redis_never_stores_an_answer_in_plain_text(world: World, project) -> None:
    secret = {"content": [{"type": "text", "text": "the secret of the repository"}]}
    world.provider.script = lambda _: json_script(message() | secret)
    key = new_key()
    world.post(world.tollgate.token(project), headers=key)
    names = list(world.redis.scan_iter("tollgate:answer:*"))
    assert names
    assert not any(key["Idempotency-Key"] in name for name in names)
    address = world.redis.connection_pool.connection_kwargs
    with redis.Redis(address["host"], address["port"]) as client:
        kept = [name for name in names if client.hexists(name, "answer")]
        stored = [client.hget(name, "answer") for name in kept]
        lives = [client.pttl(name) for name in kept]
    assert kept
    assert not any(b"secret" in each for each in stored)
    assert all(0 < life <= 600_000 for life in lives)


@pytest.mark.usefixtures("patience")
def test_a_call_waiting_for_its_hold_is_under_way_while_its_gateway_lives(
    own_redis: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(kept_answers, "CLAIM_MS", 0)
    caller = SimpleNamespace(project_id=7)
    headers = {kept_answers.HEADER: b"k" * 32}

    async def claims() -> None:
        store = Redis(own_redis)
        await store.execute("FLUSHALL")
        names = iter("abcdef")

        def claim(owner: str, seconds: float = 60):
            answers = KeptAnswers(store, owner, 600, admission_seconds=seconds)
            call = SimpleNamespace(
                headers=headers, product="slack_app", api="messages", call_id=next(names)
            )
            return answers.claim(call, caller, b"{}")

        now_ms = int((await store.execute("TIME"))[0]) * 1000
        await store.execute("ZADD", keys.OWNERS, now_ms + 60_000, "lives")
        await claim("lives")
        with pytest.raises(KeyInUse):
            await claim("another")
        too_slow = -kept_answers.GRACE_MS / 1000
        assert await claim("lives", too_slow) is not None
        await store.execute("ZREM", keys.OWNERS, "lives")
        assert await claim("another") is not None
        store.close()

    asyncio.run(claims())


@pytest.mark.parametrize("generated", [True, False])
@pytest.mark.usefixtures("patience")
def test_a_key_is_free_as_soon_as_redis_is_back(own_redis: str, generated: bool) -> None:
    caller, names = SimpleNamespace(project_id=7), map(str, range(1_000_000))
    headers = {kept_answers.HEADER: b"k" * 32}

    async def outages() -> None:
        store = LosesAnswers(own_redis)
        await store.execute("FLUSHALL")
        now_ms = int((await store.execute("TIME"))[0]) * 1000
        await store.execute("ZADD", keys.OWNERS, now_ms + 600_000, "owner")
        answers = KeptAnswers(store, "owner", 600, admission_seconds=600)

        def claim():
            call = SimpleNamespace(
                headers=headers, product="slack_app", api="messages", call_id=next(names)
            )
            return answers.claim(call, caller, b"{}")

        async def claimed():
            async with asyncio.timeout(30):
                while True:
                    try:
                        return await claim()
                    except KeyInUse:
                        await asyncio.sleep(0.01)

        store.deaf = True
        with pytest.raises(Refusal):
            await claim()
        store.deaf = False
        first = await claimed()
        store.away = 1
        await first.end(generated=generated)
        assert await claimed()
        store.close()

    asyncio.run(outages())


@pytest.mark.usefixtures("patience")
def test_a_claim_that_redis_makes_after_it_was_given_back_is_void(own_redis: str) -> None:
    """A command may be delivered after its connection broke, when the network is back."""
    caller, headers = SimpleNamespace(project_id=7), {kept_answers.HEADER: b"k" * 32}

    async def arrive_late() -> None:
        store = LosesAnswers(own_redis)
        await store.execute("FLUSHALL")
        now_ms = int((await store.execute("TIME"))[0]) * 1000
        await store.execute("ZADD", keys.OWNERS, now_ms + 600_000, "owner")
        answers, network = (
            KeptAnswers(store, "owner", 600, admission_seconds=600) for _ in range(2)
        )

        def claim(by: KeptAnswers, call_id: str):
            call = SimpleNamespace(
                headers=headers, product="slack_app", api="messages", call_id=call_id
            )
            return by.claim(call, caller, b"{}")

        store.away = 1
        with pytest.raises(Refusal):
            await claim(answers, "late")
        assert answers._retrying is not None
        await answers._retrying
        with suppress(KeyInUse):
            await claim(network, "late")
        assert await claim(answers, "next") is not None
        store.close()

    asyncio.run(arrive_late())


def leave_during_a_call(world: World, token: str, key: dict[str, str]) -> None:
    """Make a call, and hang up once the provider has the request."""
    body = b'{"model":"claude-sonnet-4-5","max_tokens":100,"messages":[]}'
    before = asked(world)
    with socket.create_connection(("127.0.0.1", world.port)) as connection:
        connection.sendall(
            f"POST /slack_app/v1/messages HTTP/1.1\r\nhost: gateway\r\n"
            f"authorization: Bearer {token}\r\nidempotency-key: {key['Idempotency-Key']}\r\n"
            f"content-length: {len(body)}\r\n\r\n".encode()
            + body
        )
        wait_until(lambda: asked(world) > before, what="the provider being asked")


def post_again(world: World, token: str, key: dict[str, str]):
    body = b'{"model":"claude-sonnet-4-5","max_tokens":100,"messages":[]}'
    return world.post(token, body=body, headers=key)


def held_back(world: World) -> threading.Event:
    """Make the provider hold back its answers until the event is set."""
    gate = threading.Event()

    def script(seen) -> Script:
        answer = default_script(seen)
        answer.gate = gate
        return answer

    world.provider.script = script
    return gate


def test_the_answer_to_a_killed_caller_is_kept_for_the_next(world: World, project) -> None:
    key, gate, before = new_key(), held_back(world), asked(world)
    leave_during_a_call(world, world.tollgate.token(project), key)
    token = world.tollgate.token(project)
    under_way = post_again(world, token, key)
    assert under_way.status_code == 409
    assert under_way.headers["x-tollgate-reason"] == "call_under_way"
    assert under_way.headers["retry-after"] == "1"
    gate.set()
    wait_until(lambda: post_again(world, token, key).status_code == 200, what="the answer")
    assert asked(world) == before + 1
    world.booked(project, 1)


def test_an_answer_is_kept_even_if_redis_lost_the_claim_meanwhile(world: World, project) -> None:
    key, gate, before = new_key(), held_back(world), asked(world)
    names = set(world.redis.scan_iter("tollgate:answer:*"))
    leave_during_a_call(world, world.tollgate.token(project), key)
    [name] = set(world.redis.scan_iter("tollgate:answer:*")) - names
    world.redis.delete(name)
    gate.set()
    wait_until(lambda: world.redis.hexists(name, "answer"), what="the answer being kept")
    again = post_again(world, world.tollgate.token(project), key)
    assert (again.status_code, again.headers["x-tollgate-replayed"]) == (200, "true")
    assert asked(world) == before + 1


def test_events_with_the_same_key_share_a_step_id(world: World, project) -> None:
    key, token = new_key(), world.tollgate.token(project)
    for _ in range(2):
        world.post(token, body=messages_body(stream=True), headers=key)
    world.post(token, headers=new_key())
    world.post(token)
    steps = Counter(each["properties"]["step_id"] for each in world.booked(project, 4))
    assert sorted(steps.values()) == [1, 1, 2]
    assert steps[None] == 1
    assert key["Idempotency-Key"] not in str(steps)


def test_a_call_of_a_killed_gateway_is_made_again_and_counted(fragile: World) -> None:
    project = fragile.tollgate.project(credits=10)
    key, gate = new_key(), held_back(fragile)
    leave_during_a_call(fragile, fragile.tollgate.token(project), key)
    fragile.process.kill()
    fragile.process.start()
    gate.set()
    fragile.provider.script = default_script
    token = fragile.tollgate.token(project)
    wait_until(lambda: post_again(fragile, token, key).status_code == 200, what="an answer")
    assert fragile.metric(REPEATED) == 1
    assert "x-tollgate-replayed" in post_again(fragile, token, key).headers


def test_an_answer_arrives_even_if_redis_fails_meanwhile(fragile: World, background) -> None:
    project = fragile.tollgate.project(credits=10)
    token, key, gate = fragile.tollgate.token(project), new_key(), held_back(fragile)
    before = asked(fragile)
    call = background.submit(fragile.post, token, headers=key)
    wait_until(lambda: asked(fragile) > before, what="the provider being asked")
    os.kill(fragile.store.popen.pid, signal.SIGSTOP)
    try:
        gate.set()
        began = time.monotonic()
        assert call.result().status_code == 200
        assert time.monotonic() - began < 15
    finally:
        os.kill(fragile.store.popen.pid, signal.SIGCONT)
