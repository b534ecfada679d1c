"""Single steps of a delivery: what is sent, how long to wait, and what is counted afterwards."""

import asyncio
import json
from collections.abc import Awaitable, Callable, Iterator
from typing import Any

import pytest

from devstack.servers import free_port
from gateway import keys
from gateway import settings as gateway_settings
from gateway.money import outbox as outbox_module
from gateway.money import posthog as posthog_module
from gateway.money.outbox import Outbox
from gateway.money.posthog import PostHogOutbox
from gateway.network.client import Origin
from gateway.network.redis_connection import Redis
from gateway.resolver.quota import QuotaResolver
from gateway.resolver.tollgate_api import TollgateApi
from gateway.settings import PostHog
from gateway.telemetry import metrics
from tests.gateway.fake_tollgate import SERVICE_TOKEN, FakeProject, FakeTollgate
from tests.gateway.money.test_posthog import KEY, FakePostHog

pytestmark = pytest.mark.usefixtures("patience")


@pytest.fixture(scope="module")
def tollgate() -> Iterator[FakeTollgate]:
    with FakeTollgate() as server:
        yield server


@pytest.fixture(scope="module")
def posthog() -> Iterator[FakePostHog]:
    with FakePostHog() as server:
        yield server


Test = Callable[[Redis, Outbox, PostHogOutbox], Awaitable[None]]


@pytest.fixture
def deliver(
    own_redis: str,
    tollgate: FakeTollgate,
    posthog: FakePostHog,
    monkeypatch: pytest.MonkeyPatch,
) -> Iterator[Callable[[Test], None]]:
    """Run a test with a Redis, and with outboxes that deliver from it to the fake servers."""
    monkeypatch.setenv("GATEWAY_SERVICE_TOKEN", SERVICE_TOKEN)
    monkeypatch.setenv("TOLLGATE_URL", tollgate.url)
    settings = gateway_settings.from_environment()

    async def run(test: Test) -> None:
        redis, api = Redis(own_redis), TollgateApi(settings)
        to_posthog = PostHogOutbox(redis, PostHog(posthog.url, KEY, 10))
        await redis.execute("FLUSHALL")
        try:
            await test(redis, Outbox(redis, api, QuotaResolver(redis, api)), to_posthog)
        finally:
            for connected in (to_posthog, api, redis):
                connected.close()
            await asyncio.sleep(0)  # the loop closes their sockets

    yield lambda test: asyncio.run(run(test))
    tollgate.mend()
    posthog.answer = lambda _: 200
    kept = tollgate.event_status, tollgate.booked, tollgate.deliveries, posthog.events
    for remembered in kept:
        remembered.clear()


def account_of(project: FakeProject) -> str:
    return f"{project.organization_id}:ai_credits"


async def wait_for_delivery(
    redis: Redis, project: FakeProject, *uuids: str, size: int = 0, at: int | None = None
) -> None:
    """Append events of one micro-credit each to the streams, at a time in milliseconds."""
    entry = "*" if at is None else f"{at}-0"
    for name in uuids:
        event = {"uuid": name, "account": account_of(project), "debited_micro": 1}
        event |= {"event": "$ai_generation", "timestamp": "t", "distinct_id": "ann"}
        event |= {"properties": {"text": "x" * size, "$ai_total_cost_usd": "5"}}
        data = json.dumps(event)
        account = account_of(project)
        await redis.execute(
            "XADD", keys.EVENTS, entry, "event", data, "account", account, "debited", 1
        )
        await redis.execute("HINCRBY", keys.account(account), "pending", 1)
        await redis.execute("XADD", keys.POSTHOG_EVENTS, "*", "event", data)


def sent(tollgate: FakeTollgate) -> list[str]:
    names, tollgate.deliveries = tollgate.deliveries, []
    return names


def test_a_step_delivers_the_oldest_events_and_says_whether_more_wait(
    deliver, tollgate, monkeypatch
) -> None:
    monkeypatch.setattr(outbox_module, "BATCH", 2)

    async def test(redis: Redis, outbox: Outbox, to_posthog: PostHogOutbox) -> None:
        project = tollgate.project(credits=100)
        assert await outbox.step() == outbox_module.POLL_SECONDS
        await wait_for_delivery(redis, project, "a", "b", "c")
        assert await outbox.step() == 0
        assert metrics.EVENTS_WAITING._value.get() == 3
        assert 0 <= metrics.EVENTS_AGE._value.get() < 60
        assert (sent(tollgate), await redis.execute("XLEN", keys.EVENTS)) == (["a", "b"], 1)
        assert await outbox.step() == outbox_module.POLL_SECONDS
        assert (sent(tollgate), await redis.execute("XLEN", keys.EVENTS)) == (["c"], 0)
        assert await redis.execute("HGET", keys.account(account_of(project)), "pending") == b"0"
        assert not await redis.execute("EXISTS", keys.SET_ASIDE)
        await outbox.step()
        assert metrics.EVENTS_WAITING._value.get() == 0

    deliver(test)


def test_while_billing_is_away_it_is_asked_less_and_less_often(deliver, tollgate) -> None:
    async def test(redis: Redis, outbox: Outbox, to_posthog: PostHogOutbox) -> None:
        await wait_for_delivery(redis, tollgate.project(credits=100), "waits")
        tollgate.fail("events", 503)
        delays = [await outbox.step() for _ in range(8)]
        assert delays == [0.25, 0.5, 1, 2, 4, 8, 15, 15]
        tollgate.mend()
        assert await outbox.step() == outbox_module.POLL_SECONDS
        await wait_for_delivery(redis, tollgate.project(credits=100), "waits too")
        tollgate.fail("events", 503)
        assert await outbox.step() == 0.25, "from the beginning"

    deliver(test)


def test_an_answer_must_have_a_result_for_each_event(deliver, tollgate) -> None:
    async def test(redis: Redis, outbox: Outbox, to_posthog: PostHogOutbox) -> None:
        await wait_for_delivery(redis, tollgate.project(credits=100), "one", "other")
        accepted = {"uuid": "one", "status": "accepted", "reason": None, "version": 1}
        tollgate.fail("events", 200, {"results": [accepted]})
        assert await outbox.step() == 0.25
        assert await redis.execute("XLEN", keys.EVENTS) == 2

    deliver(test)


def test_an_event_that_billing_refuses_alone_is_set_aside(deliver, tollgate) -> None:
    async def test(redis: Redis, outbox: Outbox, to_posthog: PostHogOutbox) -> None:
        project = tollgate.project(credits=100)
        tollgate.event_status |= {"bad": "poison", "odd": "quarantined", "unclear": "perhaps"}
        await wait_for_delivery(redis, project, "a", "odd", "unclear", "b", "bad")
        await outbox.step()
        aside = await redis.execute("XRANGE", keys.SET_ASIDE, "-", "+")
        assert {(fields[1], json.loads(fields[3])["uuid"]) for _, fields in aside} == {
            (b"refused", "bad"), (b"quarantined", "odd"),
        }  # fmt: skip
        assert {"a", "b"} <= tollgate.booked.keys()
        [(_, fields)] = await redis.execute("XRANGE", keys.EVENTS, "-", "+")
        assert json.loads(fields[1])["uuid"] == "unclear", "it is sent again"
        account = keys.account(account_of(project))
        assert await redis.execute("HMGET", account, "pending", "parked") == [b"1", b"2"]

    deliver(test)


@pytest.mark.parametrize(("over", "aside"), [(0, False), (1, True)])
def test_only_an_event_that_is_larger_than_a_batch_is_not_sent(
    deliver, tollgate, posthog, monkeypatch, over, aside
) -> None:
    async def test(redis: Redis, outbox: Outbox, to_posthog: PostHogOutbox) -> None:
        name = f"large {over}"
        await wait_for_delivery(redis, tollgate.project(credits=100), name, size=1_000)
        [(_, fields)] = await redis.execute("XRANGE", keys.EVENTS, "-", "+")
        for module in (outbox_module, posthog_module):
            monkeypatch.setattr(module, "BATCH_BYTES", len(fields[1]) - over)
        await outbox.step()
        await to_posthog.step()
        assert (name in tollgate.booked) is not aside
        assert (name in posthog.events) is not aside
        for stream in (keys.SET_ASIDE, keys.POSTHOG_SET_ASIDE):
            assert await redis.execute("EXISTS", stream) == aside
        for stream in (keys.EVENTS, keys.POSTHOG_EVENTS):
            assert await redis.execute("XLEN", stream) == 0

    deliver(test)


def test_after_a_loss_what_was_spent_is_taken_from_the_ledger_once_older_events_are_there(
    deliver, tollgate
) -> None:
    async def test(redis: Redis, outbox: Outbox, to_posthog: PostHogOutbox) -> None:
        projects = [tollgate.project(credits=100) for _ in range(3)]
        noticed = int((await redis.execute("TIME"))[0]) * 1000
        for project in projects:
            tollgate.account(project).booked = 500
            await redis.execute(
                "HSET", keys.account(account_of(project)), "epoch", tollgate.ledger_epoch,
                "version", 1, "ticket", 1, "spent", 7, "resync", 1,
            )  # fmt: skip
            await redis.execute("ZADD", keys.RESYNC, noticed, project.id)

        async def spent() -> list[bytes]:
            accounts = [keys.account(account_of(project)) for project in projects]
            return [await redis.execute("HGET", account, "spent") for account in accounts]

        await wait_for_delivery(redis, projects[0], "before the loss", at=noticed)
        await wait_for_delivery(redis, projects[0], "after it", at=noticed + 1)
        await outbox.step()
        assert await spent() == [b"7", b"7", b"7"], "not yet"
        await wait_for_delivery(redis, projects[0], "later", at=noticed + 2)
        tollgate.fail("events", 503)
        await outbox.step()
        assert await spent() == [b"503", b"500", b"500"]
        assert not await redis.execute("EXISTS", keys.RESYNC)

    deliver(test)


def test_operators_see_how_long_the_oldest_event_has_waited(deliver, tollgate) -> None:
    async def test(redis: Redis, outbox: Outbox, to_posthog: PostHogOutbox) -> None:
        project = tollgate.project(credits=100)
        now = int((await redis.execute("TIME"))[0]) * 1000
        await wait_for_delivery(redis, project, "old", at=now - 1_000_000)
        await wait_for_delivery(redis, project, "new")
        await outbox.step()
        assert 1_000 <= metrics.EVENTS_AGE._value.get() < 1_060

    deliver(test)


def test_while_posthog_cannot_be_reached_events_wait(deliver, tollgate, monkeypatch) -> None:
    async def test(redis: Redis, outbox: Outbox, to_posthog: PostHogOutbox) -> None:
        await wait_for_delivery(redis, tollgate.project(credits=100), "waits")
        monkeypatch.setattr(to_posthog, "_origin", Origin.of(f"http://127.0.0.1:{free_port()}"))
        assert await to_posthog.step() == posthog_module.FIRST_RETRY
        assert await redis.execute("XLEN", keys.POSTHOG_EVENTS) == 1

    deliver(test)


def test_posthog_gets_what_is_for_people_in_numbers_and_waits_longer_each_time(
    deliver, tollgate, posthog, monkeypatch
) -> None:
    monkeypatch.setattr(posthog_module, "BATCH", 2)

    async def test(redis: Redis, _: Outbox, to_posthog: PostHogOutbox) -> None:
        assert await to_posthog.step() == posthog_module.POLL_SECONDS
        await wait_for_delivery(redis, tollgate.project(credits=100), "a", "b", "c")
        await redis.execute("SET", keys.POSTHOG_LEFT_OUT, 4)
        posthog.answer = lambda _: 503
        delays = [await to_posthog.step() for _ in range(9)]
        assert delays == [0.5, 1, 2, 4, 8, 16, 32, 60, 60]
        assert metrics.POSTHOG_WAITING._value.get() == 3
        assert metrics.POSTHOG_LEFT_OUT._value.get() == 4
        posthog.answer = lambda _: 299
        assert await to_posthog.step() == 0
        posthog.answer = lambda _: 200
        assert await to_posthog.step() == posthog_module.POLL_SECONDS
        assert posthog.events["c"] == {
            "uuid": "c", "event": "$ai_generation", "timestamp": "t", "distinct_id": "ann",
            "properties": {"text": "", "$ai_total_cost_usd": 5},
        }  # fmt: skip
        assert await redis.execute("XLEN", keys.POSTHOG_EVENTS) == 0
        assert not await redis.execute("EXISTS", keys.POSTHOG_SET_ASIDE)
        await wait_for_delivery(redis, tollgate.project(credits=100), "d")
        posthog.answer = lambda _: 503
        assert await to_posthog.step() == 0.5, "from the beginning"

    deliver(test)


@pytest.mark.parametrize(
    ("status", "kept"), [(400, False), (413, False), (422, False), (401, True), (300, True)]
)
def test_posthog_halves_a_refused_batch_and_sets_the_culprit_aside(
    deliver, tollgate, posthog, status, kept
) -> None:
    def answer(batch: list[dict[str, Any]]) -> int:
        return status if "bad" in {event["uuid"] for event in batch} else 200

    async def test(redis: Redis, _: Outbox, to_posthog: PostHogOutbox) -> None:
        posthog.answer, posthog.events = answer, {}
        await wait_for_delivery(redis, tollgate.project(credits=100), "a", "b", "c", "bad")
        await to_posthog.step()
        assert await redis.execute("XLEN", keys.POSTHOG_EVENTS) == (4 if kept else 0)
        assert await redis.execute("XLEN", keys.POSTHOG_SET_ASIDE) == (0 if kept else 1)
        assert set(posthog.events) == (set() if kept else {"a", "b", "c"})

    deliver(test)
