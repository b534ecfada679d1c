"""Holds against a brute-force model, in any order of what may happen: processes that die, answers
that get lost or come late, a ledger that is told twice, a Redis that falls back to earlier state.

The real scripts run on a real server; only Django is played by the model.
"""

import asyncio
import itertools
import json
import uuid
from dataclasses import dataclass, field

import pytest
import redis
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    Bundle,
    RuleBasedStateMachine,
    initialize,
    invariant,
    precondition,
    rule,
    run_state_machine_as_test,
)

from gateway import holds as holds_module
from gateway import keys, redis_connection
from gateway.holds import Holds, Reservation, Settlement
from gateway.outbox import Outbox
from gateway.quota_resolver import QuotaResolver
from gateway.reaper import Reaper
from gateway.redis_connection import Redis
from gateway.tollgate_api import EventResult, QuotaAnswer, ResourceAnswer, TollgateUnavailable
from gateway.usage_events import CallRecord

PROJECT, RESOURCE = 7, "ai_credits"
ORGANIZATION = "0b0f7c1e-3f0a-4d52-9a41-2f6b8a5f9d10"
ACCOUNT = f"{ORGANIZATION}:{RESOURCE}"
GROUP = "default:epoch"
AMOUNTS = st.integers(1, 40)


@dataclass
class Ledger:
    """Billing as the protocol wants it, for one account and one group."""

    limit: int | None = 100
    usage_elsewhere: int = 0
    limited: bool = False
    version: int = 1
    events: dict[str, int] = field(default_factory=dict)
    parked: dict[str, int] = field(default_factory=dict)
    lose_answers: bool = False
    park: bool = False

    @property
    def booked(self) -> int:
        return sum(self.events.values())

    def snapshot(self) -> QuotaAnswer:
        """What Django answers: the group's own bookings leave the allotment as it is."""
        allotment = None if self.limit is None else self.limit - self.usage_elsewhere
        found = ResourceAnswer(
            limited=self.limited,
            credits_per_usd=120,
            account=ACCOUNT,
            version=self.version,
            ledger_epoch="ledger",
            booked_micro=self.booked,
            allotment_micro=allotment,
            valid_until="2126-01-01T00:00:00Z",
        )
        return QuotaAnswer(limited={RESOURCE: found}, organization_id=ORGANIZATION)

    # The gateway's view of it: two of the questions of `TollgateApi`.
    answers: list = field(default_factory=list)

    async def quota(self, _project_id: int, _group: str) -> QuotaAnswer:
        return self.answers.pop() if self.answers else self.snapshot()

    async def deliver(self, batch: list) -> list[EventResult]:
        results = []
        for raw in batch:
            event = json.loads(bytes(raw))
            uid, debited = event["uuid"], event["debited_micro"]
            if uid in self.events or uid in self.parked:
                status = "duplicate" if uid in self.events else "quarantined"
            elif self.park:
                self.parked[uid] = debited
                status = "quarantined"
            else:
                self.events[uid] = debited
                self.version += 1
                status = "accepted"
            results.append(EventResult(uid, status))
        if self.lose_answers:
            raise TollgateUnavailable("the answer got lost")
        return results


@dataclass
class Held:
    """A hold that was granted: by whom, how much, and what it came to."""

    hold_id: str
    process: int
    bound: int
    ended: bool = False


class HoldsMachine(RuleBasedStateMachine):
    """Any order of everything that may happen."""

    held = Bundle("held")
    redis_url = ""

    @initialize(limit=st.one_of(st.none(), st.integers(0, 200)))
    def begin(self, limit: int | None) -> None:
        self.plain = redis.Redis.from_url(self.redis_url)
        self.plain.flushdb()
        self.loop = asyncio.new_event_loop()
        self.ledger = Ledger(limit=limit)
        self.numbers = itertools.count()
        self.redis = Redis(self.redis_url)
        self.resolver = QuotaResolver(self.redis, self.ledger)  # type: ignore[arg-type]
        self.outbox = Outbox(self.redis, self.ledger, self.resolver)  # type: ignore[arg-type]
        self.reaper = Reaper(self.redis)
        self.reaper.group = GROUP
        self.plain.set(keys.GROUP_EPOCH, "epoch")
        self.processes = {number: self.process() for number in range(2)}
        self.open: dict[str, Held] = {}
        self.expected: dict[str, int] = {}
        self.installed: QuotaAnswer | None = None
        self.model_spent = 0
        self.saved: dict[bytes, bytes] | None = None
        self.fell_back = False
        self.install_newest()

    def process(self) -> Holds:
        return Holds(
            self.redis, lease=60, open_window=60, run_cap_micro=None, requests_per_minute=0
        )

    def run(self, awaitable):
        async def bounded():
            async with asyncio.timeout(10):
                return await awaitable

        return self.loop.run_until_complete(bounded())

    def teardown(self) -> None:
        if hasattr(self, "loop"):
            try:
                self.at_rest_nothing_is_held_and_what_was_spent_is_booked()
            finally:
                self.redis.close()
                self.run(asyncio.sleep(0))
                self.loop.close()
                self.plain.close()

    # --- Django ----------------------------------------------------------------------------------

    @rule(limit=st.one_of(st.none(), st.integers(0, 300)))
    def the_limit_changes(self, limit: int | None) -> None:
        self.ledger.limit = limit
        self.ledger.version += 1

    @rule(amount=AMOUNTS)
    def somebody_else_uses(self, amount: int) -> None:
        self.ledger.usage_elsewhere += amount
        self.ledger.version += 1

    @rule(limited=st.booleans())
    def the_project_is_limited_or_lifted(self, limited: bool) -> None:
        self.ledger.limited = limited
        self.ledger.version += 1

    @rule()
    def install_newest(self) -> None:
        self.installed = self.run(self.resolver.refresh(PROJECT))

    @rule()
    def two_answers_come_in_the_wrong_order(self) -> None:
        """The earlier question is answered later; its answer is not believed."""
        early = self.ledger.snapshot()
        arrived = asyncio.Event()

        async def slow(_project_id: int, _group: str) -> QuotaAnswer:
            await arrived.wait()
            return early

        async def both() -> QuotaAnswer:
            slow_api = type("Api", (), {"quota": staticmethod(slow)})()
            first = asyncio.create_task(
                QuotaResolver(self.redis, slow_api).refresh(PROJECT)  # type: ignore[arg-type]
            )
            await asyncio.sleep(0.002)
            self.ledger.usage_elsewhere += 1
            self.ledger.version += 1
            newest = await self.resolver.refresh(PROJECT)
            arrived.set()
            await first
            return newest

        self.installed = self.run(both())

    @rule()
    def an_outdated_snapshot_is_not_installed(self) -> None:
        """A lagging answer may come to a late question; the account's version tells."""
        outdated = self.ledger.snapshot()
        self.ledger.usage_elsewhere += 1
        self.ledger.version += 1
        self.installed = self.run(self.resolver.refresh(PROJECT))
        self.ledger.answers.append(outdated)
        self.run(self.resolver.refresh(PROJECT))

    @rule(lose=st.booleans(), park=st.booleans())
    def deliver(self, lose: bool, park: bool) -> None:
        self.ledger.lose_answers, self.ledger.park = lose, park
        self.run(self.outbox.step())
        self.ledger.lose_answers = self.ledger.park = False

    # --- calls -----------------------------------------------------------------------------------

    @rule(target=held, process=st.integers(0, 1), bound=AMOUNTS)
    def call(self, process: int, bound: int) -> Held | None:
        hold_id = str(uuid.UUID(int=next(self.numbers) + 1))
        verdict = self.run(self.processes[process].hold(self.reservation(hold_id, bound)))
        fits = self.fits(bound)
        if verdict.status == "held":
            assert fits, "an overrun"
            granted = Held(hold_id, process, bound)
            self.open[hold_id] = granted
            return granted
        assert self.fell_back or not fits, f"a call that fits was refused: {verdict}"
        return Held(hold_id, process, bound, ended=True)

    @rule(call=held)
    def the_same_hold_is_asked_for_again(self, call: Held) -> None:
        """A lost answer: asking again reserves nothing more."""
        if not call.ended and call.process in self.processes:
            before = self.counters()
            self.run(self.processes[call.process].hold(self.reservation(call.hold_id, call.bound)))
            assert self.counters()[1] <= before[1] or self.fell_back

    @rule(call=held, share=st.integers(0, 100))
    def the_call_ends(self, call: Held, share: int) -> None:
        if call.ended:
            return
        call.ended = True
        cost = call.bound * share // 100
        self.open.pop(call.hold_id)
        self.expected[call.hold_id] = cost
        self.model_spent += cost
        settlement = self.settlement(call.hold_id, cost)
        self.run(self.processes[call.process].settle(settlement))
        # Its answer got lost: settling again changes nothing.
        before = self.counters()
        self.run(self.processes[call.process].settle(settlement))
        assert self.counters() == before or self.fell_back

    @rule(number=st.integers(0, 1))
    def a_process_dies(self, number: int) -> None:
        dead = self.processes[number]
        self.saved = None  # what only a dead process remembers is lost with an earlier Redis
        self.plain.zadd(keys.OWNERS, {dead.owner: 0})
        self.run(self.reaper.step())
        self.run(self.reaper.step())
        for call in list(self.open.values()):
            if call.process == number:
                call.ended = True
                self.open.pop(call.hold_id)
                self.expected[call.hold_id] = call.bound
                self.model_spent += call.bound
        self.processes[number] = self.process()

    # --- Redis -----------------------------------------------------------------------------------

    @rule()
    def redis_writes_its_state_down(self) -> None:
        self.saved = {key: self.plain.dump(key) for key in self.plain.scan_iter()}

    @precondition(lambda self: self.saved is not None)
    @rule()
    def redis_falls_back_to_it(self) -> None:
        self.plain.flushdb()
        for key, value in self.saved.items():
            self.plain.restore(key, 0, value)
        self.fell_back = True
        for process in self.processes.values():
            self.run(process.beat())
        self.finish_replays()
        self.install_newest()

    def finish_replays(self) -> None:
        async def finish() -> None:
            for process in self.processes.values():
                if process._replaying is not None:
                    await process._replaying
                await process.drain()

        self.run(finish())

    # --- what must hold --------------------------------------------------------------------------

    @invariant()
    def what_is_held_is_what_is_open(self) -> None:
        if hasattr(self, "plain"):
            spent, held = self.counters()
            assert held == sum(call.bound for call in self.open.values())
            # After a fall-back more may count as spent until the ledger has told what it booked.
            assert spent >= self.model_spent if self.fell_back else spent == self.model_spent

    def at_rest_nothing_is_held_and_what_was_spent_is_booked(self) -> None:
        self.finish_replays()
        for call in list(self.open.values()):
            self.the_call_ends(call, 50)
        self.finish_replays()
        self.ledger.lose_answers = self.ledger.park = False
        for _ in range(50):
            self.run(self.outbox.step())
            if not self.plain.xlen(keys.EVENTS) and not self.plain.zcard(keys.RESYNC):
                break
        self.install_newest()
        for _ in range(3):
            self.run(self.outbox.step())
        spent, held = self.counters()
        everything = {**self.ledger.events, **self.ledger.parked}
        assert everything == self.expected, "each hold ends once, with one event"
        assert held == 0
        assert spent == self.ledger.booked + sum(self.ledger.parked.values())

    def counters(self) -> tuple[int, int]:
        spent, held = self.plain.hmget(keys.account(ACCOUNT), "spent", "held")
        return int(spent or 0), int(held or 0)

    def fits(self, bound: int) -> bool:
        """Brute force: what the newest installed snapshot leaves, less what is spent and held."""
        found = self.installed.limited[RESOURCE]
        if found.limited:
            return False
        if found.allotment_micro is None:
            return True
        held = sum(call.bound for call in self.open.values())
        return found.allotment_micro - self.model_spent - held >= bound

    def reservation(self, hold_id: str, bound: int) -> Reservation:
        record = CallRecord(
            uuid=hold_id, timestamp="2026-11-23T08:00:00+00:00", distinct_id="d",
            product="slack_app", billable=True, model="m", provider="anthropic", stream=False,
            trace_id="t", organization_id=ORGANIZATION, project_id=PROJECT, task_run_id=None,
            price_version="v", bound_usd="1",
        )  # fmt: skip
        return Reservation(
            hold_id, PROJECT, RESOURCE, ACCOUNT, bound, "digest", None, record.encode()
        )

    def settlement(self, hold_id: str, cost: int) -> Settlement:
        event = json.dumps({"uuid": hold_id, "debited_micro": cost}).encode()
        return Settlement(hold_id, "hold", cost, event, ACCOUNT, GROUP)


def test_holds_keep_their_properties_in_any_order_of_events(
    own_redis: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(holds_module, "REPLAY_GRACE", 0.0)
    monkeypatch.setattr(redis_connection, "CONNECT_TIMEOUT", 30.0)  # the machine may be busy
    monkeypatch.setattr(redis_connection, "ANSWER_TIMEOUT", 30.0)
    monkeypatch.setattr(HoldsMachine, "redis_url", own_redis)
    run_state_machine_as_test(
        HoldsMachine,
        settings=settings(
            max_examples=40,
            stateful_step_count=25,
            deadline=None,
            suppress_health_check=list(HealthCheck),
            print_blob=True,
        ),
    )
