"""A PostHog project gets every event, and its failures do not affect billing."""

import json
import threading
import uuid
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse
from starlette.routing import Route

from tests.conftest import wait_until
from tests.gateway.conftest import World, world_of
from tests.gateway.fake_provider import default_script
from tests.gateway.threads import AsgiThread

KEY = "phc_key_of_the_posthog_project"
MOST = 10


class FakePostHog(AsgiThread):
    """PostHog's batch endpoint. `answer` returns the status for each batch."""

    def __init__(self) -> None:
        routes = [Route("/batch/", self._batch, methods=["POST"])]
        super().__init__(Starlette(routes=routes))
        self.events: dict[str, dict[str, Any]] = {}
        self.attempts = 0
        self.sizes: list[int] = []
        self.let_go = threading.Event()
        self.answer: Callable[[list[dict[str, Any]]], int] = lambda _: 200

    async def _batch(self, request: Request) -> JSONResponse:
        self.sizes.append(len(await request.body()))
        body = json.loads(await request.body(), parse_float=str)
        self.attempts += 1
        assert body["api_key"] == KEY
        status = self.answer(body["batch"])
        if status == 200:
            self.events |= {event["uuid"]: event for event in body["batch"]}
        return JSONResponse({"status": 1}, status)


@pytest.fixture(scope="module")
def _watched() -> Iterator[tuple[World, FakePostHog]]:
    with (
        FakePostHog() as posthog,
        world_of(
            POSTHOG_HOST=posthog.url,
            POSTHOG_API_KEY=KEY,
            POSTHOG_MAX_WAITING=str(MOST),
        ) as world,
    ):
        yield world, posthog


@pytest.fixture
def posthog(_watched: tuple[World, FakePostHog]) -> Iterator[FakePostHog]:
    _, posthog = _watched
    yield posthog
    posthog.answer = lambda _: 200
    wait_until(
        lambda: _watched[0].redis.xlen("tollgate:posthog:events") == 0, what="an empty stream"
    )


@pytest.fixture
def watched(_watched: tuple[World, FakePostHog]) -> World:
    world, _ = _watched
    world.provider.script = default_script
    return world


def wait_for_events(world: World, posthog: FakePostHog, uuids: set[str]) -> None:
    wait_until(lambda: uuids <= posthog.events.keys(), what="PostHog having heard")


def test_posthog_gets_every_event_without_billings_own_fields(watched, posthog) -> None:
    project = watched.tollgate.project(credits=100)
    assert watched.post(watched.tollgate.token(project)).status_code == 200
    [event] = watched.booked(project)
    wait_for_events(watched, posthog, {event["uuid"]})
    shown = posthog.events[event["uuid"]]
    assert shown.keys() == {"uuid", "event", "timestamp", "distinct_id", "properties"}
    assert shown["event"] == "$ai_generation"
    # The cost is a number with exactly the digits that billing gets as text.
    latency = {"$ai_latency": str(event["properties"]["$ai_latency"])}
    assert shown["properties"] == event["properties"] | latency
    assert watched.metric("tollgate_gateway_posthog_events_total") > 0


@pytest.mark.parametrize("status", [500, 429, 401, 404])
def test_while_posthog_fails_billing_gets_everything(watched, posthog, status) -> None:
    posthog.answer = lambda _: status
    project = watched.tollgate.project(credits=100)
    token = watched.tollgate.token(project)
    failures = watched.metric("tollgate_gateway_posthog_failures_total")
    for _ in range(3):
        assert watched.post(token).status_code == 200
    uuids = {event["uuid"] for event in watched.booked(project, 3)}
    assert watched.settled(project) == {"spent": 3 * 72_000, "held": 0, "pending": 0}
    wait_until(
        lambda: watched.metric("tollgate_gateway_posthog_failures_total") > failures,
        what="a failure being counted",
    )
    assert not uuids & posthog.events.keys()
    posthog.answer = lambda _: 200
    wait_for_events(watched, posthog, uuids)


def test_a_hanging_posthog_delays_nothing(watched, posthog) -> None:
    hanging = threading.Event()

    def hang(_: object) -> int:
        hanging.set()
        posthog.let_go.wait(60)
        return 200

    posthog.answer = hang
    project = watched.tollgate.project(credits=100)
    token = watched.tollgate.token(project)
    assert watched.post(token).status_code == 200
    assert hanging.wait(60)
    for _ in range(MOST + 5):
        assert watched.post(token).status_code == 200
    events = watched.booked(project, MOST + 6)
    assert watched.settled(project)["spent"] == (MOST + 6) * 72_000
    # No more than `MOST` events wait; those left out are counted.
    assert watched.redis.xlen("tollgate:posthog:events") == MOST
    assert int(watched.redis.get("tollgate:posthog:left-out")) == 6
    posthog.answer = lambda _: 200
    posthog.let_go.set()
    wait_for_events(watched, posthog, {event["uuid"] for event in events[:MOST]})
    wait_until(lambda: watched.metric("tollgate_gateway_posthog_left_out") == 6, what="the metric")


@pytest.mark.parametrize("status", [400, 413])
def test_an_event_that_posthog_refuses_is_set_aside_and_delays_no_other(
    watched, posthog, status
) -> None:
    project = watched.tollgate.project(credits=100)
    token = watched.tollgate.token(project)
    posthog.answer = lambda _: 503
    for _ in range(3):
        assert watched.post(token).status_code == 200
    first, poison, last = (event["uuid"] for event in watched.booked(project, 3))
    posthog.answer = lambda batch: status if poison in [event["uuid"] for event in batch] else 200
    wait_for_events(watched, posthog, {first, last})
    wait_until(
        lambda: poison in str(watched.redis.xrange("tollgate:posthog:set-aside")),
        what="the event being set aside",
    )
    assert poison not in posthog.events
    assert watched.settled(project)["spent"] == 3 * 72_000


def test_a_posthog_batch_is_limited_in_bytes(watched, posthog) -> None:
    posthog.answer = lambda _: 503
    event = {"event": "$ai_generation", "timestamp": "2126-11-23T08:00:00Z", "distinct_id": "d"}
    small, large = [
        [
            {**event, "uuid": str(uuid.uuid4()), "properties": {"text": "x" * size}}
            for _ in range(count)
        ]
        for count, size in ((6, 2_000_000), (1, 6_000_000))
    ]
    for each in small[:3] + large + small[3:]:
        watched.redis.xadd("tollgate:posthog:events", {"event": json.dumps(each)})
    wait_until(lambda: posthog.attempts > 0, what="an attempt")
    posthog.answer = lambda _: 200
    wait_for_events(watched, posthog, {each["uuid"] for each in small})
    assert max(posthog.sizes) < 5_000_000
    assert large[0]["uuid"] in str(watched.redis.xrange("tollgate:posthog:set-aside"))


def test_the_posthog_key_is_never_logged(watched, posthog) -> None:
    posthog.answer = lambda _: 500
    watched.post(watched.tollgate.token(watched.tollgate.project(credits=9)))
    wait_until(lambda: "events wait for PostHog" in watched.log.read_text(), what="the log line")
    assert KEY not in watched.log.read_text()
