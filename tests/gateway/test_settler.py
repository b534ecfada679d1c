"""On what basis a call is booked, and what its settlement changes in Redis."""

import asyncio
import json
import time
from dataclasses import dataclass
from decimal import Decimal

import msgspec
import pytest

from gateway import keys
from gateway.admission import Admission
from gateway.booking import Ending, Settler, basis_of
from gateway.metering import Meter, meter_for
from gateway.metering.usage import Usage
from gateway.money.prices import Prices
from gateway.money.usage_events import CallRecord, Outcome, event
from gateway.telemetry import metrics
from tests.gateway.fake_provider import message, messages_usage, sse
from tests.gateway.money.test_components import RECORD
from tests.gateway.money.test_holds import ACCOUNT, counters, holds_of, prepared, reservation

pytestmark = pytest.mark.usefixtures("patience")

MODEL = "claude-sonnet-4-5"
PRICES = Prices({})


@dataclass
class Seen:
    """What a meter says about an answer."""

    complete: bool = False
    failed: bool = False
    unreported_output: int = 0
    tools_ran: bool = False
    unreadable: bool = False
    streamed: bool = True
    finished: bool = False


def ending(status: int = 200, **more: bool) -> Ending:
    return Ending(0.0, status=status, **{"sent": True, **more})


@pytest.mark.parametrize(
    ("seen", "end", "expected"),
    [
        (Seen(), ending(0, sent=False), ("reported", "")),
        (Seen(), ending(0), ("bound", "no_answer")),
        (Seen(), ending(0, given_up=True), ("bound", "given_up")),
        (Seen(), ending(199), ("reported", "")),
        (Seen(), ending(300), ("reported", "")),
        (Seen(), ending(529, failed=True), ("reported", "")),
        (Seen(), ending(299), ("text", "usage_missing")),
        (Seen(complete=True), ending(), ("reported", "")),
        (Seen(complete=True), ending(failed=True, given_up=True), ("reported", "")),
        (Seen(), ending(compressed=True), ("bound", "compressed")),
        (Seen(failed=True), ending(), ("reported", "")),
        (Seen(failed=True), ending(compressed=True), ("bound", "compressed")),
        (Seen(failed=True, unreported_output=1), ending(), ("text", "error_after_text")),
        (Seen(failed=True, tools_ran=True), ending(), ("text", "error_after_text")),
        (Seen(failed=True, unreadable=True), ending(), ("text", "error_after_text")),
        (Seen(), ending(given_up=True), ("bound", "given_up")),
        (Seen(failed=True), ending(given_up=True), ("reported", "")),
        (Seen(streamed=False), ending(), ("bound", "broken_off")),
        (Seen(streamed=False, finished=True), ending(), ("bound", "usage_unreadable")),
        (Seen(streamed=False, unreadable=True), ending(), ("bound", "usage_unreadable")),
        (Seen(), ending(failed=True), ("text", "broken_off")),
        (Seen(unreadable=True), ending(failed=True), ("text", "broken_off")),
        (Seen(unreadable=True), ending(), ("text", "usage_unreadable")),
    ],
)
def test_the_basis_of_a_booking_follows_the_table_in_the_docs(
    seen: Seen, end: Ending, expected: tuple[str, str]
) -> None:
    assert basis_of(seen, end) == expected  # type: ignore[arg-type]


def admission(**more) -> Admission:
    record = {**RECORD, "uuid": "call", "model": MODEL, "provider": "anthropic", **more}
    return Admission(
        record=msgspec.convert(record, CallRecord),
        rates=PRICES.rates("anthropic", MODEL),
        account=ACCOUNT if record["billable"] else "",
        credits_per_usd=Decimal(120),
        bound=Decimal(1),
        bound_micro=1_000_000,
        size=100,
    )


def answered() -> Meter:
    """Return a meter that has read a message of 100 tokens in and 20 out, for 600 micro-dollars."""
    meter = meter_for("messages", stream=False, hide_usage=False)
    meter.feed(json.dumps(message(messages_usage())).encode())
    meter.end()
    return meter


COST = 72_000


@pytest.mark.parametrize("billable", [True, False])
def test_a_settlement_debits_the_cost_and_only_a_billable_call_has_a_hold(
    own_redis: str, billable: bool
) -> None:
    async def settle() -> None:
        redis = await prepared(own_redis, 2_000_000)
        holds = holds_of(redis)
        settler = Settler(holds, PRICES)
        settler.group = "group"
        if billable:
            assert (await holds.hold(reservation("call", 1_000_000))).status == "held"
        booked = await settler.settle(admission(billable=billable), answered(), ending())
        assert (booked.cost, booked.estimated, booked.is_error) == (Decimal("0.0006"), False, False)
        assert await counters(redis) == (COST if billable else 0, 0)
        [(_, fields)] = await redis.execute("XRANGE", keys.EVENTS, "-", "+")
        data = json.loads(fields[1])
        assert (data["uuid"], data["debited_micro"], data["group"]) == ("call", COST, "group")
        assert data["account"] == (ACCOUNT if billable else None)
        await settler.settle(admission(billable=billable), answered(), ending())
        assert await counters(redis) == (COST if billable else 0, 0), "once"
        redis.close()

    asyncio.run(settle())


def test_a_call_that_another_process_booked_at_its_bound_is_corrected(own_redis: str) -> None:
    async def settle() -> None:
        redis = await prepared(own_redis, 2_000_000)
        holds = holds_of(redis)
        assert (await holds.hold(reservation("call", 1_000_000))).status == "held"
        await redis.execute("HDEL", keys.holds(holds.owner), "call")
        await redis.execute("ZADD", keys.REAPED, 10**14, "call")
        await redis.execute("HSET", keys.account(ACCOUNT), "spent", 1_000_000, "held", 0)
        await Settler(holds, PRICES).settle(admission(), answered(), ending())
        assert await counters(redis) == (COST, 0)
        [(_, fields)] = await redis.execute("XRANGE", keys.EVENTS, "-", "+")
        assert json.loads(fields[1])["debited_micro"] == COST - 1_000_000
        redis.close()

    asyncio.run(settle())


def test_a_call_that_was_not_made_gives_its_hold_back(own_redis: str) -> None:
    async def release() -> None:
        redis = await prepared(own_redis, 2_000_000)
        holds = holds_of(redis)
        settler = Settler(holds, PRICES)
        assert (await holds.hold(reservation("call", 1_000_000))).status == "held"
        settler.release(admission(billable=False))
        await holds.drain()
        assert await counters(redis) == (0, 1_000_000), "it had no hold"
        settler.release(admission())
        await holds.drain()
        assert await counters(redis) == (0, 0)
        assert await redis.execute("EXISTS", keys.EVENTS) == 0
        redis.close()

    asyncio.run(release())


@pytest.mark.parametrize(
    ("end", "is_error"),
    [(ending(), False), (ending(failed=True), True), (ending(500), True), (ending(199), True)],
)
def test_a_call_without_a_whole_good_answer_is_an_error(end: Ending, is_error: bool) -> None:
    booked = Settler(None, PRICES).outcome(admission(), answered(), end)  # type: ignore[arg-type]
    assert booked.is_error is is_error


def test_a_call_lasts_from_its_beginning_and_costs_nothing_without_a_price() -> None:
    free = msgspec.structs.replace(admission(billable=False), rates=None)
    began = time.perf_counter() - 5
    end = Ending(began, status=200, sent=True)
    booked = Settler(None, PRICES).outcome(free, answered(), end)  # type: ignore[arg-type]
    assert (booked.cost, booked.price_version) == (0, "unknown")
    assert 5 <= booked.latency < 5 + 60


@pytest.mark.parametrize(("billable", "tokens"), [(True, 100), (False, 25)])
def test_input_that_was_not_reported_is_estimated_from_the_size(billable, tokens) -> None:
    """A byte is at least one token, which is a bound. Where nobody pays, the average is better."""
    meter = meter_for("messages", stream=True, hide_usage=False)
    broken = ending(failed=True)
    booked = Settler(None, PRICES).outcome(  # type: ignore[arg-type]
        admission(billable=billable), meter, broken
    )
    assert (booked.estimated, booked.usage.input) == (True, tokens)


@pytest.mark.parametrize(
    ("asked", "reported", "tier", "fast"),
    [
        (Usage(), {}, None, None),
        (Usage(service_tier="priority", fast=True), {}, "priority", True),
        (Usage(service_tier="auto", fast=False), {}, None, None),
        (Usage(service_tier="auto", fast=True), {"service_tier": "batch"}, "batch", True),
        (Usage(service_tier="priority", fast=True), {"speed": "standard"}, "priority", False),
    ],
)
def test_what_was_not_reported_is_as_it_was_asked_for(asked, reported, tier, fast) -> None:
    meter = meter_for("messages", stream=False, hide_usage=False)
    meter.feed(json.dumps(message(messages_usage(service_tier=None) | reported)).encode())
    meter.end()
    wanted = msgspec.structs.replace(admission(), asked=asked)
    booked = Settler(None, PRICES).outcome(wanted, meter, ending())  # type: ignore[arg-type]
    assert (booked.usage.service_tier, booked.usage.fast) == (tier, fast)


class Books:
    """Holds that only take settlements."""

    async def settle(self, _settlement: object) -> None:
        pass


@pytest.mark.parametrize(
    ("bound", "streamed", "overrun", "uncertain", "estimated"),
    [
        (COST, False, 0, 0, 0),
        (COST - 2, False, 2, 0, 0),
        (COST + 2, False, 0, 0, 0),
        (20_000_000, True, 0, 20_000_000 - 39_600, 1),
        (1, True, 39_599, 0, 1),
    ],
)
def test_operators_see_credits_beyond_bounds_and_uncertain_ones(
    caplog: pytest.LogCaptureFixture,
    bound: int,
    streamed: bool,
    overrun: int,
    uncertain: int,
    estimated: int,
) -> None:
    counters = [
        metrics.SETTLED.labels("slack_app"),
        metrics.OVERRUN,
        metrics.UNCERTAIN,
        metrics.ESTIMATED.labels("usage_missing"),
    ]
    before = [counter._value.get() for counter in counters]
    meter = answered()
    if streamed:  # the input was reported, and the region was not
        meter = meter_for("messages", stream=True, hide_usage=False)
        start = {"type": "message_start", "message": message(messages_usage(output_tokens=0))}
        meter.feed(b"".join(sse((None, start))))
    wanted = msgspec.structs.replace(admission(), bound_micro=bound)
    asyncio.run(Settler(Books(), PRICES).settle(wanted, meter, ending()))  # type: ignore[arg-type]
    seen = [counter._value.get() - was for counter, was in zip(counters, before, strict=True)]
    settled = 39_600 if streamed else COST
    expected = [settled / 1e6, overrun / 1e6, uncertain / 1e6, estimated]
    assert seen == pytest.approx(expected, abs=1e-9)
    assert ("cost exceeds its bound" in caplog.text) is (overrun > 0)


@pytest.mark.parametrize(
    ("cost", "text"),
    [("0", "0"), ("0E-7", "0"), ("1E+2", "100"), ("0.10", "0.1"), ("1E-9", "0.000000001")],
)
def test_a_cost_is_written_without_an_exponent(cost: str, text: str) -> None:
    booked = Outcome(Decimal(cost), answered().usage(), 200, False, False, 0.0, "v")
    record = msgspec.convert(RECORD, CallRecord)
    data = json.loads(event(record, booked, account="", group="", debited_micro=0))
    assert data["properties"]["$ai_total_cost_usd"] == text
