"""Limits and grants take effect in the transaction that sets them, and leave an audit entry."""

from datetime import UTC, datetime, timedelta

import pytest
from django.utils import timezone

from billing.allowances.grants import LONGEST_KEY, check_times, grant_credits, void_grant
from billing.allowances.limits import set_limit
from billing.credits import MAXIMUM_MICRO
from billing.decisions.decision import FAR_FUTURE
from billing.decisions.running_totals import ledger_sum
from billing.ingestion.refunds import refund
from billing.models import (
    Account,
    AuditEntry,
    CreditGrant,
    DecisionRecord,
    Limit,
    ThresholdNotice,
    UsageEvent,
    UsageTotal,
)
from billing.organizations import create_organization, set_organization_active
from billing.sweep import sweep_due
from billing.verification.audit_faults import audit_trail_faults
from quota import gate
from quota.resources import AI_CREDITS, POSTHOG_CODE_CREDITS
from tests.billing.world import CREDIT, account_of, book, published, usage_event, used

pytestmark = pytest.mark.django_db


@pytest.fixture
def exhausted(project):
    """A project whose organization has used exactly its limit, with weeks left in the period."""
    set_limit(project.organization, AI_CREDITS, 12 * CREDIT, anchor_day=timezone.now().day)
    book(usage_event(project))
    assert published(project.organization).limited
    return project


def test_a_top_up_lifts_the_limit(exhausted):
    grant_credits(exhausted.organization, AI_CREDITS, CREDIT)

    state = published(exhausted.organization)
    assert (state.limited, state.remaining_micro) == (False, CREDIT)


@pytest.mark.case("D9")
def test_a_higher_limit_lifts_it_and_a_lower_one_limits_again(exhausted):
    set_limit(exhausted.organization, AI_CREDITS, 12 * CREDIT + 1)
    assert not published(exhausted.organization).limited

    set_limit(exhausted.organization, AI_CREDITS, 11 * CREDIT)
    assert published(exhausted.organization).limited


@pytest.mark.case("D3")
def test_removing_the_limit_lifts_it(exhausted):
    set_limit(exhausted.organization, AI_CREDITS, None)

    state = published(exhausted.organization)
    assert (state.limited, state.limit_micro, state.allotment_micro) == (False, None, None)


def test_a_soft_limit_lifts_it(exhausted):
    set_limit(exhausted.organization, AI_CREDITS, 12 * CREDIT, mode="soft")

    state = published(exhausted.organization)
    assert (state.limited, state.state, state.mode) == (False, "warning", "soft")
    assert state.allotment_micro is None


def test_voiding_a_top_up_takes_back_what_is_left_of_it(exhausted):
    grant = grant_credits(exhausted.organization, AI_CREDITS, 24 * CREDIT)
    book(usage_event(exhausted))

    void_grant(grant, actor="ops@example.com", reason="a mistake")

    state = published(exhausted.organization)
    assert (state.limited, state.remaining_micro) == (True, 0)
    assert used(exhausted.organization) == 24 * CREDIT

    again = AuditEntry.objects.count()
    for copy in (grant, CreditGrant(pk=grant.pk, account=grant.account)):
        void_grant(copy)
    assert AuditEntry.objects.count() == again


def test_a_grant_of_another_bucket_or_organization_lifts_nothing(exhausted, stranger):
    grant_credits(exhausted.organization, POSTHOG_CODE_CREDITS, CREDIT)
    grant_credits(stranger.organization, AI_CREDITS, CREDIT)

    assert published(exhausted.organization).limited


def test_a_grant_that_starts_later_says_when_it_lifts(exhausted):
    tomorrow = timezone.now() + timedelta(days=1)
    grant_credits(exhausted.organization, AI_CREDITS, CREDIT, starts_at=tomorrow)

    state = published(exhausted.organization)
    assert state.limited
    assert state.limited_until == int(tomorrow.timestamp()) + 1
    assert state.valid_until == tomorrow


def test_the_totals_are_cut_where_a_grant_starts_and_add_up_to_the_ledger(project, monkeypatch):
    now = published(project.organization).valid_until + timedelta(days=3)
    monkeypatch.setattr(timezone, "now", lambda: now)  # in the middle of a period
    set_limit(project.organization, AI_CREDITS, 0)
    book(*(usage_event(project, at=now - timedelta(minutes=back)) for back in range(1, 7)))
    account = account_of(project.organization)

    grant_credits(
        project.organization,
        AI_CREDITS,
        CREDIT,
        starts_at=now - timedelta(minutes=4, seconds=30),
        expires_at=now + timedelta(days=1),
    )

    totals = list(UsageTotal.objects.filter(account=account).order_by("starts_at"))
    assert sum(total.usage_micro for total in totals) == 72 * CREDIT
    for total in totals:
        assert total.usage_micro == ledger_sum(account, total.starts_at, total.ends_at)
    assert 24 * CREDIT in [total.usage_micro for total in totals]


def test_a_new_anchor_day_ends_the_period_there_and_keeps_its_usage(project):
    book(usage_event(project))
    today = timezone.now()
    anchor = (today + timedelta(days=2)).day

    set_limit(project.organization, AI_CREDITS, 100 * CREDIT, anchor_day=anchor)

    state = published(project.organization)
    assert state.resets_at.day == anchor
    assert state.usage_micro == 12 * CREDIT
    book(usage_event(project))
    assert published(project.organization).usage_micro == 24 * CREDIT


def test_settings_that_are_not_given_stay_as_they_were(project):
    organization = project.organization
    set_limit(
        organization, AI_CREDITS, CREDIT, grace_days=3, anchor_day=9, time_zone="Europe/Berlin"
    )

    limit = set_limit(organization, AI_CREDITS, 2 * CREDIT)

    assert (limit.grace_days, limit.anchor_day, limit.time_zone) == (3, 9, "Europe/Berlin")
    assert Limit.objects.filter(account=account_of(organization)).count() == 2


def test_the_audit_trail_says_who_set_what_and_why(project):
    set_limit(project.organization, AI_CREDITS, 5, actor="ops@example.com", reason="trial")

    entry = AuditEntry.objects.get()
    assert (entry.action, entry.organization) == ("limit_set", project.organization)
    assert (entry.actor, entry.reason) == ("ops@example.com", "trial")
    assert entry.details["limit_micro"] == 5


def test_a_limit_is_newer_than_the_one_before_even_if_a_clock_was_set_back(project, monkeypatch):
    first = set_limit(project.organization, AI_CREDITS, 5)
    monkeypatch.setattr(timezone, "now", lambda: first.set_at - timedelta(seconds=1))
    assert set_limit(project.organization, AI_CREDITS, 6).set_at > first.set_at


def test_the_audit_trail_cuts_long_texts_to_its_columns(project):
    set_limit(project.organization, AI_CREDITS, 5, actor="a" * 300, reason="r" * 600)

    limit = Limit.objects.get()
    assert (limit.actor, limit.reason) == ("a" * 200, "r" * 500)


def test_a_decision_that_changed_the_state_is_kept_with_its_inputs(exhausted):
    record = DecisionRecord.objects.filter(account=account_of(exhausted.organization)).first()

    assert (record.previous_state, record.state, record.reason) == (
        "ok",
        "limited",
        "limit_reached",
    )
    assert list(record.inputs["usage"].values()) == [12 * CREDIT]
    assert record.inputs["terms"][0]["limit_micro"] == 12 * CREDIT
    assert record.inputs["now"] == record.decided_at.isoformat()
    assert record.outcome["remaining"] == 0
    assert record.version == published(exhausted.organization).version


def test_a_decision_without_a_limit_is_kept_without_any_grace(project):
    set_organization_active(project.organization, False)

    records = DecisionRecord.objects.filter(account=account_of(project.organization))
    record = records.get(reason="organization_inactive")
    assert record.inputs["grace_days"] == 0


class TestThresholds:
    def noticed(self, project):
        notices = ThresholdNotice.objects.filter(account=account_of(project.organization))
        return list(notices.order_by("pk").values_list("percent", flat=True))

    def test_each_threshold_is_noticed_once_however_often_it_is_crossed(self, project):
        set_limit(project.organization, AI_CREDITS, 36 * CREDIT, thresholds=[30, 60, 100])

        first = usage_event(project)
        book(first, usage_event(project, "0.01"))
        assert self.noticed(project) == [30]
        for _ in range(2):  # 108 %, and below 60 % after the refund
            event = usage_event(project, "0.20")
            book(event)
            refund(UsageEvent.objects.get(uuid=event["uuid"]))
            assert self.noticed(project) == [30, 60, 100, ThresholdNotice.RESOLVED]

    def test_a_refund_arms_nothing_that_an_earlier_version_announced(self, project):
        set_limit(project.organization, AI_CREDITS, 36 * CREDIT, thresholds=[30, 60, 100])
        event = usage_event(project, "0.30")
        book(event)
        # An earlier version did not store of how many credits.
        Account.objects.update(announced_of_micro=None)
        refund(UsageEvent.objects.get(uuid=event["uuid"]))
        book(usage_event(project, "0.30"))
        told = [30, 60, 100, ThresholdNotice.RESOLVED]
        assert self.noticed(project) == told

        set_limit(project.organization, AI_CREDITS, 200 * CREDIT)
        book(usage_event(project, "1.40"))
        assert self.noticed(project) == [*told, 30, 60, 100]

    def test_credits_that_bring_usage_below_a_threshold_arm_it_again(self, project):
        set_limit(project.organization, AI_CREDITS, 36 * CREDIT, thresholds=[30, 60, 100])
        book(usage_event(project, "0.30"))
        first = [30, 60, 100]
        assert self.noticed(project) == first

        grant_credits(project.organization, AI_CREDITS, 24 * CREDIT)  # 60 %: below 100 alone
        assert self.noticed(project) == [*first, ThresholdNotice.RESOLVED]
        book(usage_event(project, "0.20"))
        assert self.noticed(project) == [*first, ThresholdNotice.RESOLVED, 100]

        set_limit(project.organization, AI_CREDITS, 200 * CREDIT)  # below all of them
        again = [*first, ThresholdNotice.RESOLVED, 100, ThresholdNotice.RESOLVED]
        assert self.noticed(project) == again
        book(usage_event(project, "1.40"))
        assert self.noticed(project) == [*again, 30, 60, 100]
        assert list(audit_trail_faults()) == []

    def test_a_higher_limit_arms_a_threshold_before_the_credits_are_used_up(self, project):
        set_limit(project.organization, AI_CREDITS, 36 * CREDIT, thresholds=[30, 60, 100])
        book(usage_event(project, "0.20"))
        assert self.noticed(project) == [30, 60]

        set_limit(project.organization, AI_CREDITS, 200 * CREDIT)
        book(usage_event(project, "0.50"))

        assert self.noticed(project) == [30, 60, 30]

    def test_more_credits_begin_a_round_only_after_a_warning_or_without_any_left(self, project):
        for micro in (0, 1):
            set_limit(project.organization, AI_CREDITS, micro)
        account = account_of(project.organization)
        announced = (account.announced_percent, account.announced_of_micro)
        assert (account.warning_round, announced) == (1, (0, 1))

        grant_credits(project.organization, AI_CREDITS, CREDIT)

        assert account_of(project.organization).warning_round == 1

    def test_a_limit_keeps_its_thresholds_until_others_are_named(self, project):
        set_limit(project.organization, AI_CREDITS, CREDIT, thresholds=[90, 50, 50])

        assert set_limit(project.organization, AI_CREDITS, CREDIT).thresholds == [50, 90]

    def test_credits_left_again_are_noticed_in_the_period_in_which_they_ran_out(
        self, project, monkeypatch
    ):
        set_limit(project.organization, AI_CREDITS, 12 * CREDIT)
        book(usage_event(project))
        state = published(project.organization)
        monkeypatch.setattr(timezone, "now", lambda: state.resets_at + timedelta(days=1))
        sweep_due()

        assert self.noticed(project) == [80, 100, ThresholdNotice.RESOLVED]
        assert len(set(ThresholdNotice.objects.values_list("period_start"))) == 1
        usages = ThresholdNotice.objects.order_by("pk").values_list("usage_micro", flat=True)
        assert list(usages) == [12 * CREDIT, 12 * CREDIT, 0]

    def test_thresholds_are_noticed_again_in_the_next_period(self, project, monkeypatch):
        set_limit(project.organization, AI_CREDITS, 12 * CREDIT)
        book(usage_event(project))
        assert self.noticed(project) == [80, 100]
        later = published(project.organization).resets_at + timedelta(days=1)
        monkeypatch.setattr(timezone, "now", lambda: later)

        book(usage_event(project))

        assert self.noticed(project) == [80, 100, 80, 100]
        assert account_of(project.organization).warning_round == 0


@pytest.mark.parametrize(
    "wrong",
    [
        {"thresholds": [0]},
        {"thresholds": [101]},
        {"limit_micro": -1},
        {"limit_micro": 10**18},
        {"mode": "strict"},
        {"anchor_day": 0},
        {"anchor_day": 32},
        {"grace_days": -1},
        {"grace_days": 367},
        {"time_zone": "Mars/Olympus"},
    ],
)
def test_an_invalid_limit_is_refused(project, wrong):
    with pytest.raises(ValueError):
        set_limit(project.organization, AI_CREDITS, **({"limit_micro": 1} | wrong))
    assert not Limit.objects.exists()


@pytest.mark.parametrize(
    "extreme",
    [
        {"grace_days": 0},
        {"grace_days": 366},
        {"anchor_day": 1},
        {"anchor_day": 31},
        {"limit_micro": 0},
        {"limit_micro": MAXIMUM_MICRO},
        {"thresholds": [1, 100]},
    ],
)
def test_a_limit_may_be_as_extreme_as_this(project, extreme):
    set_limit(project.organization, AI_CREDITS, **({"limit_micro": 1} | extreme))
    assert vars(Limit.objects.get()).items() >= extreme.items()


def test_a_grant_may_be_as_large_as_a_limit(project):
    grant_credits(project.organization, AI_CREDITS, MAXIMUM_MICRO)
    assert CreditGrant.objects.get().amount_micro == MAXIMUM_MICRO


def test_a_grant_is_made_once_for_each_idempotency_key(project):
    organization = project.organization
    first = grant_credits(organization, AI_CREDITS, CREDIT, idempotency_key="invoice 1")
    assert grant_credits(organization, AI_CREDITS, CREDIT, idempotency_key="invoice 1") == first
    with pytest.raises(ValueError, match="different"):
        grant_credits(organization, AI_CREDITS, 2 * CREDIT, idempotency_key="invoice 1")
    for _ in range(2):
        grant_credits(organization, AI_CREDITS, CREDIT)
    assert CreditGrant.objects.count() == 3


def test_a_key_is_refused_for_a_different_top_up(project):
    start = timezone.now() + timedelta(days=1)

    def grant(**asked):
        asked = {"idempotency_key": "k" * LONGEST_KEY, "starts_at": start} | asked
        return grant_credits(project.organization, AI_CREDITS, CREDIT, **asked)

    first = grant()
    assert grant() == first
    for other in ({"starts_at": None}, {"priority": 1}, {"expires_at": start + timedelta(days=1)}):
        with pytest.raises(ValueError, match="different"):
            grant(**other)
    for key in ("k" * (LONGEST_KEY + 1), "k\n"):
        with pytest.raises(ValueError, match="printable"):
            grant(idempotency_key=key)
    assert CreditGrant.objects.count() == 1


def test_a_grant_is_live_in_the_future_and_between_the_years_2000_and_3000():
    now = datetime(2026, 3, 1, tzinfo=UTC)
    tick = timedelta.resolution
    first = datetime(2000, 1, 1, tzinfo=UTC)
    check_times(first, None, now)
    check_times(first, now + tick, now)
    check_times(FAR_FUTURE - tick, None, now)
    check_times(now, FAR_FUTURE - tick, now)
    for starts_at, expires_at in (
        (first - tick, None),
        (FAR_FUTURE, None),
        (first, now),
        (now + tick, now + tick),
        (now, FAR_FUTURE),
    ):
        with pytest.raises(ValueError, match="A grant must"):
            check_times(starts_at, expires_at, now)


def test_the_audit_trail_says_who_took_a_grant_back_and_why(project):
    grant = grant_credits(project.organization, AI_CREDITS, CREDIT)
    for actor in ("ann", "ben"):
        void_grant(grant, actor=actor, reason="not paid")
    [entry] = AuditEntry.objects.filter(action="grant_voided")
    assert (entry.actor, entry.reason, entry.details["grant"]) == ("ann", "not paid", grant.pk)


def test_an_invalid_grant_is_refused(project):
    now = timezone.now()
    for wrong in (
        {"amount_micro": 0},
        {"amount_micro": -1},
        {"amount_micro": 10**18},
        {"amount_micro": 1, "expires_at": now - timedelta(days=1)},
        {"amount_micro": 1, "starts_at": datetime(1, 1, 1, tzinfo=UTC)},
        {"amount_micro": 1, "starts_at": FAR_FUTURE},
        {"amount_micro": 1, "expires_at": FAR_FUTURE},
        {"amount_micro": 1, "starts_at": now + timedelta(days=2), "expires_at": now + timedelta(1)},
    ):
        with pytest.raises(ValueError):
            grant_credits(project.organization, AI_CREDITS, **wrong)
    assert not CreditGrant.objects.exists()


def test_a_refund_after_the_grace_starts_no_other_grace(project, monkeypatch):
    set_limit(project.organization, POSTHOG_CODE_CREDITS, 10 * CREDIT, grace_days=1)
    # At the beginning of a period, so that the period lasts long enough.
    begins = account_of(project.organization, POSTHOG_CODE_CREDITS).decide_again_at
    clock = {"now": begins}
    for module in ("ledger", "refunds"):
        monkeypatch.setattr(f"billing.ingestion.{module}.timezone.now", lambda: clock["now"])

    def call():
        code = {"ai_product": "posthog_code"}
        event = usage_event(project, "0.10", at=clock["now"], properties=code)
        book(event)
        return event["uuid"], published(project.organization, POSTHOG_CODE_CREDITS).state

    uuid, state = call()
    assert state == "grace"
    clock["now"] += timedelta(days=2)
    refund(UsageEvent.objects.get(pk=uuid))
    assert published(project.organization, POSTHOG_CODE_CREDITS).state == "ok"

    assert call()[1] == "limited"


def test_accounts_are_made_on_first_use(db):
    organization = create_organization("New")

    assert organization.accounts.count() == 2
    assert published(organization, POSTHOG_CODE_CREDITS).state == "ok"


def test_the_zone_of_a_limit_is_published_with_the_time_it_resets(project):
    set_limit(project.organization, AI_CREDITS, 0, time_zone="Asia/Tokyo")
    set_limit(project.organization, AI_CREDITS, 0, time_zone="Europe/Berlin")

    verdict = gate.check(project)

    assert verdict.time_zone == "Europe/Berlin"
