"""`GET /api/projects/<id>/quota_limits/`: the answer while Redis or the database fails."""

import pytest
from django.db import OperationalError
from django.db.models.query import QuerySet

from quota.published import limited_set
from quota.published import redis_client as quota_redis
from tests.quota.quota_limits.requests import ai_credits
from tests.quota.world import LIMITS
from tests.stopwatch import Stopwatch

pytestmark = pytest.mark.django_db


def read(project):
    return limited_set.read(project.organization_id, project.api_token)


def test_a_redis_that_cannot_be_read_says_so(accounts, project, trusted_redis, redis_client):
    trusted_redis()
    assert read(project).is_complete
    redis_client.hset("tollgate:quota:published:ai_credits", project.api_token, "nonsense")
    with pytest.raises(limited_set.RedisUnavailable):
        read(project)


def test_a_dead_redis_says_so_and_is_not_asked_again_at_once(accounts, project, own_redis):
    own_redis.stop()
    for disruptions in (1, 1):
        with pytest.raises(limited_set.RedisUnavailable):
            read(project)
        assert quota_redis.health.disruptions == disruptions


@pytest.mark.case("Q12")
def test_a_dead_redis_is_answered_from_the_database(ask, accounts, project, own_redis):
    accounts.limit()
    own_redis.stop()
    assert ai_credits(ask(project))["limited"] is True
    accounts.allow()
    assert ai_credits(ask(project))["limited"] is False


@pytest.mark.case("Q12")
def test_a_redis_that_hangs_costs_one_caller_a_second_and_not_the_next(
    ask, accounts, project, trusted_redis, monkeypatch, production_timeouts, own_redis
):
    monkeypatch.setattr(quota_redis, "SILENCE_SECONDS", 60)  # however busy this machine is
    accounts.limit()
    trusted_redis()
    ask(project)
    own_redis.client.execute_command("CLIENT", "PAUSE", "60000", "ALL")
    with Stopwatch() as first:
        assert ai_credits(ask(project))["limited"] is True
    assert first.seconds < 2
    disruptions = quota_redis.health.disruptions
    assert disruptions
    assert ai_credits(ask(project))["limited"] is True
    assert quota_redis.health.disruptions == disruptions


@pytest.mark.parametrize("state", ["9 {}", "9 []", "9", '9 {"organization_id": 5}'])
def test_nonsense_in_redis_is_answered_from_the_database(
    ask, accounts, project, trusted_redis, redis_client, state
):
    accounts.limit()
    trusted_redis()
    redis_client.hset("tollgate:quota:states", f"{project.organization_id}:ai_credits", state)
    assert ai_credits(ask(project))["limited"] is True
    redis_client.delete(LIMITS)
    redis_client.set(LIMITS, "not a sorted set")
    assert ai_credits(ask(project))["limited"] is True


@pytest.mark.case("Q12")
@pytest.mark.parametrize("redis_is", ["down", "not trusted"])
def test_without_any_store_the_answer_is_503_with_retry_after(
    ask, accounts, project, trusted_redis, monkeypatch, redis_client, redis_is
):
    def fail(*_args, **_kwargs):
        raise OperationalError("the database is down")

    trusted_redis()
    assert ask(project).status_code == 200
    if redis_is == "down":
        quota_redis.health.failed()
    else:
        redis_client.delete(limited_set.MARKER)
    monkeypatch.setattr(QuerySet, "_fetch_all", fail)
    response = ask(project)
    assert response.status_code == 503
    assert int(response.headers["Retry-After"]) > 0
    assert "limited" not in response.json()


def test_a_dead_database_is_not_noticed_while_redis_is_trusted(
    ask, accounts, project, trusted_redis, monkeypatch
):
    def fail(*_args, **_kwargs):
        raise OperationalError("the database is down")

    accounts.limit()
    trusted_redis()
    assert ask(project).status_code == 200
    monkeypatch.setattr(QuerySet, "_fetch_all", fail)
    assert ai_credits(ask(project))["limited"] is True


@pytest.mark.case("Q13")
def test_limited_projects_stay_limited_after_a_wipe(
    ask, accounts, project, trusted_redis, redis_client
):
    accounts.limit()
    trusted_redis()
    redis_client.flushall()
    assert ai_credits(ask(project))["limited"] is True
    trusted_redis()
    assert ai_credits(ask(project))["limited"] is True
    assert redis_client.zscore(LIMITS, project.api_token)
