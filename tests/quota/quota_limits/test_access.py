"""`GET /api/projects/<id>/quota_limits/`: who may ask for the limits of which project."""

from datetime import timedelta

import pytest

from billing.organizations import create_project, rotate_api_token
from projects import credential_cache
from projects.authentication import credentials
from projects.models import Membership, Project, User
from quota.account_state import FAR_FUTURE
from tests.quota.quota_limits.requests import ai_credits, bearer, path
from tests.quota.world import LIMITS, run_commit_hooks

pytestmark = pytest.mark.django_db


@pytest.mark.case("Q1")
@pytest.mark.parametrize(
    "headers",
    [
        {},
        bearer("phx_unknown"),
        bearer("pha_unknown"),
        bearer("neither"),
        bearer("two words"),
        {"authorization": "Basic cGh4XzpwYXNz"},
        {"x-api-key": "phx_unknown"},
    ],
)
def test_a_request_without_a_valid_credential_is_refused(client, accounts, project, headers):
    response = client.get(path(project.pk), headers=headers)
    assert response.status_code == 401
    assert response.headers["WWW-Authenticate"].startswith("Bearer")


def test_one_callers_refusal_does_not_affect_another_caller(
    client, accounts, project, stranger, key
):
    _, theirs = credentials.issue_personal_api_key(stranger.organization, "x", ["project:read"])
    for headers in (bearer("phx_unknown"), bearer(theirs)):
        assert client.get(path(project.pk), headers=headers).status_code in (401, 404)
        assert client.get(path(project.pk), headers=bearer(key)).status_code == 200


@pytest.mark.case("Q4")
@pytest.mark.parametrize("scope", ["project:read", "llm_gateway:read"])
def test_one_of_two_scopes_is_enough(client, accounts, project, scope):
    _, key = credentials.issue_personal_api_key(project.organization, "poller", [scope])
    assert client.get(path(project.pk), headers=bearer(key)).status_code == 200


@pytest.mark.case("Q5")
@pytest.mark.parametrize("scopes", [[], ["billing:read"]])
def test_a_key_with_neither_scope_is_told_which_it_needs(client, accounts, project, scopes):
    _, key = credentials.issue_personal_api_key(project.organization, "poller", scopes)
    response = client.get(path(project.pk), headers=bearer(key))
    assert response.status_code == 403
    assert "project:read or llm_gateway:read" in response.json()["detail"]


@pytest.mark.case("Q4")
def test_an_oauth_token_of_the_project_is_answered(client, accounts, project):
    token = credentials.mint_product_token(project, "slack_app_routing", timedelta(hours=1))
    assert client.get(path(project.pk), headers=bearer(token)).status_code == 200


@pytest.mark.case("Q2")
@pytest.mark.parametrize("warm", [False, True])
def test_a_stranger_learns_nothing_not_even_that_the_project_exists(
    ask, accounts, project, stranger, warm
):
    if warm:
        assert ask(project).status_code == 200
    theirs = ask(stranger)
    missing = ask(Project(pk=10**6))
    assert theirs.status_code == missing.status_code == 404
    assert theirs.json() == missing.json()


@pytest.mark.case("Q3")
@pytest.mark.parametrize("warm", [False, True])
def test_a_key_of_a_sibling_project_is_refused(ask, accounts, project, warm):
    sibling = Project.objects.create(organization=project.organization, name="Sibling")
    if warm:
        assert ask(project).status_code == 200
    assert ask(sibling).status_code == 403


@pytest.mark.parametrize("project_id", ["0", str(2**63), "9" * 40])
def test_an_impossible_project_is_not_found(client, key, accounts, project_id):
    assert client.get(path(project_id), headers=bearer(key)).status_code == 404


def test_a_member_may_ask_from_their_session(client, accounts, project, stranger):
    member = User.objects.create_user("ada", password="a password")
    Membership.objects.create(organization=project.organization, user=member)
    client.force_login(member)
    assert client.get(path(project.pk)).status_code == 200
    assert client.get(path(stranger.pk)).status_code == 404


@pytest.mark.case("Q15")
@pytest.mark.parametrize("method", ["post", "put", "patch", "delete"])
def test_other_methods_are_not_allowed(client, key, accounts, project, method):
    response = getattr(client, method)(path(project.pk), headers=bearer(key))
    assert response.status_code == 405
    assert "GET" in response.headers["Allow"]


@pytest.fixture
def elsewhere(monkeypatch):
    """Act as another process would: this process learns of it only through Redis."""
    monkeypatch.setattr(credential_cache, "forget_all", lambda: None)
    return run_commit_hooks


def test_a_key_revoked_elsewhere_is_refused_at_once_although_it_is_cached(
    client, accounts, project, trusted_redis, elsewhere
):
    row, key = credentials.issue_personal_api_key(project.organization, "poller", ["project:read"])
    trusted_redis()
    assert client.get(path(project.pk), headers=bearer(key)).status_code == 200
    with elsewhere():
        credentials.revoke_personal_api_key(row)
    assert client.get(path(project.pk), headers=bearer(key)).status_code == 401


def test_a_token_rotated_elsewhere_is_the_one_that_is_looked_up(
    ask, accounts, project, trusted_redis, redis_client, elsewhere
):
    trusted_redis()
    assert ai_credits(ask(project))["limited"] is False
    with elsewhere():
        rotate_api_token(project)
    project.refresh_from_db()
    redis_client.zadd(LIMITS, {project.api_token: FAR_FUTURE})
    assert ai_credits(ask(project))["limited"] is True


def test_a_cached_key_of_all_projects_covers_a_project_made_later(
    client, accounts, project, trusted_redis
):
    _, key = credentials.issue_personal_api_key(project.organization, "poller", ["project:read"])
    trusted_redis()
    assert client.get(path(project.pk), headers=bearer(key)).status_code == 200
    with run_commit_hooks():
        newer = create_project(project.organization, "Newer")
    assert client.get(path(newer.pk), headers=bearer(key)).status_code == 200
