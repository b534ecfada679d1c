"""Billing agrees with a model that replays everything, whatever happens in whatever order."""

import random
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from uuid import UUID

import pytest
from django.db import transaction
from django.utils import timezone
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    initialize,
    invariant,
    precondition,
    rule,
    run_state_machine_as_test,
)

from billing.allowances.caps import set_cap
from billing.allowances.grants import grant_credits, void_grant
from billing.allowances.limits import set_limit
from billing.decisions.timeline import load_timelines
from billing.ingestion import quarantine, refunds
from billing.models import CreditGrant, Limit, QuarantinedEvent, UsageEvent
from billing.organizations import create_organization, create_project
from billing.sweep import sweep_due
from billing.verification.projections import differences
from billing.verification.rebuild import rebuild
from quota.caps import in_force
from quota.resources import POSTHOG_CODE_CREDITS as BUCKET
from tests.billing.brute_force import simulate
from tests.billing.world import CREDIT, account_of, book, held, published, usage_event
from tests.examples import examples

amounts = st.integers(0, 30)
RUNS = [UUID(int=number) for number in (1, 2, 3)]
whole_days = st.integers(0, 50)
USERS = ["U0", "U1"]


@dataclass
class Known:
    """An event in the model, with its current cost after refunds."""

    payload: dict
    at: datetime
    micro: int
    project: str
    user: str
    run: UUID


class BillingMachine(RuleBasedStateMachine):
    """One organization with two projects, a gateway, and a clock that only this machine moves."""

    def __init__(self, monkeypatch) -> None:
        super().__init__()
        self.monkeypatch = monkeypatch
        self.now = datetime(2028, 1, 20, 12, tzinfo=UTC)
        self.known: dict[str, Known] = {}
        self.debited = 0
        self.caps: dict[tuple[str, str], int | None] = {}
        self.refunded_runs: set[tuple[str, UUID]] = set()
        self.block = transaction.atomic()
        self.block.__enter__()
        self.tick()

    def teardown(self) -> None:
        transaction.set_rollback(True)
        self.block.__exit__(None, None, None)

    def tick(self, **step) -> None:
        self.now += timedelta(**(step or {"seconds": 1}))
        now = self.now
        self.monkeypatch.setattr(timezone, "now", lambda: now)

    @initialize(limit=st.none() | amounts)
    def begin(self, limit):
        organization = create_organization("Acme")
        self.organization = organization
        self.projects = [create_project(organization, name) for name in ("One", "Two")]
        self.account = account_of(organization, BUCKET)
        if limit is not None:
            set_limit(organization, BUCKET, limit * CREDIT)

    def event(self, credits, days, project):
        event = usage_event(
            self.projects[project],
            f"{credits / 100:.2f}",
            at=self.now - timedelta(days=days),
            properties={"ai_product": "posthog_code", "task_run_id": str(RUNS[days % 3])},
            distinct_id=f"U{project}",
        )
        return held(event, credits * CREDIT) | {
            "account": f"{self.organization.pk}:posthog_code_credits"
        }

    def note(self, event, credits):
        at = datetime.fromisoformat(event["timestamp"])
        project = str(event["properties"]["project_id"] or self.projects[1].pk)
        run = UUID(event["properties"]["task_run_id"])
        micro = 0 if (project, run) in self.refunded_runs else credits * CREDIT
        self.known[event["uuid"]] = Known(event, at, micro, project, event["distinct_id"], run)
        self.debited += credits * CREDIT

    @rule(days=st.integers(0, 40), hours=st.integers(0, 23))
    def time_passes(self, days, hours):
        self.tick(days=days, hours=hours, seconds=1)

    @rule(
        new=st.lists(st.tuples(amounts, whole_days, st.integers(0, 1)), min_size=1, max_size=5),
        again=st.integers(0, 3),
        seed=st.integers(0, 99),
    )
    def events_arrive_some_late_some_again_in_any_order(self, new, again, seed):
        self.tick()
        chance = random.Random(seed)
        fresh = [(self.event(*drawn), drawn[0]) for drawn in new]
        old = [known.payload for known in self.known.values()]
        repeated = chance.sample(old, min(again, len(old)))
        batch = [event for event, _ in fresh] + repeated
        chance.shuffle(batch)

        book(*batch)

        for event, credits in fresh:
            self.note(event, credits)

    @precondition(lambda self: self.known)
    @rule(credits=amounts)
    def another_payload_arrives_under_a_booked_uuid(self, credits):
        self.tick()
        uuid = random.Random(credits).choice(sorted(self.known))
        payload = self.known[uuid].payload | {"distinct_id": f"somebody else {self.now}"}

        [result] = book(payload)

        assert result.status == "conflict"

    @rule(credits=amounts, days=whole_days, booked=st.booleans())
    def an_event_is_set_aside_and_then_decided_about(self, credits, days, booked):
        self.tick()
        event = self.event(credits, days, 0)
        event["properties"]["project_id"] = None
        book(event)
        kept = QuarantinedEvent.objects.get(event_uuid=event["uuid"])
        if booked:
            quarantine.book_now(kept, project=self.projects[1])
            self.note(event, credits)
        else:
            quarantine.discard(kept)
            self.debited += credits * CREDIT

    @precondition(lambda self: any(known.micro for known in self.known.values()))
    @rule(seed=st.integers(0, 99))
    def an_event_is_refunded(self, seed):
        self.tick()
        paid = sorted(uuid for uuid, known in self.known.items() if known.micro)
        uuid = random.Random(seed).choice(paid)

        refunds.refund(UsageEvent.objects.get(pk=uuid))

        self.known[uuid].micro = 0

    @rule(project=st.integers(0, 1), run=st.sampled_from(RUNS))
    def a_run_is_refunded(self, project, run):
        self.tick()
        payer = self.projects[project]

        refunds.refund_run(run, payer, reason="ResultLost")

        if all(refunded != run for _, refunded in self.refunded_runs):
            self.refunded_runs.add((str(payer.pk), run))
        for known in self.known.values():
            if (known.project, known.run) in self.refunded_runs:
                known.micro = 0

    @rule(limit=st.none() | amounts, anchor_day=st.none() | st.integers(1, 31))
    def a_limit_is_set(self, limit, anchor_day):
        self.tick()
        micro = None if limit is None else limit * CREDIT
        set_limit(self.organization, BUCKET, micro, anchor_day=anchor_day)

    @rule(
        credits=st.integers(1, 30),
        starts_in=st.integers(-20, 20),
        lifetime=st.none() | st.integers(1, 40),
        priority=st.integers(0, 2),
    )
    def credits_are_granted(self, credits, starts_in, lifetime, priority):
        self.tick()
        starts_at = self.now + timedelta(days=starts_in)
        expires_at = None if lifetime is None else starts_at + timedelta(days=lifetime)
        if expires_at is not None and expires_at <= self.now:
            return
        grant_credits(
            self.organization,
            BUCKET,
            credits * CREDIT,
            starts_at=starts_at,
            expires_at=expires_at,
            priority=priority,
        )

    @precondition(lambda self: CreditGrant.objects.filter(voided_at=None).exists())
    @rule(seed=st.integers(0, 99))
    def a_grant_is_voided(self, seed):
        self.tick()
        void_grant(random.Random(seed).choice(CreditGrant.objects.filter(voided_at=None)))

    @rule(
        credits=st.none() | amounts,
        scope=st.sampled_from(["project", "user"]),
        whose=st.none() | st.integers(0, 1),
    )
    def a_cap_is_set(self, credits, scope, whose):
        self.tick()
        names = [str(project.pk) for project in self.projects] if scope == "project" else USERS
        subject = "" if whose is None else names[whose]
        micro = None if credits is None else credits * CREDIT
        set_cap(self.organization, BUCKET, scope, micro, subject=subject)
        self.caps[scope, subject] = micro

    @rule()
    def everything_is_rebuilt_from_the_ledger(self):
        self.tick()
        rebuild(self.account.pk)

    @invariant()
    def the_published_state_is_what_the_model_says(self):
        if not hasattr(self, "account"):
            return
        sweep_due()
        timeline = load_timelines([self.account.pk])[self.account.pk]
        expected = simulate(
            self.now,
            timeline.calendars,
            timeline.terms,
            timeline.grants,
            [(known.at, known.micro) for known in self.known.values()],
        )
        state = published(self.organization, BUCKET)

        assert (state.usage_micro or 0) == expected.usage
        assert state.limit_micro == expected.limit
        assert sum(state.booked.values()) == self.debited
        if expected.headroom is None:
            assert (state.limited, state.allotment_micro) == (False, None)
        else:
            assert state.limited == (expected.headroom <= 0)
            assert state.remaining_micro == max(expected.headroom, 0)
            assert state.allotment_micro == expected.headroom + self.debited

    @invariant()
    def what_is_left_of_each_cap_is_what_the_model_says(self):
        if not hasattr(self, "account"):
            return
        sweep_due()
        state = published(self.organization, BUCKET)
        timeline = load_timelines([self.account.pk])[self.account.pk]
        period = timeline.period_at(self.now)
        now = [known for known in self.known.values() if period.start <= known.at < period.end]
        for project, user in zip(self.projects, USERS, strict=True):
            left = {cap.scope: cap.remaining_micro for cap in in_force(state, project.pk, user)}
            for scope, subject in (("project", str(project.pk)), ("user", user)):
                cap = self.caps.get((scope, subject), self.caps.get((scope, "")))
                used = sum(known.micro for known in now if getattr(known, scope) == subject)
                assert left.get(scope) == (None if cap is None else cap - used)
            is_out = left.get("project") is not None and left["project"] <= 0
            assert (str(project.pk) in state.capped_projects) == is_out

    @invariant()
    def totals_and_bookings_are_those_of_the_ledger(self):
        if hasattr(self, "account"):
            assert list(differences(account_of(self.organization, BUCKET))) == []


@pytest.mark.django_db
def test_billing_agrees_with_the_model_after_any_history(monkeypatch):
    run_state_machine_as_test(
        lambda: BillingMachine(monkeypatch),
        settings=settings(max_examples=examples(5), stateful_step_count=20),
    )
    assert not Limit.objects.exists()


@pytest.mark.django_db
def test_the_order_of_arrival_does_not_matter(project, stranger):
    """The same history, delivered twice in shuffled order, gives the same state."""
    now = timezone.now()
    for each in (project, stranger):
        set_limit(each.organization, BUCKET, 40 * CREDIT)
        grant_credits(each.organization, BUCKET, 500 * CREDIT, starts_at=now - timedelta(days=20))
    history = [(number % 7, timedelta(hours=number * 13 % 900)) for number in range(60)]

    def deliver(each, order):
        events = [
            usage_event(
                each,
                f"0.0{cents}",
                at=now - ago,
                properties={"ai_product": "posthog_code"},
                uuid=f"00000000-0000-4000-8000-{each.pk:06d}{number:06d}",
            )
            for number, (cents, ago) in order
        ]
        for at in range(0, len(events), 7):
            book(*events[at : at + 7])

    numbered = list(enumerate(history))
    deliver(project, numbered)
    for seed in (1, 2):
        deliver(stranger, random.Random(seed).sample(numbered, len(numbered)))

    ours, theirs = (published(each.organization, BUCKET) for each in (project, stranger))
    assert ours.usage_micro == theirs.usage_micro
    assert ours.remaining_micro == theirs.remaining_micro
    assert ours.allotment_micro == theirs.allotment_micro
