"""What would be decided if a limit were set or top-ups were voided, with nothing changed."""

from datetime import timedelta

import pytest
from django.utils import timezone

from billing.allowances.grants import grant_credits
from billing.allowances.limits import set_limit
from billing.decisions.preview import with_limit, without_grants
from billing.models import Limit
from quota.resources import AI_CREDITS
from tests.billing.world import CREDIT, account_of, book, published, usage_event

pytestmark = pytest.mark.django_db


def test_a_limit_would_take_the_place_of_the_current_one(project):
    set_limit(project.organization, AI_CREDITS, 100 * CREDIT)
    book(usage_event(project))
    account = account_of(project.organization)

    def remaining(credits):
        limit = Limit(account=account, limit_micro=credits * CREDIT)
        return with_limit(account, limit, timezone.now()).remaining

    assert (remaining(20), remaining(12)) == (8 * CREDIT, 0)
    assert Limit.objects.count() == 1
    assert not published(project.organization).limited


def test_a_limit_would_follow_the_current_one_even_if_a_clock_was_set_back(project):
    account = account_of(project.organization)
    limit = Limit(account=account, limit_micro=0)
    now = timezone.now()
    with_limit(account, limit, now)
    assert limit.set_at == now, "the first one"
    current = set_limit(project.organization, AI_CREDITS, 100 * CREDIT)
    with_limit(account, limit, now)
    assert limit.set_at == current.set_at + timedelta.resolution
    later = current.set_at + timedelta(seconds=1)
    with_limit(account, limit, later)
    assert limit.set_at == later


def test_only_the_named_top_ups_would_be_gone(project):
    set_limit(project.organization, AI_CREDITS, 0)
    kept, ended, voided = (
        grant_credits(project.organization, AI_CREDITS, amount * CREDIT, **more)
        for amount, more in (
            (5, {}),
            (7, {"expires_at": timezone.now() + timedelta(days=1)}),
            (11, {}),
        )
    )
    account, now = account_of(project.organization), timezone.now()

    def remaining(grants, now=now):
        return without_grants(account, grants, now).remaining

    assert remaining([]) == 23 * CREDIT
    assert remaining([voided.pk]) == 12 * CREDIT
    assert remaining([ended.pk, voided.pk]) == 5 * CREDIT
    assert remaining([kept.pk, ended.pk, voided.pk]) == 0
    later = now + timedelta(days=2)
    assert remaining([ended.pk], later) == remaining([], later) == 16 * CREDIT

    book(usage_event(project))  # covered by the one that expires, then by the oldest
    now = timezone.now()
    assert remaining([kept.pk, ended.pk], now) == remaining([], now) == 11 * CREDIT
