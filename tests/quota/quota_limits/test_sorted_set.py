"""`GET /api/projects/<id>/quota_limits/`: the answer obeys the sorted set, whoever wrote it."""

from datetime import UTC, datetime

import pytest
from django.utils import timezone

from billing.organizations import rotate_api_token
from quota.account_state import FAR_FUTURE
from tests.quota.quota_limits.requests import ai_credits, epoch
from tests.quota.world import LIMITS, run_commit_hooks

pytestmark = pytest.mark.django_db


@pytest.mark.case("Q8")
def test_a_block_set_by_hand_limits_at_the_next_request_until_it_is_removed(
    ask, accounts, project, trusted_redis, redis_client
):
    trusted_redis()
    assert ai_credits(ask(project))["limited"] is False
    until = epoch(timezone.now()) + 600
    redis_client.zadd(LIMITS, {project.api_token: until})
    answer = ai_credits(ask(project))
    assert (answer["limited"], answer["state"], answer["reason"]) == (
        True,
        "limited",
        "set_by_hand",
    )
    assert answer["limited_until"] == datetime.fromtimestamp(until, UTC).strftime(
        "%Y-%m-%dT%H:%M:%SZ"
    )
    redis_client.zrem(LIMITS, project.api_token)
    assert ai_credits(ask(project))["limited"] is False


@pytest.mark.parametrize("score", [1e18, "+inf", FAR_FUTURE, FAR_FUTURE - 1, 4_000_000_000.5])
def test_any_score_in_the_future_limits(ask, accounts, project, trusted_redis, redis_client, score):
    trusted_redis()
    redis_client.execute_command("ZADD", LIMITS, score, project.api_token)
    assert ai_credits(ask(project))["limited"] is True


@pytest.mark.case("Q7")
@pytest.mark.parametrize("score", ["-inf", -5, 0, 1_000_000_000])
def test_a_score_in_the_past_does_not_limit(
    ask, accounts, project, trusted_redis, redis_client, score
):
    trusted_redis()
    redis_client.execute_command("ZADD", LIMITS, score, project.api_token)
    answer = ai_credits(ask(project))
    assert (answer["limited"], answer["state"]) == (False, "ok")


def test_a_block_set_by_hand_counts_even_without_a_marker(ask, accounts, project, redis_client):
    redis_client.zadd(LIMITS, {project.api_token: FAR_FUTURE})
    assert ai_credits(ask(project))["reason"] == "set_by_hand"


def test_a_published_block_that_was_removed_by_hand_admits(
    ask, accounts, project, trusted_redis, redis_client
):
    accounts.limit()
    trusted_redis()
    redis_client.zrem(LIMITS, project.api_token)
    answer = ai_credits(ask(project))
    assert (answer["limited"], answer["state"], answer["usage"]) == (False, "ok", 2000.0)


@pytest.mark.case("Q14")
def test_a_rotated_token_of_a_limited_project_is_limited_from_the_commit_on(
    ask, accounts, project, trusted_redis, redis_client
):
    accounts.limit()
    trusted_redis()
    former = project.api_token
    assert ai_credits(ask(project))["limited"] is True
    with run_commit_hooks():
        rotate_api_token(project)
    assert ai_credits(ask(project))["limited"] is True
    project.refresh_from_db()
    assert redis_client.zscore(LIMITS, former) is None
    assert redis_client.zscore(LIMITS, project.api_token)
