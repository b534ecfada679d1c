"""If a process dies with calls under way and undelivered events, nothing is lost or doubled."""

import json
import signal
import subprocess
import threading
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import replace

import httpx
import pytest

from devstack.servers import accepts_connections, free_port
from gateway.money import holds
from gateway.network.redis_connection import Redis
from tests.conftest import wait_until
from tests.gateway.conftest import World, messages_body
from tests.gateway.fake_provider import (
    SSE_HEADERS,
    Script,
    default_script,
    json_script,
    message,
    messages_stream,
)

FAILURES = "tollgate_gateway_redis_failures_total"


def call_quietly(world: World, token: str, **body: object) -> int:
    """Make a call; return its status, or 0 if the connection broke."""
    with suppress(httpx.HTTPError):
        return world.post(token, body=messages_body(**body)).status_code
    return 0


def under_way(world: World, count: int, before: int) -> None:
    wait_until(lambda: len(world.provider.requests) >= before + count, what="calls under way")


@pytest.mark.case("G14")
def test_a_call_in_flight_at_the_kill_is_booked_once_from_its_hold(
    fragile: World, background: ThreadPoolExecutor
) -> None:
    project = fragile.tollgate.project(credits=100)
    token = fragile.tollgate.token(project)
    gate = threading.Event()
    fragile.provider.script = lambda _: Script(200, {}, [b"{}"], gate=gate)
    before = len(fragile.provider.requests)
    answers = [background.submit(call_quietly, fragile, token) for _ in range(3)]
    under_way(fragile, 3, before)
    held = fragile.account(project)["held"]
    assert held > 3 * 72_000
    fragile.process.kill()
    gate.set()
    assert [answer.result() for answer in answers] == [0, 0, 0]
    fragile.process.start()
    events = fragile.booked(project, 3)
    assert all(event["properties"]["$ai_usage_estimated"] for event in events)
    assert sum(event["debited_micro"] for event in events) == held
    assert fragile.tollgate.credits_booked(project) <= held
    assert fragile.settled(project) == {"spent": held, "held": 0, "pending": 0}


def test_a_call_whose_process_was_taken_for_dead_is_corrected_to_what_it_cost(
    fragile: World, background: ThreadPoolExecutor
) -> None:
    project = fragile.tollgate.project(credits=100)
    token = fragile.tollgate.token(project)
    gate = threading.Event()
    fragile.provider.script = lambda seen: replace(default_script(seen), gate=gate)
    before = len(fragile.provider.requests)
    answer = background.submit(fragile.post, token)
    under_way(fragile, 1, before)
    held = fragile.account(project)["held"]

    def given_up() -> bool:
        """Expire the slow process's lease; return whether its call has been booked."""
        for owner in fragile.redis.zrange("tollgate:owners", 0, -1):
            fragile.redis.zadd("tollgate:owners", {owner: 0})
        return bool(fragile.tollgate.events_of(project))

    wait_until(given_up, what="the call being booked at its bound")
    assert fragile.account(project)["held"] == 0
    gate.set()
    assert answer.result().status_code == 200
    bound, correction = fragile.booked(project, 2)
    assert (bound["debited_micro"], bound["properties"]["$ai_usage_estimated"]) == (held, True)
    assert correction["uuid"] != bound["uuid"] == correction["hold_id"]
    assert correction["debited_micro"] == 72_000 - held
    assert correction["properties"]["$ai_usage_estimated"] is False
    assert fragile.tollgate.credits_booked(project) == 72_000
    assert fragile.settled(project) == {"spent": 72_000, "held": 0, "pending": 0}


@pytest.mark.case("G14")
def test_events_that_were_not_delivered_survive_the_kill(fragile: World) -> None:
    project = fragile.tollgate.project(credits=100)
    token = fragile.tollgate.token(project)
    fragile.tollgate.fail("events", 503)
    for _ in range(4):
        assert fragile.post(token).status_code == 200
    fragile.process.kill()
    fragile.tollgate.mend()
    fragile.process.start()
    assert {event["debited_micro"] for event in fragile.booked(project, 4)} == {72_000}
    assert fragile.settled(project) == {"spent": 4 * 72_000, "held": 0, "pending": 0}


@pytest.mark.case("G16")
@pytest.mark.parametrize("killed", [True, False], ids=["killed meanwhile", "not killed"])
def test_a_call_that_ends_while_redis_is_down_is_booked_once(
    fragile: World, background: ThreadPoolExecutor, killed: bool
) -> None:
    # With "everysec", answered commands may not be on disk yet when the server is killed.
    fragile.redis.config_set("appendfsync", "always")
    project = fragile.tollgate.project(credits=100)
    token = fragile.tollgate.token(project)
    gate = threading.Event()

    def answer(_: object) -> Script:
        script = json_script(message())
        script.gate = gate
        return script

    fragile.provider.script = answer
    before = len(fragile.provider.requests)
    calls = [background.submit(call_quietly, fragile, token) for _ in range(3)]
    under_way(fragile, 3, before)
    held = fragile.account(project)["held"]
    failures = fragile.metric(FAILURES)
    fragile.store.kill()
    gate.set()
    # These callers still get their answers, but new calls are refused.
    assert [call.result() for call in calls] == [200, 200, 200]
    assert fragile.post(token).status_code == 503
    assert fragile.metric(FAILURES) > failures
    if killed:
        fragile.process.popen.kill()
    fragile.store.start()
    if killed:
        fragile.process.kill()
        fragile.process.start()
    events = fragile.booked(project, 3)
    spent = held if killed else 3 * 72_000
    assert sum(event["debited_micro"] for event in events) == spent
    assert {event["properties"]["$ai_usage_estimated"] for event in events} == {killed}
    assert fragile.settled(project) == {"spent": spent, "held": 0, "pending": 0}


@pytest.mark.case("G16")
async def test_memory_stays_bounded_while_redis_is_down(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(holds, "MAX_UNPAID_WAITING", 3)
    nowhere = Redis(f"redis://127.0.0.1:{free_port()}/0")
    unsettled = holds.Holds(
        nowhere, lease=60, open_window=60, run_cap_micro=None, requests_per_minute=0
    )
    for number in range(5):
        await unsettled.settle(holds.Settlement(f"unpaid {number}", "force", 0, b"{}"))
    assert unsettled.unsettled == 3
    await unsettled.settle(holds.Settlement("paid", "hold", 7, b"{}", account="a"))
    assert unsettled.unsettled == 4
    assert unsettled._retrying is not None
    unsettled._retrying.cancel()


@pytest.mark.case("G14")
def test_kills_under_load_neither_lose_nor_double_anything(
    fragile: World, background: ThreadPoolExecutor
) -> None:
    project = fragile.tollgate.project(credits=None)
    token = fragile.tollgate.token(project)
    served: list[str] = []
    lock = threading.Lock()

    def answer(seen: object) -> Script:
        with lock:
            served.append("call")
        return json_script(message())

    complete = 0
    for _ in range(2):
        fragile.provider.script = answer
        stop = threading.Event()

        def load(stop: threading.Event = stop) -> int:
            count = 0
            while not stop.is_set():
                count += call_quietly(fragile, token) == 200
            return count

        workers = [background.submit(load) for _ in range(4)]
        reached = len(served) + 60
        wait_until(lambda: len(served) >= reached, what="load")  # noqa: B023
        fragile.process.kill()
        stop.set()
        complete += sum(worker.result() for worker in workers)
        fragile.provider.script = default_script
        fragile.process.start()
    wait_until(
        lambda: fragile.account(project)["held"] == fragile.account(project)["pending"] == 0,
        what="everything being settled and acknowledged",
    )
    events = fragile.tollgate.events_of(project)
    exact = [event for event in events if not event["properties"]["$ai_usage_estimated"]]
    # Calls whose answer arrived are booked exactly, and every call at the provider is booked.
    assert complete <= len(exact)
    assert len(served) <= len(events)
    assert {event["debited_micro"] for event in exact} == {72_000}
    spent = sum(event["debited_micro"] for event in events)
    assert fragile.settled(project)["spent"] == spent
    assert fragile.tollgate.account(project).booked == spent


def test_a_graceful_stop_waits_for_streams(fragile: World, background: ThreadPoolExecutor) -> None:
    project = fragile.tollgate.project(credits=100)
    token = fragile.tollgate.token(project)
    release = threading.Event()
    fragile.provider.script = lambda _: Script(
        200, SSE_HEADERS, messages_stream(), hold_after=4, release=release
    )
    before = len(fragile.provider.requests)

    def read() -> bytes:
        return fragile.post(token, body=messages_body(stream=True)).content

    answer = background.submit(read)
    under_way(fragile, 1, before)
    fragile.process.popen.send_signal(signal.SIGTERM)
    wait_until(lambda: not accepts_connections(fragile.port), what="the port being closed")
    with pytest.raises(subprocess.TimeoutExpired):  # it waits for the stream
        fragile.process.popen.wait(0.5)
    release.set()
    assert answer.result() == b"".join(messages_stream())
    fragile.process.popen.wait(60)
    fragile.process.kill()
    fragile.process.start()
    [event] = fragile.booked(project)
    assert event["properties"]["$ai_usage_estimated"] is False
    assert json.loads(json.dumps(event))["debited_micro"] == 72_000
