"""`GET /api/projects/<id>/quota_limits/`, as its clients see it."""

import socket
from datetime import UTC, datetime, timedelta

import pytest
from django.db import OperationalError, connection
from django.db.models.query import QuerySet
from django.test.utils import CaptureQueriesContext
from django.utils import timezone

from billing.allowances.caps import set_cap
from billing.organizations import create_project, rotate_api_token
from projects import credential_cache, credentials
from projects.models import Membership, Project, User
from quota.account_state import FAR_FUTURE
from quota.published import limited_set
from quota.published import redis_client as quota_redis
from quota.published.publication import publish
from quota.resources import AI_CREDITS, MICRO, POSTHOG_CODE_CREDITS, RESOURCES
from tests.quota.world import LIMITS, SUSPENDED, Accounts, HeldCommits, run_commit_hooks
from tests.stopwatch import Stopwatch

pytestmark = pytest.mark.django_db

SERVICE = {"authorization": "Bearer service-token-of-the-test-suite"}


def bearer(token: str) -> dict[str, str]:
    return {"authorization": f"Bearer {token}"}


def path(project_id: object) -> str:
    return f"/api/projects/{project_id}/quota_limits/"


@pytest.fixture
def key(project) -> str:
    return credentials.issue_personal_api_key(
        project.organization, "poller", ["project:read"], [project]
    )[1]


@pytest.fixture
def ask(client, key):
    """Ask for a project's quota with the project's key, or with other headers."""

    def _ask(project, **headers):
        return client.get(path(project.pk), headers=bearer(key) | headers)

    return _ask


def ai_credits(response) -> dict:
    assert response.status_code == 200, response.content
    return response.json()["limited"][AI_CREDITS]


def epoch(instant: datetime) -> int:
    return int(instant.timestamp())


# --- who may ask ---------------------------------------------------------------------------------
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


@pytest.mark.parametrize("scope", ["project:read", "llm_gateway:read"])
def test_one_of_two_scopes_is_enough(client, accounts, project, scope):
    _, key = credentials.issue_personal_api_key(project.organization, "poller", [scope])
    assert client.get(path(project.pk), headers=bearer(key)).status_code == 200


@pytest.mark.parametrize("scopes", [[], ["billing:read"]])
def test_a_key_with_neither_scope_is_told_which_it_needs(client, accounts, project, scopes):
    _, key = credentials.issue_personal_api_key(project.organization, "poller", scopes)
    response = client.get(path(project.pk), headers=bearer(key))
    assert response.status_code == 403
    assert "project:read or llm_gateway:read" in response.json()["detail"]


def test_an_oauth_token_of_the_project_is_answered(client, accounts, project):
    token = credentials.mint_product_token(project, "slack_app_routing", timedelta(hours=1))
    assert client.get(path(project.pk), headers=bearer(token)).status_code == 200


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


# --- answers -------------------------------------------------------------------------------------
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


def test_both_stores_give_the_same_answer(ask, accounts, project, trusted_redis):
    accounts.limit(reason="organization_inactive", limited_until=FAR_FUTURE)
    from_database = ask(project)
    trusted_redis()
    assert ask(project).headers["ETag"] == from_database.headers["ETag"]


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


def test_an_account_that_was_never_decided_is_unknown(ask, project):
    answer = ai_credits(ask(project))
    assert (answer["limited"], answer["state"], answer["limit"]) == (False, "unknown", None)


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


# --- the sorted set ------------------------------------------------------------------------------
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


# --- caching -------------------------------------------------------------------------------------
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


# --- the gateway ---------------------------------------------------------------------------------
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


# --- cost ----------------------------------------------------------------------------------------
class RoundTrips:
    """Counts this process's writes to Redis. The database drivers use no Python sockets."""

    def __init__(self, monkeypatch) -> None:
        self.count = 0
        original = socket.socket.sendall

        def counting(sock, *args):
            self.count += 1
            return original(sock, *args)

        monkeypatch.setattr(socket.socket, "sendall", counting)


def test_a_known_credential_costs_no_query_and_one_round_trip(
    ask, accounts, project, trusted_redis, monkeypatch
):
    accounts.limit()
    trusted_redis()
    assert ask(project).status_code == 200
    trips = RoundTrips(monkeypatch)
    with CaptureQueriesContext(connection) as queries:
        response = ask(project)
    assert ai_credits(response)["limited"] is True
    assert (len(queries), trips.count) == (0, 1)


# --- failures ------------------------------------------------------------------------------------
def test_a_dead_redis_is_answered_from_the_database(ask, accounts, project, own_redis):
    accounts.limit()
    own_redis.stop()
    assert ai_credits(ask(project))["limited"] is True
    accounts.allow()
    assert ai_credits(ask(project))["limited"] is False


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
