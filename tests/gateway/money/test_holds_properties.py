"""Holds compared with a brute-force model, in any order of events.

Processes die, answers get lost or come late, events are delivered twice, and Redis falls back to an
earlier state. The real scripts run on a real server; only Django is part of the model.
"""

import asyncio
import itertools
import json
import uuid
from collections import Counter
from dataclasses import dataclass, field
from urllib.parse import quote

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

from gateway import keys
from gateway.money import holds as holds_module
from gateway.money.holds import Holds, Reservation, Settlement
from gateway.money.outbox import Outbox
from gateway.money.reaper import Reaper
from gateway.money.usage_events import CallRecord
from gateway.network.redis_connection import Redis
from gateway.resolver.quota import QuotaResolver
from gateway.resolver.tollgate_api import (
    Caps,
    EventResult,
    QuotaAnswer,
    ResourceAnswer,
    ScopeAnswer,
    TollgateUnavailable,
    TollgateUnusable,
)
from tests.examples import examples

PROJECT, RESOURCE = 7, "ai_credits"
ORGANIZATION = "0b0f7c1e-3f0a-4d52-9a41-2f6b8a5f9d10"
ACCOUNT = f"{ORGANIZATION}:{RESOURCE}"
GROUP = "default:epoch"
AMOUNTS = st.integers(1, 40)
PROJECT_SCOPE, USERS = f"project:{PROJECT}", ("slack:T1:U1", "slack:T1:U 2")
RUNS = (None, "8d1f5a0e-5d8e-4f5c-9a53-0c3a4f7f6b21")
CAPS = st.integers(0, 150)
PAST, FUTURE = "2026-01-01T00:00:00Z", "2126-01-01T00:00:00Z"


def scopes_of(user: str, run: str | None) -> list[str]:
    """Return the scopes within the account that count a call."""
    return [PROJECT_SCOPE, f"user:{user}", *(["run"] if run else [])]


@dataclass
class Ledger:
    """Billing as the protocol requires it, for one account and one group."""

    limit: int | None = 100
    usage_elsewhere: int = 0
    limited: bool = False
    version: int = 1
    events: dict[str, int] = field(default_factory=dict)
    parked: dict[str, int] = field(default_factory=dict)
    users: dict[str, str] = field(default_factory=dict)  # by event
    caps: dict[str, int] = field(default_factory=dict)  # by scope
    caps_version: int = 1
    valid_until: str = FUTURE
    old: set[str] = field(default_factory=set)  # events of earlier periods
    lose_answers: bool = False
    park: bool = False

    @property
    def booked(self) -> int:
        return sum(self.events.values())

    def snapshot(self, user: str = "") -> QuotaAnswer:
        """Return Django's answer. The group's own bookings do not change the allotment."""
        allotment = None
        if self.limit is not None:
            allotment = self.limit - self.usage_elsewhere + self.booked_in(PROJECT_SCOPE, self.old)
        found = ResourceAnswer(
            limited=self.limited,
            credits_per_usd=120,
            account=ACCOUNT,
            version=self.version,
            ledger_epoch="ledger",
            booked_micro=self.booked,
            allotment_micro=allotment,
            valid_until=self.valid_until,
            caps=Caps(
                version=self.caps_version,
                run_micro=self.caps.get("run"),
                users=any(scope.startswith("user:") for scope in self.caps),
                scopes={
                    scope: ScopeAnswer(self.allotted(scope), self.booked_in(scope))
                    for scope in (PROJECT_SCOPE, f"user:{user}")
                    if scope in self.caps
                },
            ),
        )
        return QuotaAnswer(limited={RESOURCE: found}, organization_id=ORGANIZATION)

    def allotted(self, scope: str) -> int:
        """Return what may be spent in a scope in total: the cap, and what earlier periods spent."""
        return self.caps[scope] + (self.booked_in(scope, self.old) if scope != "run" else 0)

    def booked_in(self, scope: str, among: set[str] | None = None) -> int:
        return sum(
            micro
            for uid, micro in self.events.items()
            if scope in (PROJECT_SCOPE, f"user:{self.users[uid]}")
            and (among is None or uid in among)
        )

    # The gateway's interface: two methods of `TollgateApi`.
    answers: list = field(default_factory=list)

    async def quota(self, _project_id: int, _group: str, user: str = "") -> QuotaAnswer:
        return self.answers.pop() if self.answers else self.snapshot(user)

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
                self.caps_version += uid in self.old
                status = "accepted"
            results.append(EventResult(uid, status))
        if self.lose_answers:
            raise TollgateUnavailable("the answer got lost")
        return results


@dataclass
class Held:
    """A hold that was granted: its process, its bound, and its end."""

    hold_id: str
    process: int
    bound: int
    user: str = USERS[0]
    run: str | None = None
    ended: bool = False


class HoldsMachine(RuleBasedStateMachine):
    """Makes events happen in any order."""

    held = Bundle("held")
    redis_url = ""

    @initialize(
        limit=st.one_of(st.none(), st.integers(0, 200)),
        caps=st.dictionaries(
            st.sampled_from([PROJECT_SCOPE, *(f"user:{user}" for user in USERS), "run"]), CAPS
        ),
    )
    def begin(self, limit: int | None, caps: dict[str, int]) -> None:
        self.plain = redis.Redis.from_url(self.redis_url)
        self.plain.flushdb()
        self.loop = asyncio.new_event_loop()
        self.ledger = Ledger(limit=limit, caps=caps)
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
        self.scope_spent: Counter[str] = Counter()
        self.known_caps: dict[str, int] = {}
        self.saved: dict[bytes, bytes] | None = None
        self.fell_back = False
        self.install_newest()

    def process(self) -> Holds:
        return Holds(
            self.redis, lease=60, open_window=60, run_cap_micro=None, requests_per_minute=0
        )

    def run(self, awaitable):
        async def bounded():
            async with asyncio.timeout(60):
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

    @precondition(lambda self: self.ledger.caps)
    @rule(data=st.data(), cap=CAPS)
    def a_cap_changes(self, data: st.DataObject, cap: int) -> None:
        self.ledger.caps[data.draw(st.sampled_from(sorted(self.ledger.caps)))] = cap
        self.ledger.caps_version += 1

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
        self.install()

    def install(self, user: str = "") -> None:
        self.installed = self.run(self.resolver.refresh(PROJECT, user))
        self.note_caps()

    def note_caps(self) -> None:
        self.known_caps = {scope: self.ledger.allotted(scope) for scope in self.ledger.caps}

    @rule()
    def a_period_ends(self) -> None:
        """Until Django decides again, the gateway knows nothing about the next period."""
        self.ledger.valid_until = PAST
        self.ledger.version += 1
        self.install()

    @rule()
    def a_new_period_begins(self) -> None:
        """What was used before, booked or not, no longer counts."""
        self.ledger.valid_until = FUTURE
        self.ledger.old |= self.expected.keys()
        self.ledger.usage_elsewhere = 0
        self.ledger.version += 1
        self.ledger.caps_version += 1

    @rule()
    def two_answers_come_in_the_wrong_order(self) -> None:
        """The earlier question is answered later, and its answer is ignored."""
        early = self.ledger.snapshot()
        arrived = asyncio.Event()

        async def slow(_project_id: int, _group: str, _user: str) -> QuotaAnswer:
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
        self.note_caps()

    @rule()
    def an_older_snapshot_than_before_is_refused(self) -> None:
        """Versions only grow, so it shows a restored database. The next usable answer ends that."""
        outdated = self.ledger.snapshot()
        self.ledger.usage_elsewhere += 1
        self.ledger.version += 1
        self.install()
        self.run(asyncio.sleep(0.002))  # instants are milliseconds
        self.ledger.answers.append(outdated)
        with pytest.raises(TollgateUnusable):
            self.run(self.resolver.refresh(PROJECT))
        self.install()

    @rule(lose=st.booleans(), park=st.booleans())
    def deliver(self, lose: bool, park: bool) -> None:
        self.ledger.lose_answers, self.ledger.park = lose, park
        self.run(self.outbox.step())
        self.ledger.lose_answers = self.ledger.park = False

    # --- calls -----------------------------------------------------------------------------------

    @rule(
        target=held,
        process=st.integers(0, 1),
        bound=AMOUNTS,
        user=st.sampled_from(USERS),
        run=st.sampled_from(RUNS),
    )
    def call(self, process: int, bound: int, user: str, run: str | None) -> Held | None:
        granted = Held(str(uuid.UUID(int=next(self.numbers) + 1)), process, bound, user, run)
        holds = self.processes[process]
        result = self.run(holds.hold(self.reservation(granted)))
        if result.status == "unknown_user":
            self.install(user)
            result = self.run(holds.hold(self.reservation(granted)))
        fits = self.fits(granted)
        if result.status == "held":
            assert fits, "an overrun"
            self.open[granted.hold_id] = granted
            return granted
        assert self.fell_back or not fits, f"a call that fits was refused: {result}"
        granted.ended = True
        return granted

    @rule(call=held)
    def the_same_hold_is_asked_for_again(self, call: Held) -> None:
        """After a lost answer, asking again reserves nothing more."""
        if not call.ended and call.process in self.processes:
            before = self.counters()
            self.run(self.processes[call.process].hold(self.reservation(call)))
            assert self.counters()[1] <= before[1] or self.fell_back

    @rule(call=held, share=st.integers(0, 100))
    def the_call_ends(self, call: Held, share: int) -> None:
        if call.ended:
            return
        call.ended = True
        cost = call.bound * share // 100
        self.open.pop(call.hold_id)
        self.spend(call, cost)
        settlement = self.settlement(call.hold_id, cost)
        self.run(self.processes[call.process].settle(settlement))
        # After a lost answer, settling again changes nothing.
        before = self.counters()
        self.run(self.processes[call.process].settle(settlement))
        assert self.counters() == before or self.fell_back

    @rule(number=st.integers(0, 1))
    def a_process_dies(self, number: int) -> None:
        dead = self.processes[number]
        self.saved = None  # falling back now would lose what only the dead process remembered
        self.plain.zadd(keys.OWNERS, {dead.owner: 0})
        self.run(self.reaper.step())
        self.run(self.reaper.step())
        for call in list(self.open.values()):
            if call.process == number:
                call.ended = True
                self.open.pop(call.hold_id)
                self.spend(call, call.bound)
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
            # After data loss, more may count as spent until the resynchronisation.
            assert spent >= self.model_spent if self.fell_back else spent == self.model_spent

    @invariant()
    def what_is_held_and_spent_counts_in_every_scope(self) -> None:
        """A capped scope counts it; a run always does."""
        if not hasattr(self, "plain"):
            return
        for scope in (*self.ledger.caps, "run"):
            spent, held = self.counters(self.key_of(scope))
            under_way = (call for call in self.open.values() if scope in self.scopes(call))
            assert held == sum(call.bound for call in under_way), scope
            assert (
                spent >= self.scope_spent[scope]
                if self.fell_back
                else (spent == self.scope_spent[scope])
            ), scope

    def spend(self, call: Held, cost: int) -> None:
        self.expected[call.hold_id] = cost
        self.ledger.users[call.hold_id] = call.user
        self.model_spent += cost
        for scope in self.scopes(call):
            self.scope_spent[scope] += cost

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
        assert not self.plain.zcard(keys.RESYNC), "after a loss the ledger is believed, once"
        self.install_newest()
        for _ in range(3):
            self.run(self.outbox.step())
        spent, held = self.counters()
        everything = {**self.ledger.events, **self.ledger.parked}
        assert everything == self.expected, "each hold ends once, with one event"
        assert held == 0
        assert spent == self.ledger.booked + sum(self.ledger.parked.values())

    def counters(self, key: str = keys.account(ACCOUNT)) -> tuple[int, int]:
        spent, held = self.plain.hmget(key, "spent", "held")
        return int(spent or 0), int(held or 0)

    def key_of(self, scope: str) -> str:
        return keys.run(RUNS[1]) if scope == "run" else keys.scope(ACCOUNT, scope)

    def scopes(self, call: Held) -> list[str]:
        """Return the capped scopes that count a call, and its run."""
        return [
            scope
            for scope in scopes_of(call.user, call.run)
            if scope in self.ledger.caps or scope == "run"
        ]

    def fits(self, call: Held) -> bool:
        """Return whether the call fits into the newest installed snapshot, by brute force."""
        found = self.installed.limited[RESOURCE]
        if found.limited or found.valid_until == PAST:
            return False
        for scope in self.scopes(call):
            cap = self.known_caps.get(scope)
            held = sum(one.bound for one in self.open.values() if scope in self.scopes(one))
            if cap is not None and cap - self.scope_spent[scope] - held < call.bound:
                return False
        if found.allotment_micro is None:
            return True
        held = sum(one.bound for one in self.open.values())
        return found.allotment_micro - self.model_spent - held >= call.bound

    def reservation(self, call: Held) -> Reservation:
        hold_id = call.hold_id
        record = CallRecord(
            uuid=hold_id, timestamp="2026-11-23T08:00:00+00:00", distinct_id="d",
            product="slack_app", billable=True, model="m", provider="anthropic", stream=False,
            trace_id="t", organization_id=ORGANIZATION, project_id=PROJECT, task_run_id=None,
            price_version="v", bound_usd="1",
        )  # fmt: skip
        return Reservation(
            hold_id,
            PROJECT,
            RESOURCE,
            ACCOUNT,
            call.bound,
            "digest",
            call.run,
            quote(call.user, safe=":"),
            record.encode(),
        )

    def settlement(self, hold_id: str, cost: int) -> Settlement:
        event = json.dumps({"uuid": hold_id, "debited_micro": cost}).encode()
        return Settlement(hold_id, "hold", cost, event, ACCOUNT, GROUP)


@pytest.fixture
def machine(own_redis: str, patience: None, monkeypatch: pytest.MonkeyPatch) -> type[HoldsMachine]:
    monkeypatch.setattr(holds_module, "REPLAY_GRACE", 0.0)
    monkeypatch.setattr(HoldsMachine, "redis_url", own_redis)
    return HoldsMachine


@pytest.mark.parametrize("again", [False, True], ids=["once", "asked for twice"])
def test_lost_settlements_are_repeated_and_open_holds_restored(
    machine: type[HoldsMachine], again: bool
) -> None:
    """This order of events is seldom found by chance."""
    state = machine()
    state.begin(100, {PROJECT_SCOPE: 50, f"user:{USERS[1]}": 50, "run": 50})
    state.redis_writes_its_state_down()
    ended, still_open = (state.call(0, 20, USERS[1], RUNS[1]) for _ in range(2))
    if again:  # asked for again, and refused because its period is over
        state.a_period_ends()
        state.the_same_hold_is_asked_for_again(still_open)
        state.a_new_period_begins()
        state.install()
    state.the_call_ends(ended, 100)
    state.redis_falls_back_to_it()
    assert state.open.keys() == {still_open.hold_id}
    state.what_is_held_is_what_is_open()
    state.what_is_held_and_spent_counts_in_every_scope()
    state.teardown()


def test_holds_keep_their_properties_in_any_order_of_events(
    machine: type[HoldsMachine],
) -> None:
    run_state_machine_as_test(
        machine,
        settings=settings(
            max_examples=examples(40),
            stateful_step_count=40,
            deadline=None,
            suppress_health_check=list(HealthCheck),
            print_blob=True,
        ),
    )
