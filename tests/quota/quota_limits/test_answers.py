"""`GET /api/projects/<id>/quota_limits/`: what the answer says about each bucket."""

from datetime import UTC, datetime

import pytest
from django.utils import timezone

from projects.authentication import credentials
from projects.models import Project
from quota.account_state import FAR_FUTURE
from quota.resources import AI_CREDITS, POSTHOG_CODE_CREDITS, RESOURCES
from tests.quota.quota_limits.requests import ai_credits, bearer, epoch, path
from tests.quota.world import SUSPENDED

pytestmark = pytest.mark.django_db


@pytest.mark.case("Q6")
@pytest.mark.parametrize("source", ["redis", "database"])
def test_the_answer_has_the_shape_that_clients_rely_on(
    ask, accounts, project, trusted_redis, source
):
    state = accounts.limit()
    if source == "redis":
        trusted_redis()
    before = timezone.now().replace(microsecond=0)
    response = ask(project)
    answer = response.json()
    ends = state.resets_at.strftime("%Y-%m-%dT%H:%M:%SZ")
    assert answer["limited"][AI_CREDITS] == {
        "limited": True,
        "state": "limited",
        "reason": "limit_reached",
        "usage": 2000.0,
        "limit": 2000.0,
        "remaining": 0.0,
        "limited_until": ends,
        "resets_at": ends,
        "resets_at_local": ends.replace("Z", "+00:00"),
        "time_zone": "UTC",
        "mode": "hard",
        "credits_per_usd": 120.0,
    }
    assert answer["limited"][POSTHOG_CODE_CREDITS]["credits_per_usd"] == 100.0
    assert set(answer["limited"]) == set(RESOURCES)
    assert answer["organization_id"] == str(project.organization_id)
    assert before <= datetime.fromisoformat(answer["as_of"]) <= timezone.now()
    assert set(answer) == {"limited", "organization_id", "as_of", "version"}
    assert response.headers["Content-Type"] == "application/json"


def test_the_reset_is_also_given_in_the_zone_of_the_limit(ask, accounts, project):
    resets_at = datetime(2036, 6, 30, 22, tzinfo=UTC)
    accounts.limit(resets_at=resets_at, time_zone="Europe/Berlin")
    answer = ask(project).json()["limited"][AI_CREDITS]
    assert answer["resets_at"] == "2036-06-30T22:00:00Z"
    assert answer["resets_at_local"] == "2036-07-01T00:00:00+02:00"
    assert answer["time_zone"] == "Europe/Berlin"


def test_both_stores_give_the_same_answer(ask, accounts, project, trusted_redis):
    accounts.limit(reason="organization_inactive", limited_until=FAR_FUTURE)
    from_database = ask(project)
    trusted_redis()
    assert ask(project).headers["ETag"] == from_database.headers["ETag"]


@pytest.mark.case("Q10")
@pytest.mark.parametrize("source", ["redis", "database"])
def test_unknown_amounts_are_null_and_not_zero(ask, accounts, project, trusted_redis, source):
    accounts.allow(usage_micro=None, limit_micro=None, remaining_micro=None, allotment_micro=None)
    if source == "redis":
        trusted_redis()
    answer = ai_credits(ask(project))
    assert (answer["usage"], answer["limit"], answer["remaining"]) == (None, None, None)
    assert (answer["limited"], answer["state"], answer["reason"]) == (False, "ok", None)


def test_amounts_are_exact_to_the_micro_credit(ask, accounts, project, trusted_redis):
    accounts.allow(usage_micro=1, remaining_micro=1_999_999_999, limit_micro=2_000_000_000)
    trusted_redis()
    response = ask(project)
    assert b'"usage":1e-06,"limit":2000.0,"remaining":1999.999999' in response.content


@pytest.mark.case("Q10")
def test_an_account_that_was_never_decided_is_unknown(ask, project):
    answer = ai_credits(ask(project))
    assert (answer["limited"], answer["state"], answer["limit"]) == (False, "unknown", None)


@pytest.mark.case("Q11")
def test_an_inactive_organization_is_answered_as_limited(ask, accounts, project, trusted_redis):
    accounts.limit(reason="organization_inactive", limited_until=FAR_FUTURE, resets_at=None)
    trusted_redis()
    answer = ai_credits(ask(project))
    assert (answer["limited"], answer["reason"]) == (True, "organization_inactive")
    assert (answer["limited_until"], answer["resets_at"]) == (None, None)


@pytest.mark.parametrize("source", ["redis", "database"])
def test_a_grace_is_shown_and_does_not_limit(
    ask, accounts, project, trusted_redis, redis_client, source
):
    ends = epoch(timezone.now()) + 3600
    accounts.allow(state="grace", reason="limit_reached", suspended_until=ends)
    if source == "redis":
        trusted_redis()
    answer = ai_credits(ask(project))
    assert (answer["limited"], answer["state"]) == (False, "grace")
    assert answer["reason"] == "limit_reached"
    assert redis_client.zscore(SUSPENDED, project.api_token) == ends


@pytest.mark.case("Q9")
def test_each_project_has_its_own_answer(ask, client, accounts, project, stranger, trusted_redis):
    accounts.limit()
    trusted_redis()
    assert ai_credits(ask(project))["limited"] is True
    _, theirs = credentials.issue_personal_api_key(stranger.organization, "x", ["project:read"])
    response = client.get(path(stranger.pk), headers=bearer(theirs))
    assert ai_credits(response)["limited"] is False


def test_limits_are_the_organizations_and_its_projects_share_them(client, accounts, project):
    sibling = Project.objects.create(organization=project.organization, name="Sibling")
    accounts.limit()
    _, key = credentials.issue_personal_api_key(project.organization, "x", ["project:read"])
    for one in (project, sibling):
        assert ai_credits(client.get(path(one.pk), headers=bearer(key)))["limited"] is True
