"""Holds and data loss, on a real Redis server."""

import asyncio
import json
import shutil
import threading
from collections.abc import Awaitable, Callable, Iterator
from contextlib import suppress
from pathlib import Path
from types import SimpleNamespace
from typing import NamedTuple

import pytest
from msgspec.structs import replace

from devstack.servers import free_port, redis_server
from gateway import background, keys
from gateway.background import Background
from gateway.money import holds as holds_module
from gateway.money.holds import Holds, Reservation, Settlement
from gateway.money.reaper import Reaper
from gateway.money.usage_events import CallRecord
from gateway.network.redis_connection import Redis, RedisError, RedisUnavailable
from tests.conftest import running
from tests.gateway.conftest import Process
from tests.gateway.lossy_redis import LosesAnswers

pytestmark = pytest.mark.usefixtures("patience")

PROJECT, RESOURCE, ACCOUNT = 7, "ai_credits", "organization:ai_credits"
ReplaceSleep = Callable[[Callable[[float], Awaitable[None]]], None]


@pytest.fixture
def replace_sleep(monkeypatch: pytest.MonkeyPatch) -> ReplaceSleep:
    """Return a function that replaces `asyncio.sleep` on this thread, not on those of servers."""
    original, own = asyncio.sleep, threading.get_ident()

    def _replace(replacement: Callable[[float], Awaitable[None]]) -> None:
        def sleep(*arguments: float) -> Awaitable[None]:
            return (replacement if threading.get_ident() == own else original)(*arguments)

        monkeypatch.setattr(asyncio, "sleep", sleep)

    return _replace


async def prepared(url: str, allotment: int | str) -> LosesAnswers:
    """Return a Redis that knows one project and its account."""
    redis = LosesAnswers(url)
    await redis.execute("FLUSHALL")
    now = int((await redis.execute("TIME"))[0]) * 1000
    await redis.execute(
        "HSET", keys.project(PROJECT, RESOURCE), "account", ACCOUNT, "limited", "0",
        "limited_until", "", "asked_at", now, "answer", "{}", "soft", "0",
    )  # fmt: skip
    await redis.execute("HSET", keys.account(ACCOUNT), "allotment", allotment, "valid_until", "")
    await redis.execute("HSET", keys.FEED, "confirmed_at", now)
    return redis


def holds_of(redis: Redis) -> Holds:
    return Holds(redis, lease=60, open_window=60, run_cap_micro=None, requests_per_minute=9)


def reservation(hold_id: str, bound: int) -> Reservation:
    return Reservation(hold_id, PROJECT, RESOURCE, ACCOUNT, bound, "digest", None, "user", b"{}")


async def dumped(redis: Redis) -> list[tuple[bytes, bytes]]:
    """Return all keys of Redis with their values."""
    return [(key, await redis.execute("DUMP", key)) for key in await redis.execute("KEYS", "*")]


async def fall_back_to(redis: Redis, saved: list[tuple[bytes, bytes]]) -> None:
    """Restore this state in Redis, and remove everything else."""
    await redis.execute("FLUSHALL")
    for key, value in saved:
        await redis.execute("RESTORE", key, 0, value)


class Mortal(NamedTuple):
    """A Redis that can be killed and restarted with its files."""

    url: str
    files: Path
    process: Process


@pytest.fixture
def mortal(tmp_path: Path) -> Iterator[Mortal]:
    files, port = tmp_path / "files", free_port()
    process = Process(redis_server("redis", files, port), tmp_path / "log", running)
    process.start()
    yield Mortal(f"redis://127.0.0.1:{port}/0", files, process)
    process.stop()


async def lose_nothing(redis: Redis) -> None:
    """Wait until Redis has written everything to disk, which "everysec" delays."""
    await redis.execute("CONFIG", "SET", "appendfsync", "always")


async def lose_the_connection(redis: Redis) -> None:
    """Wait until the client notices that the server is gone."""
    with suppress(RedisUnavailable):
        await redis.execute("PING")


async def counters(redis: Redis) -> tuple[int, int]:
    """Return the spent and the held amount."""
    spent, held = await redis.execute("HMGET", keys.account(ACCOUNT), "spent", "held")
    return int(spent or 0), int(held or 0)


def test_holds_of_an_unlimited_account_never_exceed_exact_arithmetic(own_redis: str) -> None:
    async def overlap() -> None:
        redis = await prepared(own_redis, "")
        holds = holds_of(redis)
        assert (await holds.hold(reservation("first", 2**52))).status == "held"
        assert (await holds.hold(reservation("second", 1))).status == "excessive"
        assert await counters(redis) == (0, 2**52)
        await redis.execute("HSET", keys.account(ACCOUNT), "held", 5)
        await holds.settle(Settlement("first", "hold", 1, b"{}", ACCOUNT))
        assert await counters(redis) == (1, 0), "less than nothing is held"
        redis.close()

    asyncio.run(overlap())


EVERY_LIMIT = ["account", "project", "user", "run", "run by default"]


async def limited_to(redis: Redis, limit: str, micro: int) -> Holds:
    """Leave this amount within one limit, and plenty within the others."""
    caps = {
        "project": f"1 {10**6} 1 0",
        "user": f"1 {10**6} 0 1",
        "run": f"1 {micro} 0 0",
    }
    if limit in caps:
        await redis.execute("HSET", keys.project(PROJECT, RESOURCE), "caps", caps[limit])
    if limit == "account":
        await redis.execute("HSET", keys.account(ACCOUNT), "allotment", micro)
    await redis.execute("HSET", keys.account(ACCOUNT), "epoch", "ledger")
    for scope in (f"project:{PROJECT}", "user:user"):
        await redis.execute(
            "HSET",
            keys.scope(ACCOUNT, scope),
            "epoch",
            "ledger",
            "version",
            1,
            "allotment",
            micro,
        )
    by_default = micro if limit == "run by default" else 10**6
    return Holds(redis, lease=60, open_window=60, run_cap_micro=by_default, requests_per_minute=9)


@pytest.mark.parametrize("limit", EVERY_LIMIT)
def test_every_limit_admits_its_last_micro_credit_and_not_one_more(
    own_redis: str, limit: str
) -> None:
    refusal = {"account": "short", "project": "project_cap", "user": "user_cap"}

    async def spend() -> None:
        redis = await prepared(own_redis, 10**6)
        holds = await limited_to(redis, limit, 100)

        async def asked(hold_id: str, bound: int) -> tuple[str, int, int]:
            answer = await holds.hold(replace(reservation(hold_id, bound), task_run_id="run"))
            return answer.status, answer.remaining_micro, answer.held_micro

        refused = refusal.get(limit, "run_cap")
        assert await asked("too much", 101) == (refused, 100, 0)
        assert (await asked("a part", 30))[0] == "held"
        assert await asked("more than the rest", 71) == (refused, 70, 30)
        assert (await asked("the rest", 70))[0] == "held"
        assert await asked("one more", 1) == (refused, 0, 100)
        await holds.settle(Settlement("a part", "hold", 10, b"{}", ACCOUNT))
        assert await asked("again too much", 21) == (refused, 20, 70)
        assert (await asked("what was not used", 20))[0] == "held"
        redis.close()

    asyncio.run(spend())


def test_held_never_becomes_negative_in_a_scope(own_redis: str) -> None:
    async def forget() -> None:
        redis = await prepared(own_redis, 1000)
        holds, run = holds_of(redis), keys.run("run")
        wanted = replace(reservation("one", 100), task_run_id="run")
        assert (await holds.hold(wanted)).status == "held"
        await redis.execute("HSET", run, "held", 5)
        await holds.settle(Settlement("one", "hold", 60, b"{}", ACCOUNT))
        assert await redis.execute("HMGET", run, "spent", "held") == [b"60", b"0"]
        redis.close()

    asyncio.run(forget())


def test_the_reaper_books_only_holds_whose_owners_lease_expired(own_redis: str) -> None:
    async def look() -> None:
        redis = await prepared(own_redis, 1000)
        holds, reaper = holds_of(redis), Reaper(redis)
        assert (await holds.hold(reservation("alive", 60))).status == "held"
        await reaper.step()
        assert await counters(redis) == (0, 60)
        assert await redis.execute("EXISTS", keys.EVENTS) == 0
        redis.close()

    asyncio.run(look())


def test_a_beat_renews_the_lease(own_redis: str) -> None:
    async def live() -> None:
        redis = await prepared(own_redis, 1000)
        holds, reaper = holds_of(redis), Reaper(redis)
        assert (await holds.hold(reservation("alive", 60))).status == "held"
        await redis.execute("ZADD", keys.OWNERS, 1, holds.owner)
        await holds.beat()
        await reaper.step()
        assert await counters(redis) == (0, 60)
        redis.close()

    asyncio.run(live())


def test_the_lease_of_an_owner_that_came_back_meanwhile_stays(own_redis: str) -> None:
    async def come_back() -> None:
        redis = await prepared(own_redis, 1000)
        await redis.execute("ZADD", keys.OWNERS, 2000, "back", 1000, "dead")
        for owner in ("back", "dead", "ended by another reaper"):
            await Reaper(redis)._book_holds_of(owner, 1000)
        assert await redis.execute("ZRANGE", keys.OWNERS, 0, -1) == [b"back"]
        redis.close()

    asyncio.run(come_back())


def test_a_hold_says_how_much_of_its_cap_the_run_had_used(own_redis: str) -> None:
    async def use() -> None:
        redis = await prepared(own_redis, 1000)
        holds = await limited_to(redis, "run", 200)
        wanted = replace(reservation("one", 100), task_run_id="run")
        assert (await holds.hold(wanted)).run_percent == 0
        assert (await holds.hold(wanted)).run_percent == -1, "it is held already"
        other = replace(wanted, hold_id="other")
        assert (await holds.hold(other)).run_percent == 50
        assert (await holds.hold(reservation("without a run", 1))).run_percent == -1
        redis.close()

    asyncio.run(use())


def test_only_events_that_nobody_pays_for_are_dropped_while_redis_is_away(
    own_redis: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(holds_module, "MAX_UNPAID_WAITING", 1)

    async def settle() -> None:
        redis = await prepared(own_redis, 1000)
        holds = holds_of(redis)
        redis.away = 4
        waiting = []
        for hold_id, account in (("a", ""), ("b", ""), ("c", ACCOUNT), ("d", ACCOUNT)):
            await holds.settle(Settlement(hold_id, "force", 10, b"{}", account))
            waiting.append(holds.unsettled)
        assert waiting == [1, 1, 2, 3]
        await holds.drain()
        assert await counters(redis) == (20, 0)
        redis.close()

    asyncio.run(settle())


def test_everything_is_lost_after_a_single_change_and_again_at_once(
    own_redis: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(holds_module, "REPLAY_GRACE", 0.0)

    async def lose() -> None:
        redis = await prepared(own_redis, 1000)
        saved = await dumped(redis)
        holds = holds_of(redis)
        await holds.beat()
        assert (await holds.hold(reservation("one", 100))).status == "held"
        generations = []
        for notices in ("a beat", "a hold"):
            await fall_back_to(redis, saved)
            if notices == "a beat":
                await holds.beat()
            else:
                assert (await holds.hold(reservation("early", 1))).status == "rewound"
            assert holds._replaying is not None
            await holds._replaying
            assert await counters(redis) == (0, 100)
            generations.append(await redis.execute("GET", keys.GENERATION))
        assert len({*generations, None}) == 3
        redis.close()

    asyncio.run(lose())


def test_the_second_process_to_notice_a_loss_begins_no_further_generation(
    own_redis: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(holds_module, "REPLAY_GRACE", 0.0)

    async def notice() -> None:
        redis = await prepared(own_redis, 1000)
        holds = holds_of(redis)
        assert (await holds.hold(reservation("one", 100))).status == "held"
        await redis.execute("SET", keys.GENERATION, "begun by another")
        await holds.beat()
        assert holds._replaying is not None
        await holds._replaying
        assert await redis.execute("GET", keys.GENERATION) == b"begun by another"
        redis.close()

    asyncio.run(notice())


def test_no_call_is_admitted_while_other_processes_may_still_repeat(
    own_redis: str, replace_sleep: ReplaceSleep
) -> None:
    gracious = asyncio.Event()

    async def grace(_seconds: float) -> None:
        gracious.set()
        await asyncio.Event().wait()

    async def wait() -> None:
        redis = await prepared(own_redis, 1000)
        saved = await dumped(redis)
        holds = holds_of(redis)
        await holds.beat()
        assert (await holds.hold(reservation("one", 100))).status == "held"
        await fall_back_to(redis, saved)
        replace_sleep(grace)
        await holds.beat()
        assert holds._replaying is not None
        begun = asyncio.create_task(gracious.wait())
        await asyncio.wait([holds._replaying, begun], return_when=asyncio.FIRST_COMPLETED)
        assert begun.done()
        assert await counters(redis) == (0, 100)
        assert (await holds.hold(reservation("early", 1))).status == "rewound"
        holds._replaying.cancel()
        redis.close()

    asyncio.run(wait())


def test_a_process_that_changed_nothing_yet_admits_calls_after_the_next_beat(
    own_redis: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(holds_module, "REPLAY_GRACE", 0.0)

    async def start() -> None:
        redis = await prepared(own_redis, 1000)
        await redis.execute("SET", keys.GENERATION, "begun by another")
        holds = holds_of(redis)
        await holds.beat()
        assert holds._replaying is not None
        await holds._replaying
        assert (await holds.hold(reservation("first", 1))).status == "held"
        redis.close()

    asyncio.run(start())


def test_a_process_notices_that_changes_of_another_one_were_lost(own_redis: str) -> None:
    async def notice() -> None:
        redis = await prepared(own_redis, 1000)
        saved = await dumped(redis)
        idle, other = holds_of(redis), holds_of(redis)
        assert (await other.hold(reservation("one", 100))).status == "held"
        await idle.beat()
        await fall_back_to(redis, saved)
        assert (await idle.hold(reservation("two", 100))).status == "rewound"
        assert idle._replaying is not None
        idle._replaying.cancel()
        redis.close()

    asyncio.run(notice())


def test_spending_of_a_group_that_redis_forgot_is_reported_without_a_debit(
    own_redis: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Billing takes it from what the new group is allotted."""
    monkeypatch.setattr(holds_module, "REPLAY_GRACE", 0.0)

    async def forget() -> None:
        redis = await prepared(own_redis, 1000)
        saved = await dumped(redis)
        holds = holds_of(redis)
        await holds.settle(Settlement("one", "force", 60, b"{}", ACCOUNT, "gateway:former"))
        await fall_back_to(redis, saved)
        await redis.execute("SET", keys.GROUP_EPOCH, "new")
        await holds.beat()
        assert holds._replaying is not None
        await holds._replaying
        assert await counters(redis) == (0, 0)
        [(_, fields)] = await redis.execute("XRANGE", keys.EVENTS, "-", "+")
        assert fields[3] == b""
        redis.close()

    asyncio.run(forget())


def test_a_refusal_says_how_old_the_answer_is_that_it_follows(own_redis: str) -> None:
    async def refuse() -> None:
        redis = await prepared(own_redis, 1000)
        holds, project = holds_of(redis), keys.project(PROJECT, RESOURCE)
        assert await holds.precheck(PROJECT, RESOURCE, "digest") == ("", b"", 0)
        now = int((await redis.execute("TIME"))[0]) * 1000
        await redis.execute("HSET", project, "asked_at", now - 90_000, "limited", 1)
        await redis.execute("HSET", keys.FEED, "confirmed_at", now - 30_000)
        assert await holds.precheck(PROJECT, RESOURCE, "digest") == ("limited", b"{}", 0)
        refusal = await holds.hold(reservation("one", 1))
        assert (refusal.status, refusal.answer) == ("limited", b"{}")
        assert refusal.run_percent == -1
        assert 30_000 <= refusal.age_ms < 90_000 <= refusal.answer_age_ms
        redis.close()

    asyncio.run(refuse())


def test_a_recent_settlement_is_repeated_though_a_beat_came_between(
    own_redis: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Redis may not have written it to its disk yet. The call had no hold that names its caps."""
    monkeypatch.setattr(holds_module, "REPLAY_GRACE", 0.0)

    async def repeat() -> None:
        redis = await prepared(own_redis, 1000)
        await redis.execute("SET", keys.GROUP_EPOCH, "group")
        holds = holds_of(redis)
        await holds.beat()
        saved = await dumped(redis)
        await holds.settle(Settlement("old", "force", 7, b"{}", ACCOUNT, "group"))
        [(_, old)] = holds._remembered
        holds._remembered[0] = (0.0, old)
        await holds.settle(Settlement("recent", "force", 60, b"{}", ACCOUNT, "group"))
        await holds.beat()
        await fall_back_to(redis, saved)
        await holds.beat()
        assert holds._replaying is not None
        await holds._replaying
        assert await counters(redis) == (60, 0), "what Redis wrote long ago is not repeated"
        redis.close()

    asyncio.run(repeat())


def test_the_lease_ends_after_everything_is_settled(own_redis: str) -> None:
    """The reaper would book what is left at its bound."""

    async def retire() -> None:
        redis = await prepared(own_redis, 1000)
        holds, network = holds_of(redis), holds_of(redis)
        network._holds_key = holds._holds_key
        assert (await holds.hold(reservation("one", 100))).status == "held"
        assert (await network.hold(reservation("stray", 7))).status == "held"
        redis.away = 2  # the settlement, and its first retry
        await holds.settle(Settlement("one", "hold", 60, b"{}", ACCOUNT))
        await holds.retire()
        assert (await counters(redis), holds.unsettled) == ((60, 0), 0)
        assert (await network.hold(reservation("stray", 7))).status == "held"
        redis.away = 1  # the release
        await holds.retire()
        assert (await counters(redis), holds.unsettled) == ((60, 0), 0)
        redis.close()

    asyncio.run(retire())


def record_of(hold_id: str) -> bytes:
    return CallRecord(
        uuid=hold_id, timestamp="2026-11-23T08:00:00+00:00", distinct_id="d",
        product="slack_app", billable=True, model="m", provider="anthropic", stream=False,
        trace_id="t", organization_id="organization", project_id=PROJECT, task_run_id=None,
        price_version="v", bound_usd="0.5",
    ).encode()  # fmt: skip


def test_a_dead_process_pays_the_bound_of_its_holds_until_it_corrects_them(own_redis: str) -> None:
    def corrected() -> Settlement:
        return Settlement("correction", "force", -40, b"{}", ACCOUNT, "group")

    async def die_and_come_back() -> None:
        redis = await prepared(own_redis, 1000)
        holds, reaper = holds_of(redis), Reaper(redis)
        reaper.group = "group"
        for hold_id, bound in (("one", 100), ("given up", 30)):
            wanted = replace(reservation(hold_id, bound), record=record_of(hold_id))
            assert (await holds.hold(wanted)).status == "held"
        seconds = int((await redis.execute("TIME"))[0])
        await redis.execute("ZADD", keys.OWNERS, (seconds - 1) * 1000, holds.owner)
        await redis.execute("ZADD", keys.REAPED, 1, "long ago")
        assert await reaper.step() == 1.0
        assert await counters(redis) == (130, 0)
        assert await redis.execute("EXISTS", keys.OWNERS) == 0
        assert await redis.execute("PTTL", keys.settled(holds.owner)) > 60_000
        assert sorted(await redis.execute("ZRANGE", keys.REAPED, 0, -1)) == [b"given up", b"one"]
        entries = await redis.execute("XRANGE", keys.EVENTS, "-", "+")
        events = {
            event["uuid"]: event for event in (json.loads(fields[1]) for _, fields in entries)
        }
        assert events.keys() == {"one", "given up"}
        event = events["one"]
        assert (event["debited_micro"], event["account"], event["group"]) == (100, ACCOUNT, "group")
        properties = event["properties"]
        assert properties["$ai_total_cost_usd"] == "0.5"
        assert properties["$ai_usage_estimated"] is True
        assert (properties["$ai_input_tokens"], properties["$ai_output_tokens"]) == (0, 0)
        await holds.settle(Settlement("one", "hold", 60, b"{}", ACCOUNT, "group", corrected))
        assert await counters(redis) == (90, 0)
        await holds.settle(Settlement("given up", "release", 0, b"", correct=corrected))
        assert await counters(redis) == (90, 0), "a call that was not made corrects nothing"
        assert await redis.execute("XLEN", keys.EVENTS) == 3
        redis.close()

    asyncio.run(die_and_come_back())


def test_a_settlement_notices_that_redis_fell_back(
    own_redis: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(holds_module, "REPLAY_GRACE", 0.0)

    async def fall_back() -> None:
        redis = await prepared(own_redis, 1000)
        await redis.execute("SET", keys.GROUP_EPOCH, "group")
        holds = holds_of(redis)
        await holds.beat()
        assert (await holds.hold(reservation("one", 100))).status == "held"
        saved = await dumped(redis)
        assert (await holds.hold(reservation("lost", 100))).status == "held"
        await holds.settle(Settlement("lost", "hold", 30, b"{}", ACCOUNT, "group"))
        await fall_back_to(redis, saved)
        await holds.settle(Settlement("one", "hold", 60, b"{}", ACCOUNT, "group"))
        assert holds._replaying is not None
        await holds._replaying
        await holds.drain()
        assert await counters(redis) == (90, 0)
        redis.close()

    asyncio.run(fall_back())


def test_a_settlement_that_redis_refuses_does_not_keep_others_waiting(
    own_redis: str, replace_sleep: ReplaceSleep
) -> None:
    sleep, delays, refusals = asyncio.sleep, [], [True, True]

    async def soon(seconds: float) -> None:
        delays.append(seconds)
        await sleep(0)

    class Refuses(LosesAnswers):
        async def run(self, script, keys, *arguments):
            if "refused" in arguments and script.name == "settle" and refusals:
                refusals.pop()
                raise RedisError("ERR not now")
            return await super().run(script, keys, *arguments)

    replace_sleep(soon)

    async def settle() -> None:
        (await prepared(own_redis, 1000)).close()
        redis = Refuses(own_redis)
        holds = holds_of(redis)
        for hold_id in ("refused", "one"):
            assert (await holds.hold(reservation(hold_id, 100))).status == "held"
        await holds.settle(Settlement("refused", "hold", 60, b"{}", ACCOUNT))
        redis.away = 1
        await holds.settle(Settlement("one", "hold", 5, b"{}", ACCOUNT))
        await holds.drain()
        assert (await counters(redis), holds.unsettled) == ((65, 0), 0)
        events = await redis.execute("XRANGE", keys.EVENTS, "-", "+")
        assert [fields[5] for _, fields in events] == [b"5", b"60"], "the other came first"
        assert 2.0 in delays
        redis.close()

    asyncio.run(settle())


def test_redis_is_asked_less_and_less_often_while_it_does_not_answer(
    own_redis: str, replace_sleep: ReplaceSleep
) -> None:
    sleep, pauses = asyncio.sleep, []

    async def soon(seconds: float) -> None:
        pauses.append(seconds)
        await sleep(0)

    replace_sleep(soon)

    async def settle() -> None:
        redis = await prepared(own_redis, 1000)
        holds = holds_of(redis)
        assert (await holds.hold(reservation("one", 100))).status == "held"
        redis.away = 8  # the settlement, and seven retries
        await holds.settle(Settlement("one", "hold", 60, b"{}", ACCOUNT))
        await holds.drain()
        assert (await counters(redis), holds.unsettled) == ((60, 0), 0)
        assert pauses == [0.05, 0.1, 0.2, 0.4, 0.8, 1.6, 2.0]
        redis.close()

    asyncio.run(settle())


@pytest.mark.parametrize("noticing", ["whose changes were lost", "that made no change"])
def test_after_data_loss_nobody_is_admitted_before_every_process_had_time_to_replay(
    own_redis: str, monkeypatch: pytest.MonkeyPatch, noticing: str
) -> None:
    monkeypatch.setattr(holds_module, "REPLAY_GRACE", 0.05)

    async def fall_back() -> None:
        redis = await prepared(own_redis, 100)
        await redis.execute("SET", keys.GROUP_EPOCH, "group")
        one, other = holds_of(redis), holds_of(redis)
        await one.beat()
        await other.beat()
        saved = await dumped(redis)
        assert (await one.hold(reservation("spent", 60))).status == "held"
        await one.settle(Settlement("spent", "hold", 60, b"{}", ACCOUNT, "group"))
        await fall_back_to(redis, saved)
        if noticing == "that made no change":
            # It learns of the loss from the process that noticed first.
            await one.beat()
            while not await redis.execute("EXISTS", keys.GENERATION):
                pass
            asker = other
        else:
            asker = one
        assert (await asker.hold(reservation("early", 50))).status == "rewound"
        for each in (one, other):
            await each.beat()
            await asyncio.gather(*filter(None, [each._replaying]))
        assert (await other.hold(reservation("too much", 50))).status == "short"
        assert (await one.hold(reservation("fits", 40))).status == "held"
        assert await counters(redis) == (60, 40)
        redis.close()

    asyncio.run(fall_back())


def test_a_settlement_repeated_late_is_debited_once(
    own_redis: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(holds_module, "MARK_MS", 0)

    def corrected() -> Settlement:
        return Settlement("correction", "force", -40, b"{}", ACCOUNT, "group")

    async def repeat() -> None:
        redis = await prepared(own_redis, 1000)
        holds = holds_of(redis)
        assert (await holds.hold(reservation("late", 100))).status == "held"
        redis.deaf = True
        await holds.settle(Settlement("late", "hold", 60, b"{}", ACCOUNT, "group", corrected))
        assert (await counters(redis), holds.unsettled) == ((60, 0), 1)
        await holds.beat()  # must not forget the settled id yet
        expires = await redis.execute("PTTL", keys.settled(holds.owner))
        assert expires > 0, "it is forgotten some time after this process is gone"
        redis.deaf = False
        await holds.drain()
        assert await counters(redis) == (60, 0)
        assert await redis.execute("XLEN", keys.EVENTS) == 1
        await holds.beat()
        assert await redis.execute("EXISTS", keys.settled(holds.owner)) == 0, "nothing stays"
        redis.close()

    asyncio.run(repeat())


@pytest.mark.parametrize("hold", ["lost", "reaped"])
def test_a_settlement_of_several_steps_counts_in_its_run_though_redis_is_away_between(
    own_redis: str, hold: str
) -> None:
    run, answered = keys.run("run"), [True, False]

    def corrected() -> Settlement:
        return Settlement("correction", "force", -40, b"{}", ACCOUNT, "group")

    class AwayBetween(LosesAnswers):
        async def run(self, script, keys, *arguments):
            if script.name == "settle" and answered and not answered.pop(0):
                raise RedisUnavailable("nobody is there")
            return await super().run(script, keys, *arguments)

    async def settle() -> None:
        (await prepared(own_redis, 1000)).close()
        redis = AwayBetween(own_redis)
        holds = holds_of(redis)
        wanted = replace(reservation("one", 100), task_run_id="run", record=record_of("one"))
        assert (await holds.hold(wanted)).status == "held"
        if hold == "lost":
            await redis.execute("DEL", keys.holds(holds.owner))
        else:
            answered.insert(0, True)
            await redis.execute("ZADD", keys.OWNERS, 1, holds.owner)
            await Reaper(redis).step()
        await holds.settle(Settlement("one", "hold", 60, b"{}", ACCOUNT, "group", corrected))
        await holds.drain()
        assert not answered
        assert (await counters(redis))[0] == 60
        assert await redis.execute("HGET", run, "spent") == b"60"
        redis.close()

    asyncio.run(settle())


def test_a_hold_that_redis_makes_after_its_release_is_released(own_redis: str) -> None:
    """A command may be delivered after its connection broke, when the network is back."""

    async def arrive_late() -> None:
        redis = await prepared(own_redis, 1000)
        holds, network = holds_of(redis), holds_of(redis)
        network._holds_key = holds._holds_key
        assert (await holds.hold(reservation("under way", 30))).status == "held"
        redis.away = 1
        with pytest.raises(RedisUnavailable):
            await holds.hold(reservation("late", 100))
        await holds.drain()
        assert (await network.hold(reservation("late", 100))).status == "held"
        assert await counters(redis) == (0, 130)
        await holds.beat()
        await holds.drain()
        assert await counters(redis) == (0, 30)
        redis.close()

    asyncio.run(arrive_late())


def test_a_process_that_stops_leaves_no_settlement_behind(
    own_redis: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Holds that are left would be booked at their bounds."""
    monkeypatch.setattr(background, "STOP_SECONDS", 60.0)

    async def stop() -> None:
        redis = await prepared(own_redis, 1000)
        holds, idle = holds_of(redis), SimpleNamespace(step=None)
        process = Background(
            SimpleNamespace(group="group"), redis, None, None, holds, None, idle, idle, idle, None
        )  # fmt: skip
        assert (await holds.hold(reservation("one", 100))).status == "held"
        network = holds_of(redis)
        network._holds_key = holds._holds_key
        assert (await network.hold(reservation("released before it was made", 7))).status == "held"
        redis.away = 2  # the settlement, and its first retry
        await holds.settle(Settlement("one", "hold", 60, b"{}", ACCOUNT))
        assert (await counters(redis), holds.unsettled) == ((0, 107), 1)
        await process.stop()
        assert (await counters(redis), holds.unsettled) == ((60, 0), 0)
        assert await redis.execute("XLEN", keys.EVENTS) == 1
        assert await redis.execute("ZSCORE", keys.OWNERS, holds.owner) == b"0"
        redis.close()

    asyncio.run(stop())


def test_a_hold_that_is_left_when_its_process_stops_is_booked_at_its_bound(own_redis: str) -> None:
    async def stop() -> None:
        redis = await prepared(own_redis, 1000)
        holds = holds_of(redis)
        await holds.beat()
        wanted = replace(reservation("under way", 100), record=record_of("under way"))
        assert (await holds.hold(wanted)).status == "held"
        await holds.retire()
        await Reaper(redis).step()
        assert await counters(redis) == (100, 0)
        assert await redis.execute("EXISTS", keys.OWNERS) == 0
        redis.close()

    asyncio.run(stop())


def test_lost_settlements_are_repeated_even_if_the_sequence_caught_up(
    mortal: Mortal, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(holds_module, "REMEMBERED_SECONDS", 0)
    monkeypatch.setattr(holds_module, "REPLAY_GRACE", 0.05)
    as_they_were = tmp_path / "as-they-were"

    async def come_back() -> None:
        redis = await prepared(mortal.url, 1000)
        await lose_nothing(redis)
        await redis.execute("SET", keys.GROUP_EPOCH, "group")
        holds = holds_of(redis)
        await holds.beat()
        for hold_id in ("lost", "under way"):
            assert (await holds.hold(reservation(hold_id, 100))).status == "held"
        shutil.copytree(mortal.files, as_they_were)
        await holds.settle(Settlement("lost", "hold", 30, b"{}", ACCOUNT, "group"))
        mortal.process.kill()
        shutil.rmtree(mortal.files)
        as_they_were.rename(mortal.files)
        mortal.process.start()
        await lose_the_connection(redis)
        await holds.settle(Settlement("under way", "hold", 60, b"{}", ACCOUNT, "group"))
        await holds.beat()
        assert holds._replaying is not None
        await holds._replaying
        assert await counters(redis) == (90, 0)
        assert await redis.execute("XLEN", keys.EVENTS) == 2
        await holds.beat()
        assert not holds._remembered, "Redis has it for good"
        redis.close()

    asyncio.run(come_back())


def test_a_restarted_redis_admits_nothing_before_the_replay(
    mortal: Mortal, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(holds_module, "REPLAY_GRACE", 0.05)

    async def come_back() -> None:
        redis = await prepared(mortal.url, 1000)
        await lose_nothing(redis)
        holds = holds_of(redis)
        await holds.beat()
        assert (await holds.hold(reservation("before", 100))).status == "held"
        mortal.process.kill()
        mortal.process.start()
        await lose_the_connection(redis)
        assert (await holds.hold(reservation("at once", 100))).status == "rewound"
        assert holds._replaying is not None
        await holds._replaying
        await holds.drain()
        assert await counters(redis) == (0, 100)
        assert (await holds.hold(reservation("again", 100))).status == "held"
        redis.close()

    asyncio.run(come_back())


def test_settlements_that_redis_kept_are_not_repeated_after_an_outage(
    own_redis: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(holds_module, "MARK_MS", 0)
    monkeypatch.setattr(holds_module, "REPLAY_GRACE", 0.05)

    async def come_back() -> None:
        redis = await prepared(own_redis, 1000)
        await redis.execute("SET", keys.GROUP_EPOCH, "group")
        holds = holds_of(redis)
        await holds.beat()
        assert (await holds.hold(reservation("kept", 100))).status == "held"
        await holds.settle(Settlement("kept", "hold", 60, b"{}", ACCOUNT, "group"))
        saved = await dumped(redis)
        assert (await holds.hold(reservation("lost", 100))).status == "held"
        await holds.settle(Settlement("lost", "hold", 30, b"{}", ACCOUNT, "group"))
        await fall_back_to(redis, saved)
        await holds.beat()
        assert holds._replaying is not None
        await holds._replaying
        assert await counters(redis) == (90, 0)
        assert await redis.execute("XLEN", keys.EVENTS) == 2
        redis.close()

    asyncio.run(come_back())


def test_a_cancelled_settlement_is_made_in_the_background(own_redis: str) -> None:
    async def cancel() -> None:
        redis = await prepared(own_redis, 1000)
        holds = holds_of(redis)
        assert (await holds.hold(reservation("one", 100))).status == "held"
        redis.close()
        redis._connection = None  # sends nothing before the cancellation
        settling = asyncio.create_task(holds.settle(Settlement("one", "hold", 60, b"{}", ACCOUNT)))
        await asyncio.sleep(0)
        settling.cancel()
        with pytest.raises(asyncio.CancelledError):
            await settling
        await holds.drain()
        assert await counters(redis) == (60, 0)
        redis.close()

    asyncio.run(cancel())
