"""The sweep decides about accounts when they are due, and about all of them regularly."""

from datetime import UTC, datetime, timedelta

import pytest
from django.db import IntegrityError, connection, transaction
from django.test.utils import CaptureQueriesContext
from django.utils import timezone

from billing import sweep, tasks
from billing.account_locks import lock_accounts
from billing.allowances.grants import grant_credits
from billing.allowances.limits import set_limit
from billing.decisions import assessment, enforcement
from billing.models import Account
from billing.organizations import create_organization, set_organization_active
from projects.models import Change, Organization
from quota.models import QuotaState
from quota.resources import AI_CREDITS, POSTHOG_CODE_CREDITS
from tests.billing.world import CREDIT, account_of, book, published, usage_event

pytestmark = pytest.mark.django_db


class Clock:
    """The clock that billing reads."""

    def __init__(self, monkeypatch) -> None:
        self._monkeypatch = monkeypatch

    def set(self, instant: datetime) -> None:
        self._monkeypatch.setattr(timezone, "now", lambda: instant)


@pytest.fixture
def clock(monkeypatch) -> Clock:
    return Clock(monkeypatch)


@pytest.fixture
def exhausted(project):
    """A project whose organization has used exactly its limit, with weeks left in the period."""
    set_limit(project.organization, AI_CREDITS, 12 * CREDIT, anchor_day=timezone.now().day)
    book(usage_event(project))
    return project


@pytest.mark.case("D11")
def test_a_new_period_lifts_the_limit_without_any_booking(exhausted, clock):
    end = published(exhausted.organization).resets_at
    clock.set(end)

    swept = sweep.sweep_due()

    state = published(exhausted.organization)
    assert swept.failed == 0
    assert (state.limited, state.usage_micro, state.remaining_micro) == (False, 0, 12 * CREDIT)
    assert state.resets_at > end
    assert state.allotment_micro == 12 * CREDIT


def test_quota_can_ask_for_a_decision_that_is_due(exhausted, clock):
    clock.set(published(exhausted.organization).resets_at)

    enforcement.decide_account(exhausted.organization_id, AI_CREDITS)

    assert not published(exhausted.organization).limited


def test_a_grant_starts_and_expires_by_the_clock(exhausted, clock):
    organization = exhausted.organization
    now = timezone.now()
    start, end = now + timedelta(hours=1), now + timedelta(hours=2)
    grant_credits(organization, AI_CREDITS, CREDIT, starts_at=start, expires_at=end)

    clock.set(start)
    sweep.sweep_due()
    assert not published(organization).limited

    clock.set(end)
    sweep.sweep_due()
    assert published(organization).limited


@pytest.mark.case("D6")
def test_a_grace_ends_by_the_clock(project, clock):
    organization = project.organization
    begins = timezone.now().day
    set_limit(organization, POSTHOG_CODE_CREDITS, 10 * CREDIT, grace_days=2, anchor_day=begins)
    book(usage_event(project, properties={"ai_product": "posthog_code"}))
    state = published(organization, POSTHOG_CODE_CREDITS)
    assert (state.state, state.limited) == ("grace", False)

    clock.set(datetime.fromtimestamp(state.suspended_until, UTC))
    sweep.sweep_due()

    assert published(organization, POSTHOG_CODE_CREDITS).limited


def test_unchanged_states_are_not_published_again(exhausted):
    before = (published(exhausted.organization).version, Change.objects.count())

    swept = sweep.sweep_all()

    assert (swept.seen, swept.changed, swept.failed) == (2, 0, 0)
    assert (published(exhausted.organization).version, Change.objects.count()) == before


def test_a_sweep_counts_accounts_over_all_slices(exhausted, stranger, monkeypatch):
    monkeypatch.setattr(sweep, "SLICE", 3)
    Account.objects.filter(organization=exhausted.organization).update(published_digest="old")
    assert sweep.sweep_all() == sweep.SweepResult(seen=4, changed=2, failed=0)

    decide = assessment.decide

    def decide_unless_broken(snapshot):
        if snapshot.usage:
            raise RuntimeError("this account is broken")
        return decide(snapshot)

    monkeypatch.setattr(assessment, "decide", decide_unless_broken)
    Account.objects.filter(organization=stranger.organization).update(published_digest="old")
    assert sweep.sweep_all() == sweep.SweepResult(seen=4, changed=2, failed=1)
    for size in (2, 1):
        monkeypatch.setattr(sweep, "SLICE", size)
        assert sweep.sweep_all() == sweep.SweepResult(seen=4, changed=0, failed=1)


def test_an_account_without_news_does_not_keep_others_from_being_published(project, stranger):
    ids = sorted(Account.objects.values_list("pk", flat=True))
    Account.objects.filter(pk=ids[-1]).update(published_digest="old")
    before = dict(Account.objects.values_list("pk", "version"))

    with transaction.atomic():
        enforcement.enforce(lock_accounts(ids), timezone.now())

    after = dict(Account.objects.values_list("pk", "version"))
    assert after == before | {ids[-1]: before[ids[-1]] + 1}


def test_a_quiet_sweep_takes_no_locks_and_few_queries(exhausted, stranger):
    with CaptureQueriesContext(
        connection,
    ) as queries:
        sweep.sweep_all()

    assert len(queries) <= 30
    locking = [query["sql"] for query in queries if "FOR UPDATE" in query["sql"]]
    assert not any('FROM "billing_account"' in sql for sql in locking)


def test_organizations_without_accounts_get_them(db):
    organization = Organization.objects.create(name="Made in the admin")

    sweep.sweep_all()

    assert published(organization).state == "ok"


@pytest.mark.case("D8")
def test_one_undecidable_account_neither_stops_the_sweep_nor_unblocks_anybody(
    exhausted, stranger, monkeypatch, clock
):
    set_limit(stranger.organization, AI_CREDITS, 0)
    blocked = [create_organization(name) for name in ("Blocked", "Blocked too")]
    for organization in blocked:
        set_limit(organization, AI_CREDITS, 0)
        Account.objects.filter(organization=organization).update(published_digest="old")
    broken = account_of(exhausted.organization)
    grant_credits(
        stranger.organization, AI_CREDITS, 1, starts_at=timezone.now() + timedelta(seconds=5)
    )
    clock.set(published(exhausted.organization).resets_at)
    decide = assessment.decide

    def decide_unless_broken(snapshot):
        if snapshot.usage:
            raise RuntimeError("this account is broken")
        return decide(snapshot)

    monkeypatch.setattr(assessment, "decide", decide_unless_broken)
    swept = sweep.sweep_all()

    assert swept.failed >= 1
    assert published(exhausted.organization).limited
    assert account_of(exhausted.organization).version == broken.version
    assert not published(stranger.organization).limited
    assert all(published(organization).limited for organization in blocked)


@pytest.mark.case("D8")
def test_a_limit_raised_during_a_sweep_is_kept(exhausted, monkeypatch):
    """The sweep compares without a lock, then reads everything again under the lock."""
    Account.objects.filter(organization=exhausted.organization).update(published_digest="old")
    lock = sweep.lock_accounts

    def raise_the_limit_first(ids):
        monkeypatch.setattr(sweep, "lock_accounts", lock)
        set_limit(exhausted.organization, AI_CREDITS, 50 * CREDIT)
        return lock(ids)

    monkeypatch.setattr(sweep, "lock_accounts", raise_the_limit_first)
    sweep.sweep_all()

    state = published(exhausted.organization)
    assert (state.limited, state.limit_micro) == (False, 50 * CREDIT)


@pytest.mark.case("D8")
def test_a_block_set_during_a_sweep_is_kept(project, monkeypatch):
    Account.objects.filter(organization=project.organization).update(published_digest="old")
    lock = sweep.lock_accounts

    def limit_first(ids):
        monkeypatch.setattr(sweep, "lock_accounts", lock)
        set_limit(project.organization, AI_CREDITS, 0)
        return lock(ids)

    monkeypatch.setattr(sweep, "lock_accounts", limit_first)
    sweep.sweep_all()

    assert published(project.organization).limited


def test_the_beat_tasks_sweep(exhausted):
    QuotaState.objects.all().delete()
    Account.objects.update(published_digest="")

    tasks.sweep_accounts()
    tasks.sweep_due_accounts()
    tasks.verify_accounts()

    assert published(exhausted.organization).limited


class TestOrganizations:
    @pytest.mark.case("Q11")
    def test_an_inactive_organization_is_limited_in_every_bucket(self, project, stranger):
        set_organization_active(project.organization, False, actor="ops")

        for resource in (AI_CREDITS, POSTHOG_CODE_CREDITS):
            state = published(project.organization, resource)
            assert (state.limited, state.reason) == (True, "organization_inactive")
            assert state.resets_at is None
        assert not published(stranger.organization).limited

    def test_a_reactivated_organization_is_back_as_it_was(self, exhausted):
        set_organization_active(exhausted.organization, False)

        set_organization_active(exhausted.organization, True)

        assert published(exhausted.organization).reason == "limit_reached"
        assert not published(exhausted.organization, POSTHOG_CODE_CREDITS).limited

    def test_a_name_that_is_taken_is_refused(self, project):
        with pytest.raises(IntegrityError):
            create_organization(project.organization.name)
