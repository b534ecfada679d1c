"""What counts as a usual limit or top-up, for the warning about a digit too many."""

import pytest

from billing.allowances import usual
from billing.allowances.grants import grant_credits, void_grant
from billing.allowances.limits import set_limit
from billing.allowances.usual import usual_grant, usual_limit
from billing.organizations import create_organization
from quota.resources import AI_CREDITS, POSTHOG_CODE_CREDITS
from tests.billing.world import CREDIT, account_of

pytestmark = pytest.mark.django_db
WITHOUT_EXAMPLE = 1_000 * CREDIT


@pytest.fixture
def others(db):
    """Three other organizations."""
    return [create_organization(f"Other {number}") for number in range(3)]


def test_the_accounts_own_limit_is_usual_or_else_the_median_of_all(project, others):
    account = account_of(project.organization)
    assert usual_limit(account) == WITHOUT_EXAMPLE
    set_limit(others[0], POSTHOG_CODE_CREDITS, 5 * CREDIT)
    for organization, limit in zip(others, (0, 9, 3), strict=True):
        set_limit(organization, AI_CREDITS, limit * CREDIT)
    assert usual_limit(account) == 3 * CREDIT, "neither zero nor another resource's"
    set_limit(project.organization, AI_CREDITS, 70 * CREDIT)
    set_limit(project.organization, AI_CREDITS, 0)
    assert usual_limit(account) == 70 * CREDIT
    set_limit(project.organization, AI_CREDITS, 1)
    assert usual_limit(account) == 1


def test_the_least_limit_of_another_account_is_usual_however_many_are_zero(project, others):
    account = account_of(project.organization)
    set_limit(others[1], AI_CREDITS, 1)
    for _ in range(usual._LATEST):
        set_limit(others[0], AI_CREDITS, 0)
    assert usual_limit(account) == 1


def test_the_median_of_the_accounts_top_ups_is_usual(project, others):
    account = account_of(project.organization)
    assert usual_grant(account) == WITHOUT_EXAMPLE
    grant_credits(others[0], AI_CREDITS, 8 * CREDIT)
    void_grant(grant_credits(others[0], AI_CREDITS, 1 * CREDIT))
    grant_credits(others[0], POSTHOG_CODE_CREDITS, 5 * CREDIT)
    assert usual_grant(account) == 8 * CREDIT, "that of all accounts"
    set_limit(project.organization, AI_CREDITS, 70 * CREDIT)
    assert usual_grant(account) == 70 * CREDIT, "its limit"
    for amount in (40, 20, 30):
        grant_credits(project.organization, AI_CREDITS, amount * CREDIT)
    void_grant(grant_credits(project.organization, AI_CREDITS, 1 * CREDIT))
    assert usual_grant(account) == 30 * CREDIT
