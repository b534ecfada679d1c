"""No more calls pass than credits allow, over any number of processes."""

import threading
import time
from collections.abc import Callable, Iterator

import httpx
import psutil
import pytest

from tests.conftest import wait_until
from tests.gateway.conftest import DENIED, World, world_of
from tests.gateway.fake_provider import Script, json_script, message

FIT = 10


@pytest.fixture(scope="module")
def crowd() -> Iterator[World]:
    """A gateway of two processes."""
    with world_of(
        GATEWAY_PROCESSES="2",
        GATEWAY_RUN_CAP_CREDITS="0.5",
        GATEWAY_REQUESTS_PER_MINUTE="100",
        GATEWAY_MAX_CONCURRENT="200",
    ) as world:
        yield world


def gated(gate: threading.Event) -> Callable[[object], Script]:
    """Return a provider script that answers when the gate opens."""

    def script(_: object) -> Script:
        answer = json_script(message())
        answer.gate = gate
        return answer

    return script


def bound_of_one_call(world: World) -> int:
    """Return what one call with `messages_body` reserves, in micro-credits."""
    project = world.tollgate.project()
    gate, before = threading.Event(), len(world.provider.requests)
    world.provider.script = gated(gate)
    thread = threading.Thread(target=world.post_at_once, args=[world.tollgate.token(project), 1])
    thread.start()
    wait_until(lambda: len(world.provider.requests) > before, what="the call being under way")
    held = world.account(project)["held"]
    gate.set()
    thread.join()
    return held


def test_exactly_as_many_concurrent_calls_pass_as_credits_allow(world: World) -> None:
    bound = bound_of_one_call(world)
    project = world.tollgate.project(credits=FIT * bound / 1_000_000)
    token = world.tollgate.token(project)
    gate, before = threading.Event(), len(world.provider.requests)
    world.provider.script = gated(gate)
    refusals = "tollgate_gateway_refusals_total"
    refused_before = world.metric(refusals)
    statuses: list[int] = []
    thread = threading.Thread(target=lambda: statuses.extend(world.post_at_once(token, 200)))
    thread.start()
    wait_until(
        lambda: world.metric(refusals) - refused_before == 200 - FIT,
        what="all being decided",
    )
    wait_until(
        lambda: len(world.provider.requests) == before + FIT, what="the others being under way"
    )
    assert world.account(project)["held"] == FIT * bound
    gate.set()
    thread.join()
    assert sorted(statuses) == [200] * FIT + [429] * (200 - FIT)
    assert world.booked(project, FIT)
    assert world.settled(project) == {"spent": FIT * 72_000, "held": 0, "pending": 0}


def test_two_processes_share_what_is_left_and_retries_use_it_up(
    crowd: World,
) -> None:
    project = crowd.tollgate.project(credits=1.5)
    tokens = [crowd.tollgate.token(project) for _ in range(12)]
    passed = 0
    for _ in range(6):
        for token in tokens:
            passed += crowd.post(token).status_code == 200
            assert crowd.account(project)["spent"] <= 1_500_000
    left = 1_500_000 - passed * 72_000
    assert 0 <= left < 400_000, "calls that fit were refused"
    assert crowd.settled(project) == {"spent": passed * 72_000, "held": 0, "pending": 0}
    assert len(crowd.booked(project, passed)) == passed
    wait_until(  # each process flushes its metrics a few times a second
        lambda: crowd.metric("tollgate_gateway_requests_total") >= 12 * 6,
        what="the metrics of both processes, joined",
    )


def test_a_run_has_its_own_cap(crowd: World) -> None:
    project = crowd.tollgate.project(credits=None)
    token = crowd.tollgate.token(project)
    statuses = [crowd.post(token).status_code for _ in range(10)]
    assert statuses[0] == 200
    refused = crowd.post(token)
    assert refused.status_code == DENIED
    error = refused.json()["error"]
    assert (error["reason"], error["cause"]) == ("run_cap", "gateway_run_cap_reached")
    assert refused.headers["x-should-retry"] == "false"
    assert statuses.count(200) * 72_000 <= 500_000
    other_run = crowd.tollgate.token(project)
    assert crowd.post(other_run).status_code == 200


@pytest.mark.parametrize(
    ("of_the_team", "cause"), [(0.4, "run_cap_reached"), (0.6, "gateway_run_cap_reached")]
)
def test_the_smaller_cap_of_a_run_applies_and_the_refusal_names_its_owner(
    crowd: World, of_the_team: float, cause: str
) -> None:
    project = crowd.tollgate.project(credits=None)
    crowd.tollgate.cap(project, "run", of_the_team)
    token = crowd.tollgate.token(project)
    answers = (crowd.post(token) for _ in range(1000))
    answer = next(answer for answer in answers if answer.status_code != 200)
    assert answer.json()["error"]["cause"] == cause
    assert crowd.account(project)["spent"] <= min(of_the_team, 0.5) * 1_000_000


def test_a_token_has_limited_requests_per_minute(crowd: World) -> None:
    project = crowd.tollgate.project(credits=None, resource="posthog_code_credits")
    token = crowd.tollgate.token(project, "posthog_code")
    path = "/posthog_code/v1/messages"
    began = time.monotonic()
    statuses = crowd.post_at_once(token, 120, path)
    assert set(statuses) <= {200, 429}
    passed = statuses.count(200)
    while passed < 1000 and (refused := crowd.post(token, path)).status_code == 200:
        passed += 1  # the bucket has refilled a little meanwhile
    assert 100 <= passed <= 101 + (time.monotonic() - began) * 100 / 60
    assert refused.json()["error"]["reason"] == "requests_per_minute"
    assert int(refused.headers["retry-after"]) >= 1
    assert "x-should-retry" not in refused.headers


def test_a_process_that_dies_is_replaced(crowd: World) -> None:
    project = crowd.tollgate.project(credits=None, resource="posthog_code_credits")
    workers = [
        child
        for child in psutil.Process(crowd.process.popen.pid).children(recursive=True)
        if "spawn_main" in " ".join(child.cmdline())
    ]
    assert len(workers) == 2
    before = set(crowd.redis.zrange("tollgate:owners", 0, -1))
    workers[0].kill()

    def answered() -> bool:
        token = crowd.tollgate.token(project, "posthog_code")
        try:
            return crowd.post(token, "/posthog_code/v1/messages").status_code == 200
        except httpx.HTTPError:
            return False

    wait_until(answered, what="calls being answered")
    wait_until(
        lambda: set(crowd.redis.zrange("tollgate:owners", 0, -1)) - before,
        what="a new process",
    )
