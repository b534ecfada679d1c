"""After a change of limits or grants, totals fit the new stretches and agree with the ledger."""

from datetime import timedelta

import pytest

from billing.decisions.burndown import Grant
from billing.decisions.running_totals import ledger_sum, recut_totals
from billing.decisions.timeline import Timeline
from billing.models import UsageTotal
from tests.billing.world import CREDIT, account_of, book, usage_event

pytestmark = pytest.mark.django_db
HOUR = timedelta(hours=1)


@pytest.fixture
def account(project):
    """An account with usage two hours and one second before a period, and in it."""
    start = account_of(project.organization).period_start
    for before in (2 * HOUR, timedelta(seconds=1), timedelta()):
        book(usage_event(project, at=start - before))
    return account_of(project.organization)


def totals(account) -> list[UsageTotal]:
    found = list(UsageTotal.objects.filter(account=account).order_by("starts_at"))
    for total in found:
        assert total.usage_micro == ledger_sum(account, total.starts_at, total.ends_at)
    return found


def test_a_grant_that_has_ended_only_cuts_the_period_in_which_it_was_live(account):
    start = account.period_start
    [before, now] = totals(account)
    grant = Grant(1, CREDIT, start - 1.5 * HOUR, start - HOUR)

    recut_totals(account, Timeline(grants=[grant]))

    [first, last, same] = totals(account)
    assert (first.starts_at, first.ends_at) == (before.starts_at, grant.starts_at)
    assert (last.starts_at, last.ends_at) == (grant.ends_at, start)
    assert same.pk == now.pk

    recut_totals(account, Timeline())

    [whole, same] = totals(account)
    assert (whole.starts_at, whole.ends_at) == (before.starts_at, start)
    assert whole.usage_micro == 24 * CREDIT
    assert same.pk == now.pk


def test_totals_of_several_stretches_are_cut_at_other_instants(account):
    start = account.period_start
    recut_totals(account, Timeline(grants=[Grant(1, CREDIT, start - 1.5 * HOUR, start - HOUR)]))
    moved = Grant(1, CREDIT, start - 1.75 * HOUR, start - 0.5 * HOUR)

    recut_totals(account, Timeline(grants=[moved]))

    [first, last, _] = totals(account)
    assert (first.ends_at, last.starts_at) == (moved.starts_at, moved.ends_at)


def test_a_total_that_was_damaged_fits_again(account):
    [before, now] = totals(account)
    UsageTotal.objects.filter(pk=now.pk).update(starts_at=before.starts_at + HOUR)

    recut_totals(account, Timeline())

    assert [total.usage_micro for total in totals(account)] == [24 * CREDIT, 12 * CREDIT]
