"""Many writers on one organization: nothing is lost or counted twice, and versions are in order."""

import random
import threading
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime

import pytest
from django.db import connection, transaction
from django.db.models import F
from django.utils import timezone

from billing.account_locks import lock_accounts, lock_organization
from billing.allowances.caps import set_cap
from billing.allowances.grants import grant_credits
from billing.allowances.limits import set_limit
from billing.decisions.enforcement import decide_account
from billing.ingestion.insufficient_remaining import report
from billing.ingestion.refunds import refund
from billing.models import Account, AccountGroup, UsageEvent
from billing.organizations import (
    create_organization,
    create_project,
    rotate_api_token,
    set_organization_active,
)
from billing.verification.ledger_faults import ledger_faults
from billing.verification.projections import differences
from billing.verification.rebuild import rebuild
from billing.verification.rotation import verify_some
from quota.models import SetMember
from quota.published import manual_blocks
from quota.resources import AI_CREDITS
from tests.billing.world import CREDIT, account_of, book, held, published, usage_event, used
from tests.conftest import wait_until
from tests.settings import ON_POSTGRES

pytestmark = pytest.mark.django_db(transaction=True)
WRITERS = 8


@pytest.fixture
def project():
    return create_project(create_organization("Acme"), "Main")


def in_parallel(*works):
    """Run functions at the same time, each on its own database connection."""
    together = threading.Barrier(len(works))

    def run(work):
        try:
            together.wait(60)
            return work()
        finally:
            connection.close()

    with ThreadPoolExecutor(len(works)) as pool:
        return [future.result(60) for future in [pool.submit(run, work) for work in works]]


@pytest.mark.case("C7")
def test_eight_writers_with_the_same_events_book_each_once(project):
    sibling = create_project(project.organization, "Sibling")
    set_limit(project.organization, AI_CREDITS, 10_000 * CREDIT)
    events = [
        held(usage_event(each, f"0.0{number}"), number)
        for each in (project, sibling)
        for number in range(1, 10)
    ]

    def deliver(seed):
        def work():
            shuffled = random.Random(seed).sample(events, len(events))
            batches = [shuffled[at : at + 6] for at in range(0, len(shuffled), 6)]
            return [result.status for batch in batches for result in book(*batch)]

        return work

    statuses = in_parallel(*(deliver(seed) for seed in range(WRITERS)))

    counted = Counter(status for answers in statuses for status in answers)
    assert counted == {"accepted": len(events), "duplicate": (WRITERS - 1) * len(events)}
    assert UsageEvent.objects.count() == len(events)
    assert used(project.organization) == 2 * 45 * 1_200_000
    assert AccountGroup.objects.get().booked_micro == 2 * 45
    assert_ledger_agrees(project)


def test_eight_writers_with_their_own_events_lose_none(project):
    set_limit(project.organization, AI_CREDITS, 10_000 * CREDIT)
    works = [
        lambda: [book(*(usage_event(project) for _ in range(5))) for _ in range(4)]
        for _ in range(WRITERS)
    ]

    in_parallel(*works)

    assert used(project.organization) == WRITERS * 20 * 12 * CREDIT
    assert_ledger_agrees(project)


def test_two_batches_over_two_organizations_in_opposite_order_do_not_deadlock(project):
    other = create_project(create_organization("Other"), "Main")
    shared = [usage_event(each) for _ in range(20) for each in (project, other)]

    statuses = in_parallel(
        *(lambda batch=batch: book(*batch) for batch in (shared, shared[::-1]) for _ in range(2))
    )

    counted = Counter(result.status for results in statuses for result in results)
    assert counted == {"accepted": 40, "duplicate": 120}
    assert used(project.organization) == used(other.organization) == 20 * 12 * CREDIT


def test_limits_and_grants_set_during_bookings_all_count(project):
    organization = project.organization
    set_limit(organization, AI_CREDITS, 0)

    in_parallel(
        *(lambda: grant_credits(organization, AI_CREDITS, 7 * CREDIT) for _ in range(3)),
        *(lambda: book(usage_event(project, "0.01")) for _ in range(3)),
        lambda: set_limit(organization, AI_CREDITS, 100 * CREDIT),
    )

    state = published(organization)
    assert state.remaining_micro == 100 * CREDIT + 3 * 7 * CREDIT - 3 * 1_200_000
    assert_ledger_agrees(project)


def test_concurrent_top_ups_with_the_same_key_grant_once(project):
    organization = project.organization
    set_limit(organization, AI_CREDITS, 0)

    def top_up():
        return grant_credits(organization, AI_CREDITS, CREDIT, idempotency_key="invoice 7").pk

    assert len(set(in_parallel(*[top_up] * 4))) == 1
    assert published(organization).remaining_micro == CREDIT


WORKS = {
    "a booking": lambda project: book(usage_event(project, at=BEFORE)),
    "a limit": lambda project: set_limit(project.organization, AI_CREDITS, 12 * CREDIT),
    "a top-up": lambda project: grant_credits(project.organization, AI_CREDITS, 1),
    "a cap": lambda project: set_cap(project.organization, AI_CREDITS, "run", CREDIT),
    "a refund": lambda project: refund(UsageEvent.objects.get(project=project)),
    "a decision": lambda project: decide_account(project.organization_id, AI_CREDITS),
    "a rebuild": lambda project: rebuild(account_of(project.organization).pk),
    "a new project": lambda project: create_project(project.organization, "Second"),
    "an activation": lambda project: set_organization_active(project.organization, True),
    "a gateway's word": lambda project: report(project.organization_id, AI_CREDITS, 1),
}
BEFORE = datetime(2027, 4, 30, 23, 59, 59, tzinfo=UTC)
AFTER = datetime(2027, 5, 1, 0, 0, 1, tzinfo=UTC)


@pytest.mark.parametrize("work", WORKS.values(), ids=WORKS)
def test_a_wait_for_the_lock_past_the_end_of_the_period_decides_in_the_new_one(
    project, work, monkeypatch
):
    """Everything that decides reads the clock after taking the lock."""
    clock = [BEFORE]
    monkeypatch.setattr(timezone, "now", lambda: clock[0])
    set_limit(project.organization, AI_CREDITS, 12 * CREDIT)
    book(usage_event(project, at=BEFORE))
    assert published(project.organization).limited
    waiting = threading.Event()

    def wait_for_the_lock():
        def noting(execute, sql, *rest):
            if sql.startswith("BEGIN") or "FOR UPDATE" in sql:
                waiting.set()
            return execute(sql, *rest)

        try:
            with connection.execute_wrapper(noting):
                work(project)
        finally:
            connection.close()

    with ThreadPoolExecutor(1) as pool:
        with transaction.atomic():
            lock_organization(project.organization_id)
            waiter = pool.submit(wait_for_the_lock)
            assert waiting.wait(60)
            clock[0] = AFTER
        waiter.result(60)

    account = account_of(project.organization)
    assert account.period_start == datetime(2027, 5, 1, tzinfo=UTC)
    assert (account.state, published(project.organization).usage_micro) == ("ok", 0)


def in_background(pool, work):
    """Run a function on another connection."""

    def run():
        try:
            return work()
        finally:
            connection.close()

    return pool.submit(run)


def somebody_waits_for_a_lock():
    with connection.cursor() as cursor:
        cursor.execute("SELECT count(*) FROM pg_locks WHERE NOT granted")
        return cursor.fetchone()[0]


@pytest.mark.skipif(not ON_POSTGRES, reason="SQLite locks the whole database")
class TestLocksAreTakenInOneOrder:
    """A deadlock would make the database abort any one of the transactions."""

    def test_by_verification_in_turns(self, project):
        first, second = lock_ids = sorted(
            Account.objects.filter(organization=project.organization).values_list("pk", flat=True)
        )
        # A statement over both rows reaches the row that was written last at the end.
        Account.objects.filter(pk=first).update(version=F("version"))

        with ThreadPoolExecutor(1) as pool:
            with transaction.atomic():
                lock_accounts([first])
                verifying = in_background(pool, verify_some)
                wait_until(somebody_waits_for_a_lock, what="the turn's wait")
                lock_accounts([second])
            assert verifying.result(30) == len(lock_ids)

    def test_by_a_token_rotation_while_a_manual_block_is_noticed(self, project):
        until = timezone.now().timestamp() + 60

        with ThreadPoolExecutor(1) as pool:
            with transaction.atomic():
                manual_blocks.record_seen({(AI_CREDITS, project.api_token): until})
                rotating = in_background(pool, lambda: rotate_api_token(project))
                wait_until(somebody_waits_for_a_lock, what="the rotation's wait")
            rotating.result(30)

        assert SetMember.objects.get(origin="by_hand").project == project


def assert_ledger_agrees(project):
    for account in Account.objects.filter(organization=project.organization):
        assert list(differences(account)) == []
    assert list(ledger_faults()) == []
    state = published(project.organization)
    assert state.version == account_of(project.organization).version
