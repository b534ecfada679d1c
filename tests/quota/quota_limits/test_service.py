"""`GET /api/projects/<id>/quota_limits/`: what the gateway reads with the service token."""

from datetime import datetime

import pytest

from billing.allowances.caps import set_cap
from projects.change_feed import Change
from quota.account_state import FAR_FUTURE
from quota.models import SetMember
from quota.published.limited_set import limits_key
from quota.published.publication import publish
from quota.resources import AI_CREDITS, MICRO
from tests.quota.quota_limits.requests import SERVICE, ai_credits, bearer, path
from tests.quota.world import Accounts, HeldCommits

LIMITS = limits_key(AI_CREDITS)

pytestmark = pytest.mark.django_db


def test_the_service_gets_what_its_group_may_spend(client, accounts, project, trusted_redis):
    state = accounts.allow(
        booked={"eu:1": 40 * MICRO, "us:2": 2 * MICRO}, allotment_micro=792 * MICRO
    )
    trusted_redis()
    response = client.get(path(project.pk), {"group": "eu:1"}, headers=SERVICE)
    answer = ai_credits(response)
    assert answer["account"] == f"{project.organization_id}:ai_credits"
    assert answer["booked_micro"] == 40 * MICRO
    assert answer["allotment_micro"] == 790 * MICRO
    assert datetime.fromisoformat(answer["valid_until"]) == state.valid_until
    assert (answer["ledger_epoch"], answer["version"]) == ("0", state.version)
    other = ai_credits(client.get(path(project.pk), {"group": "new:3"}, headers=SERVICE))
    assert (other["booked_micro"], other["allotment_micro"]) == (0, 750 * MICRO)


def test_the_service_gets_the_database_state_while_redis_is_behind(
    client, ask, accounts, project, trusted_redis
):
    accounts.limit()
    trusted_redis()
    with HeldCommits():  # committed and in the change feed, but not pushed to Redis yet
        state = accounts.state(allotment_micro=792 * MICRO)
        publish([state])
    assert ai_credits(ask(project))["limited"] is True
    answer = ai_credits(client.get(path(project.pk), {"group": "eu:1"}, headers=SERVICE))
    assert (answer["limited"], answer["version"]) == (False, state.version)
    assert answer["allotment_micro"] == 792 * MICRO


class TestBlocksSetByHandBetweenTwoLooksOfTheReconciler:
    """The service asks again only after a change, so a block that it saw must cause one."""

    @pytest.fixture
    def is_told(self, client, project):
        """Return a function that asks, as the service, whether the project is limited."""
        return lambda: ai_credits(client.get(path(project.pk), headers=SERVICE))["limited"]

    @pytest.fixture
    def changes(self, accounts):
        start = Change.objects.count()
        return lambda: Change.objects.count() - start

    def test_a_block_that_is_removed_again_is_reported(
        self, accounts, project, trusted_redis, redis_client, is_told, changes
    ):
        trusted_redis()
        redis_client.zadd(LIMITS, {project.api_token: FAR_FUTURE})
        assert is_told() is True
        told = changes()
        redis_client.zrem(LIMITS, project.api_token)
        trusted_redis()
        assert changes() > told
        assert is_told() is False

    def test_a_block_that_is_set_again_is_reported(
        self, accounts, project, trusted_redis, redis_client, is_told, changes
    ):
        redis_client.zadd(LIMITS, {project.api_token: FAR_FUTURE})
        trusted_redis()
        redis_client.zrem(LIMITS, project.api_token)
        assert is_told() is False
        told = changes()
        redis_client.zadd(LIMITS, {project.api_token: FAR_FUTURE})
        trusted_redis()
        assert changes() > told
        assert is_told() is True

    def test_only_what_has_changed_is_recorded(
        self, stranger, project, trusted_redis, redis_client, is_told, changes
    ):
        redis_client.zadd(LIMITS, {project.api_token: FAR_FUTURE, stranger.api_token: FAR_FUTURE})
        trusted_redis()
        before = changes()
        assert is_told() is True
        assert changes() == before
        redis_client.zrem(LIMITS, project.api_token)
        assert is_told() is False
        assert SetMember.objects.get(origin="by_hand").token == stranger.api_token


def test_the_service_gets_the_caps_that_apply_to_a_call(client, project):
    set_cap(project.organization, AI_CREDITS, "project", 9, subject=str(project.pk))
    set_cap(project.organization, AI_CREDITS, "user", 7)
    path = f"/api/projects/{project.pk}/quota_limits/?group=gateway:epoch&user=slack:T1:U1"
    headers = {"HTTP_AUTHORIZATION": "Bearer service-token-of-the-test-suite"}

    caps = client.get(path, **headers).json()["limited"][AI_CREDITS]["caps"]

    assert (caps["run_micro"], caps["users"]) == (None, True)
    assert caps["scopes"] == {
        f"project:{project.pk}": {"cap_micro": 9, "allotment_micro": 9, "booked_micro": 0},
        "user:slack:T1:U1": {"cap_micro": 7, "allotment_micro": 7, "booked_micro": 0},
    }


def test_the_service_can_distinguish_unlimited_from_unknown(client, project, trusted_redis):
    answer = ai_credits(client.get(path(project.pk), {"group": "eu:1"}, headers=SERVICE))
    assert "allotment_micro" not in answer
    assert (answer["state"], answer["version"]) == ("unknown", 0)
    Accounts(project.organization).allow(
        limit_micro=None, remaining_micro=None, allotment_micro=None
    )
    answer = ai_credits(client.get(path(project.pk), {"group": "eu:1"}, headers=SERVICE))
    assert answer["allotment_micro"] is None


def test_other_callers_do_not_get_the_service_fields(ask, client, key, accounts, project):
    assert "account" not in ai_credits(ask(project))
    response = client.get(path(project.pk), {"group": "eu:1"}, headers=bearer(key))
    assert "allotment_micro" not in ai_credits(response)


def test_the_service_can_ask_about_every_existing_project(client, accounts, project, stranger):
    for one in (project, stranger):
        assert client.get(path(one.pk), headers=SERVICE).status_code == 200
    assert client.get(path(10**6), headers=SERVICE).status_code == 404
