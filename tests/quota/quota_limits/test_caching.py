"""`GET /api/projects/<id>/quota_limits/`: `ETag` and `304`, and the type of the answer."""

import pytest

from quota.account_state import FAR_FUTURE
from quota.resources import MICRO
from tests.quota.quota_limits.requests import ai_credits
from tests.quota.world import LIMITS

pytestmark = pytest.mark.django_db


def test_an_unchanged_answer_is_not_sent_again(ask, accounts, project, trusted_redis, redis_client):
    trusted_redis()
    first = ask(project)
    tag = first.headers["ETag"]
    for known in (tag, f"W/{tag}", f'"other", {tag}', "*"):
        again = ask(project, **{"if-none-match": known})
        assert (again.status_code, again.content) == (304, b"")
        assert again.headers["ETag"] == tag
    assert ask(project, **{"if-none-match": '"other"'}).status_code == 200
    assert "no-cache" in first.headers["Cache-Control"]
    assert "private" in first.headers["Cache-Control"]


def test_every_change_of_the_answer_changes_its_tag(
    ask, accounts, project, trusted_redis, redis_client
):
    def tag() -> str:
        response = ask(project)
        assert response.status_code == 200
        return response.headers["ETag"]

    trusted_redis()
    tags = [tag()]
    accounts.allow(usage_micro=1_250 * MICRO + 1)
    tags.append(tag())
    redis_client.zadd(LIMITS, {project.api_token: FAR_FUTURE})
    tags.append(tag())
    redis_client.zadd(LIMITS, {project.api_token: FAR_FUTURE - 1})
    tags.append(tag())
    redis_client.zrem(LIMITS, project.api_token)
    accounts.limit()
    tags.append(tag())
    assert len(set(tags)) == len(tags)
    assert tag() == tags[-1]


def test_a_client_that_does_not_accept_json_gets_json_anyway(ask, accounts, project):
    response = ask(project, accept="text/html")
    assert ai_credits(response)["limited"] is False
