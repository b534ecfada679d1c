"""Decisions are in Redis, and in force at every gate, as soon as they are committed."""

import time

import pytest
import redis

from billing.allowances.grants import grant_credits
from billing.allowances.limits import set_limit
from billing.organizations import create_organization, create_project, rotate_api_token
from quota import gate
from quota.resources import AI_CREDITS
from tests.billing.world import CREDIT, book, usage_event

pytestmark = pytest.mark.django_db(transaction=True)
LIMITS = "@posthog/quota-limits/ai_credits"


@pytest.fixture
def exhausted(redis_client: redis.Redis):
    """A project whose latest event reached the limit."""
    project = create_project(create_organization("Acme"), "Main")
    set_limit(project.organization, AI_CREDITS, 12 * CREDIT)
    assert redis_client.zscore(LIMITS, project.api_token) is None
    book(usage_event(project))
    return project


def test_the_event_that_reaches_the_limit_is_the_last_one(exhausted, redis_client):
    assert redis_client.zscore(LIMITS, exhausted.api_token) is not None
    assert gate.check(exhausted).limited


@pytest.mark.case("D9")
def test_a_top_up_lifts_at_once(exhausted, redis_client):
    grant_credits(exhausted.organization, AI_CREDITS, CREDIT)

    assert redis_client.zscore(LIMITS, exhausted.api_token) is None
    assert not gate.check(exhausted).limited


@pytest.mark.case("Q14")
def test_a_new_project_of_a_limited_organization_is_limited_from_its_commit(
    exhausted, redis_client
):
    sibling = create_project(exhausted.organization, "Sibling")

    assert redis_client.zscore(LIMITS, sibling.api_token) is not None
    assert gate.check(sibling).limited


@pytest.mark.case("Q14")
def test_a_rotated_token_is_limited_and_the_old_one_is_gone(exhausted, redis_client):
    before = exhausted.api_token

    rotate_api_token(exhausted)

    assert exhausted.api_token != before
    assert redis_client.zscore(LIMITS, exhausted.api_token) is not None
    assert redis_client.zscore(LIMITS, before) is None
    assert gate.check(exhausted).limited


def test_a_block_set_by_hand_follows_the_token_that_is_rotated(redis_client):
    project = create_project(create_organization("Acme"), "Main")
    until = int(time.time()) + 3600
    redis_client.zadd(LIMITS, {project.api_token: until})

    rotate_api_token(project)

    assert redis_client.zscore(LIMITS, project.api_token) == until
    assert gate.check(project).limited
