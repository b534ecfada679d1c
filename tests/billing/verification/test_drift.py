"""Totals that differ from the ledger are found from recent bookings, however long the ledger is."""

from datetime import timedelta

import pytest
from django.db import connection
from django.test.utils import CaptureQueriesContext
from django.utils import timezone

from billing import metrics
from billing.allowances.caps import set_cap
from billing.allowances.limits import set_limit
from billing.models import Account, AccountGroup, CheckpointSum, UsageEvent, UsageTotal
from billing.sweep import sweep_all
from billing.verification import drift, rotation
from billing.verification.drift import SURELY_COMMITTED, drifted, repair_drift
from quota.models import CapState, QuotaState, SetMember
from quota.published.changes import changes_since
from quota.resources import AI_CREDITS
from tests.billing.world import CREDIT, account_of, book, held, published, usage_event, used

pytestmark = pytest.mark.django_db


@pytest.fixture
def later(monkeypatch):
    """Return a function that moves the clock forward."""
    now = timezone.now

    def pass_by(**step):
        monkeypatch.setattr(timezone, "now", lambda: now() + timedelta(**step))

    return pass_by


@pytest.fixture
def repairs():
    """Return a function that counts the repairs since now."""
    before = metrics.REPAIRS._value.get()
    return lambda: metrics.REPAIRS._value.get() - before


@pytest.fixture
def exhausted(project):
    set_limit(project.organization, AI_CREDITS, 12 * CREDIT)
    book(held(usage_event(project), 12 * CREDIT))
    return project


@pytest.fixture
def checked(exhausted, later):
    """Bookings that are all in the checkpoint."""
    repair_drift(timezone.now() + SURELY_COMMITTED)
    later(minutes=2)
    return exhausted


@pytest.mark.parametrize(
    "harm",
    [
        lambda account: UsageTotal.objects.filter(account=account).update(usage_micro=1),
        lambda account: UsageTotal.objects.filter(account=account).delete(),
        lambda account: AccountGroup.objects.filter(account=account).update(booked_micro=1),
    ],
    ids=["total changed", "total deleted", "group changed"],
)
def test_changes_made_around_billing_are_repaired_once(checked, stranger, repairs, harm):
    book(usage_event(checked), usage_event(stranger))
    harm(account_of(checked.organization))

    assert drifted() == {account_of(checked.organization).pk}
    sweep_all()
    sweep_all()

    assert used(checked.organization) == 24 * CREDIT
    assert published(checked.organization).booked == {"gateway:epoch": 12 * CREDIT}
    assert repairs() == 1


def test_only_new_bookings_are_added_up(checked):
    book(*(usage_event(checked) for _ in range(3)))

    with CaptureQueriesContext(connection) as queries:
        assert repair_drift(timezone.now()) == 0

    reads = [query["sql"] for query in queries if "billing_usageevent" in query["sql"]]
    assert reads
    assert all('"booked_at" >=' in sql for sql in reads)
    assert not drifted()


def test_bookings_are_added_up_once_however_often_the_check_runs(checked, later):
    book(usage_event(checked))
    later(minutes=10)

    for _ in range(2):
        repair_drift(timezone.now())

    kept = CheckpointSum.objects.get(account=account_of(checked.organization))
    assert (kept.credits_micro, kept.debited_micro) == (24 * CREDIT, 12 * CREDIT)


def test_a_booking_committed_behind_the_checkpoint_is_not_drift(checked, later, repairs):
    """As from a host whose clock is slow."""
    later(minutes=-30)
    book(usage_event(checked))
    later(minutes=3)

    assert drifted() == {account_of(checked.organization).pk}
    assert repair_drift(timezone.now()) == 0

    assert not drifted()
    assert repairs() == 0
    assert used(checked.organization) == 24 * CREDIT


def test_two_processes_that_advance_the_checkpoint_add_nothing_twice(checked, monkeypatch, later):
    book(usage_event(checked))
    later(minutes=10)
    lock = drift._locked_checkpoint

    def after_somebody_else():
        monkeypatch.setattr(drift, "_locked_checkpoint", lock)
        drift._advance_checkpoint(timezone.now())
        return lock()

    monkeypatch.setattr(drift, "_locked_checkpoint", after_somebody_else)
    drift._advance_checkpoint(timezone.now() + timedelta(seconds=5))

    kept = CheckpointSum.objects.get(account=account_of(checked.organization))
    assert kept.credits_micro == 24 * CREDIT


@pytest.mark.parametrize(
    "harm",
    [
        lambda: QuotaState.objects.update(document='{"limited":false}'),
        lambda: QuotaState.objects.update(version=10**12),
        lambda: QuotaState.objects.all().delete(),
        lambda: SetMember.objects.update(limited_until=None),
        lambda: SetMember.objects.all().delete(),
        lambda: SetMember.objects.update(token="phc_of-nobody"),
        lambda: Account.objects.update(state="ok", reason=""),
        lambda: Account.objects.update(decide_again_at=None),
    ],
    ids=[
        "document",
        "version",
        "no state",
        "unblocked",
        "no member",
        "foreign token",
        "account",
        "never due",
    ],
)
def test_a_tampered_publication_is_published_again(exhausted, repairs, harm):
    harm()
    feed = changes_since(None, None)
    worst = max(QuotaState.objects.values_list("version", flat=True), default=0)

    sweep_all()

    state = published(exhausted.organization)
    account = account_of(exhausted.organization)
    member = SetMember.objects.get(token=exhausted.api_token, resource=AI_CREDITS)
    assert (state.limited, state.version) == (True, account.version)
    assert state.version > worst
    assert member.limited_until == state.score
    assert (account.state, account.decide_again_at) == ("limited", state.valid_until)
    assert repairs() >= 1
    told = changes_since(feed.version, feed.feed).changes
    assert (exhausted.pk, True) in [(change["project_id"], change["limited"]) for change in told]
    before = repairs()
    sweep_all()
    assert repairs() == before


class TestRotation:
    def test_every_account_has_its_turn(self, exhausted, stranger, monkeypatch):
        monkeypatch.setattr(rotation, "AT_MOST", 3)

        assert [rotation.verify_some() for _ in range(2)] == [3, 3]

        assert not Account.objects.filter(verified_at=None).exists()

    def test_differences_that_only_the_whole_ledger_shows_are_repaired(self, exhausted, repairs):
        set_cap(exhausted.organization, AI_CREDITS, "user", 5 * CREDIT)
        CapState.objects.update(usage_micro=0)
        [total] = UsageTotal.objects.all()
        UsageTotal.objects.update(starts_at=total.starts_at - timedelta(days=365))

        rotation.verify_some()
        rotation.verify_some()

        assert CapState.objects.get().usage_micro == 12 * CREDIT
        assert UsageTotal.objects.get().starts_at == total.starts_at
        assert UsageEvent.objects.count() == 1
        assert repairs() == 1

    def test_an_account_that_cannot_be_compared_does_not_stop_the_others(
        self, exhausted, stranger, monkeypatch
    ):
        differences = rotation.differences
        broken = account_of(exhausted.organization)

        def fail(account):
            if account == broken:
                raise RuntimeError("broken")
            return differences(account)

        monkeypatch.setattr(rotation, "differences", fail)

        assert rotation.verify_some() == Account.objects.count()
