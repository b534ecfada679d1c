"""Many writers on one organization: nothing lost, nothing doubled, one order of versions."""

import random
import threading
from collections import Counter
from concurrent.futures import ThreadPoolExecutor

import pytest
from django.db import connection

from billing.accounts import create_organization, create_project
from billing.grants import grant_credits
from billing.limits import set_limit
from billing.models import Account, AccountGroup, UsageEvent
from billing.verification import differences, ledger_faults
from quota.resources import AI_CREDITS
from tests.billing.world import CREDIT, account_of, book, held, published, usage_event, used

pytestmark = pytest.mark.django_db(transaction=True)
WRITERS = 8


@pytest.fixture
def project():
    return create_project(create_organization("Acme"), "Main")


def in_parallel(*works):
    """Run works at the same moment, each on a database connection of its own."""
    together = threading.Barrier(len(works))

    def run(work):
        try:
            together.wait(10)
            return work()
        finally:
            connection.close()

    with ThreadPoolExecutor(len(works)) as pool:
        return [future.result(60) for future in [pool.submit(run, work) for work in works]]


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
    assert_books_agree(project)


def test_eight_writers_with_their_own_events_lose_none(project):
    set_limit(project.organization, AI_CREDITS, 10_000 * CREDIT)
    works = [
        lambda: [book(*(usage_event(project) for _ in range(5))) for _ in range(4)]
        for _ in range(WRITERS)
    ]

    in_parallel(*works)

    assert used(project.organization) == WRITERS * 20 * 12 * CREDIT
    assert_books_agree(project)


def test_two_batches_over_two_organizations_in_opposite_order_do_not_deadlock(project):
    other = create_project(create_organization("Other"), "Main")
    shared = [usage_event(each) for _ in range(20) for each in (project, other)]

    statuses = in_parallel(
        *(lambda batch=batch: book(*batch) for batch in (shared, shared[::-1]) for _ in range(2))
    )

    counted = Counter(result.status for results in statuses for result in results)
    assert counted == {"accepted": 40, "duplicate": 120}
    assert used(project.organization) == used(other.organization) == 20 * 12 * CREDIT


def test_limits_and_grants_that_are_set_meanwhile_all_count(project):
    organization = project.organization
    set_limit(organization, AI_CREDITS, 0)

    in_parallel(
        *(lambda: grant_credits(organization, AI_CREDITS, 7 * CREDIT) for _ in range(3)),
        *(lambda: book(usage_event(project, "0.01")) for _ in range(3)),
        lambda: set_limit(organization, AI_CREDITS, 100 * CREDIT),
    )

    state = published(organization)
    assert state.remaining_micro == 100 * CREDIT + 3 * 7 * CREDIT - 3 * 1_200_000
    assert_books_agree(project)


def assert_books_agree(project):
    for account in Account.objects.filter(organization=project.organization):
        assert list(differences(account)) == []
    assert list(ledger_faults()) == []
    state = published(project.organization)
    assert state.version == account_of(project.organization).version
