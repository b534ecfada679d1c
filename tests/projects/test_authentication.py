"""Authentication, as an API view sees it."""

import socket
import uuid
from datetime import timedelta

import pytest
from django.db import OperationalError
from django.http import HttpResponse
from django.test import override_settings
from django.urls import path
from django.utils import timezone
from rest_framework.response import Response
from rest_framework.views import APIView

from devstack.servers import free_port
from projects import credential_cache
from projects.authentication import credential_lookup, credentials
from projects.authentication.permissions import IsService, covered_project, has_any_scope
from projects.authentication.schemes import (
    ProjectCredentialAuthentication,
    ServiceTokenAuthentication,
    SessionPrincipalAuthentication,
    UnconfirmedCredentialAuthentication,
    confirm,
)
from projects.models import Membership, OAuthAccessToken, PersonalAPIKey, Project
from projects.principal import READ_SCOPES, Kind, Principal
from projects.redis_connection import redis_connection
from tests.redis_timeouts import wait_as_in_production

pytestmark = pytest.mark.django_db(transaction=True)


class ProjectView(APIView):
    """Answers with the API token of the project that the path names."""

    authentication_classes = [
        ServiceTokenAuthentication,
        ProjectCredentialAuthentication,
        SessionPrincipalAuthentication,
    ]
    permission_classes = [has_any_scope("project:read", "llm_gateway:read")]

    def get(self, request, project_id):
        return Response({"api_token": covered_project(request.user, project_id).api_token})


class OneRoundTripView(ProjectView):
    """Reads the generation together with its answer, like the quota endpoint."""

    authentication_classes = [UnconfirmedCredentialAuthentication]

    def get(self, request, project_id):
        confirm(request, self, credential_cache.current_generation())
        return super().get(request, project_id)


class ServiceView(APIView):
    authentication_classes = [ServiceTokenAuthentication]
    permission_classes = [IsService]

    def get(self, request):
        return HttpResponse("for the gateway")


urlpatterns = [
    path("projects/<int:project_id>/", ProjectView.as_view()),
    path("one-round-trip/<int:project_id>/", OneRoundTripView.as_view()),
    path("service/", ServiceView.as_view()),
]


@pytest.fixture(autouse=True)
def these_paths(redis_client):
    with override_settings(ROOT_URLCONF=__name__):
        yield


@pytest.fixture
def get(client):
    """Return a function that gets a project with a bearer token."""

    def _get(project_id, token=None, prefix="projects"):
        headers = {} if token is None else {"authorization": f"Bearer {token}"}
        return client.get(f"/{prefix}/{project_id}/", headers=headers)

    return _get


@pytest.fixture
def key(organization, project):
    """A key of one project."""
    return credentials.issue_personal_api_key(
        organization, "test", ["project:read"], projects=[project]
    )


def test_a_key_opens_its_own_project(get, key, project):
    answer = get(project.pk, key[1])
    assert (answer.status_code, answer.json()) == (200, {"api_token": project.api_token})


def test_a_key_of_the_organization_opens_all_its_projects_including_later_ones(
    get, organization, project, sibling
):
    _, plain = credentials.issue_personal_api_key(organization, "all", ["project:read"])
    assert [get(project.pk, plain).status_code, get(sibling.pk, plain).status_code] == [200, 200]
    later = Project.objects.create(organization=organization, name="Later")
    assert get(later.pk, plain).status_code == 200


@pytest.mark.case("Q1")
def test_no_credential_is_refused_with_401_naming_the_scheme(get, project):
    answer = get(project.pk)
    assert answer.status_code == 401
    assert answer["WWW-Authenticate"] == 'Bearer realm="tollgate"'


@pytest.mark.parametrize(
    "header",
    [
        "Bearer phx_unknown",
        "Bearer pha_unknown",
        "Bearer phc_unknown",
        "Bearer",
        "Bearer two words",
        "Bearer " + "phx_" + "x" * 5000,
        "Bearer phx_\u00e9\u00e8",
        "Bearer phx_\x00nul",
        "Bearer \udcff",
        "Basic YTpi",
        "",
        "phx_unknown",
    ],
)
def test_a_credential_that_is_not_known_is_refused_with_401(client, project, header):
    answer = client.get(f"/projects/{project.pk}/", HTTP_AUTHORIZATION=header)
    assert answer.status_code == 401


def test_another_organizations_project_looks_like_one_that_does_not_exist(
    get, key, foreign_project
):
    foreign, missing = get(foreign_project.pk, key[1]), get(987654321, key[1])
    assert foreign.status_code == missing.status_code == 404
    assert foreign.json() == missing.json()


def test_a_key_scoped_to_a_sibling_project_is_forbidden(get, key, sibling):
    assert get(sibling.pk, key[1]).status_code == 403


def test_a_key_whose_only_project_is_gone_does_not_open_the_others(get, organization, sibling):
    doomed = Project.objects.create(organization=organization, name="Doomed")
    _, plain = credentials.issue_personal_api_key(organization, "k", ["project:read"], [doomed])
    doomed.delete()
    assert get(sibling.pk, plain).status_code == 403


@pytest.mark.parametrize("scope", ["project:read", "llm_gateway:read"])
def test_either_scope_suffices(get, organization, project, scope):
    _, plain = credentials.issue_personal_api_key(organization, "test", [scope])
    assert get(project.pk, plain).status_code == 200


def test_without_either_scope_the_refusal_names_them(get, organization, project):
    _, plain = credentials.issue_personal_api_key(organization, "test", ["billing:read"])
    answer = get(project.pk, plain)
    assert answer.status_code == 403
    assert "project:read or llm_gateway:read" in answer.json()["detail"]


def test_a_run_token_opens_its_project_until_it_expires(get, project, sibling, foreign_project):
    run = uuid.uuid4()
    token = credentials.mint_run_token(project, run, ["slack_app"], timedelta(minutes=5))
    statuses = [get(p.pk, token).status_code for p in (project, sibling, foreign_project)]
    assert statuses == [200, 403, 404]
    OAuthAccessToken.objects.update(expires="2020-01-01T00:00Z")
    credential_cache.forget_all()
    assert get(project.pk, token).status_code == 401


def test_a_cached_token_expires_on_time(get, project, monkeypatch):
    token = credentials.mint_product_token(project, "slack_app_routing", timedelta(minutes=5))
    assert get(project.pk, token).status_code == 200
    expires = OAuthAccessToken.objects.get().expires
    monkeypatch.setattr(timezone, "now", lambda: expires - timedelta.resolution)
    assert get(project.pk, token).status_code == 200
    monkeypatch.setattr(timezone, "now", lambda: expires)
    assert get(project.pk, token).status_code == 401


def test_a_token_meant_for_another_audience_opens_nothing(get, project):
    token = credentials.mint_product_token(project, "slack_app_routing", timedelta(minutes=5))
    OAuthAccessToken.objects.update(resource=["https://elsewhere.example.com/"])
    assert get(project.pk, token).status_code == 401


def test_a_session_opens_the_projects_of_the_users_organizations(
    client, member, project, foreign_project
):
    client.force_login(member)
    assert client.get(f"/projects/{project.pk}/").status_code == 200
    assert client.get(f"/projects/{foreign_project.pk}/").status_code == 404
    Membership.objects.all().delete()
    assert client.get(f"/projects/{project.pk}/").status_code == 404


def test_a_session_does_not_make_up_for_a_wrong_bearer_token(client, member, project):
    client.force_login(member)
    answer = client.get(f"/projects/{project.pk}/", headers={"authorization": "Bearer nonsense"})
    assert answer.status_code == 401


@pytest.mark.case("Q11")
def test_the_credential_of_an_inactive_organization_is_still_known(get, key, organization, project):
    organization.is_active = False
    organization.save()
    assert get(project.pk, key[1]).status_code == 200


def test_a_users_key_ends_with_their_membership(get, organization, project, member):
    _, plain = credentials.issue_personal_api_key(
        organization, "ada's", ["project:read"], user=member
    )
    assert get(project.pk, plain).status_code == 200
    Membership.objects.get().delete()
    assert get(project.pk, plain).status_code == 401


def test_a_users_key_ends_when_the_user_is_deactivated_and_works_again_after(
    get, organization, project, member
):
    _, plain = credentials.issue_personal_api_key(
        organization, "ada's", ["project:read"], user=member
    )
    assert get(project.pk, plain).status_code == 200
    member.is_active = False
    member.save()
    assert get(project.pk, plain).status_code == 401
    member.is_active = True
    member.save()
    assert get(project.pk, plain).status_code == 200


@pytest.mark.parametrize("prefix", ["projects", "one-round-trip"])
def test_a_known_credential_costs_no_database_query(
    get, key, project, prefix, django_assert_num_queries
):
    assert get(project.pk, key[1], prefix).status_code == 200
    with django_assert_num_queries(0):
        assert get(project.pk, key[1], prefix).status_code == 200


@pytest.mark.parametrize("prefix", ["projects", "one-round-trip"])
def test_a_revoked_key_is_refused_at_the_next_request(get, key, project, prefix):
    assert get(project.pk, key[1], prefix).status_code == 200
    credentials.revoke_personal_api_key(key[0])
    assert get(project.pk, key[1], prefix).status_code == 401


@pytest.mark.parametrize("prefix", ["projects", "one-round-trip"])
def test_a_revocation_by_another_process_is_obeyed_at_the_next_request(
    get, key, project, prefix, monkeypatch
):
    assert get(project.pk, key[1], prefix).status_code == 200
    monkeypatch.setattr(credential_cache, "forget_all", lambda: None)
    credentials.revoke_personal_api_key(key[0])
    assert get(project.pk, key[1], prefix).status_code == 401


@pytest.mark.parametrize("prefix", ["projects", "one-round-trip"])
def test_the_cache_is_not_used_after_redis_was_wiped(get, key, project, redis_client, prefix):
    assert get(project.pk, key[1], prefix).status_code == 200
    PersonalAPIKey.objects.update(revoked_at="2026-01-01T00:00Z")  # without announcing it
    redis_client.flushall()
    assert get(project.pk, key[1], prefix).status_code == 401


@pytest.mark.parametrize("prefix", ["projects", "one-round-trip"])
def test_without_redis_the_database_answers_every_time(get, key, project, prefix, settings):
    assert get(project.pk, key[1], prefix).status_code == 200
    settings.REDIS_URL = f"redis://127.0.0.1:{free_port()}/0"
    redis_connection.cache_clear()
    try:
        assert get(project.pk, key[1], prefix).status_code == 200
        PersonalAPIKey.objects.update(revoked_at="2026-01-01T00:00Z")
        assert get(project.pk, key[1], prefix).status_code == 401
    finally:
        redis_connection.cache_clear()


def test_a_redis_that_hangs_delays_one_request_and_not_the_next(
    get, key, project, settings, monkeypatch
):
    wait_as_in_production(monkeypatch)
    monkeypatch.setattr(credential_cache, "SILENCE_SECONDS", 60)  # however busy this machine is
    with socket.create_server(("127.0.0.1", 0)) as mute:
        settings.REDIS_URL = f"redis://127.0.0.1:{mute.getsockname()[1]}/0"
        redis_connection.cache_clear()
        try:
            assert get(project.pk, key[1]).status_code == 200
            monkeypatch.setattr(credential_cache, "redis_connection", None)  # must not be called
            assert get(project.pk, key[1]).status_code == 200
        finally:
            redis_connection().close()
            redis_connection.cache_clear()


def test_while_the_database_is_down_only_cached_credentials_are_served(
    get, key, project, monkeypatch
):
    def unanswered(*_args):
        raise OperationalError("no database")

    assert get(project.pk, key[1]).status_code == 200
    monkeypatch.setattr(credential_lookup, "find", unanswered)
    assert get(project.pk, key[1]).status_code == 200
    answer = get(project.pk, "phx_unknown")
    assert (answer.status_code, answer["Retry-After"]) == (503, "5")


def test_a_revocation_that_never_reached_redis_applies_after_the_cache_lifetime(
    get, key, project, monkeypatch
):
    assert get(project.pk, key[1]).status_code == 200
    PersonalAPIKey.objects.update(revoked_at="2026-01-01T00:00Z")  # as if the process had died
    assert get(project.pk, key[1]).status_code == 200
    real = credential_cache.time.monotonic
    monkeypatch.setattr(
        credential_cache.time,
        "monotonic",
        lambda: real() + credential_cache.LIFETIME_SECONDS,
    )
    assert get(project.pk, key[1]).status_code == 401


def test_a_lookup_during_the_commit_of_a_revocation_is_not_cached(get, key, project):
    generation = credential_cache.current_generation()
    get(project.pk, key[1])
    credential_cache._renew_generation()
    late = Principal(Kind.PERSONAL_API_KEY, credential_sha256=key[0].sha256)
    credential_cache.remember(late, generation, credential_cache.time.monotonic())
    assert get(project.pk, key[1]).json() == {"api_token": project.api_token}


def test_permissions_are_checked_again_after_a_fresh_lookup(
    get, key, project, redis_client, monkeypatch
):
    assert get(project.pk, key[1], "one-round-trip").status_code == 200
    PersonalAPIKey.objects.update(scopes=["billing:read"])
    redis_client.set(credential_cache.GENERATION_KEY, "another")
    assert get(project.pk, key[1], "one-round-trip").status_code == 403


def test_the_cache_holds_a_bounded_number_of_credentials(monkeypatch):
    monkeypatch.setattr(credential_cache, "CAPACITY", 3)
    for number in range(10):
        credential_cache.remember(Principal(Kind.OAUTH, credential_sha256=str(number)), "g", 0.0)
    assert len(credential_cache._remembered) <= 3


@pytest.mark.parametrize("token", ["service-token-of-the-test-suite", "the-next-one"])
def test_each_service_token_opens_service_endpoints_and_every_project(
    client, get, project, settings, token
):
    settings.GATEWAY_SERVICE_TOKENS = ["service-token-of-the-test-suite", "the-next-one"]
    assert client.get("/service/", headers={"authorization": f"Bearer {token}"}).status_code == 200
    assert get(project.pk, token).status_code == 200
    assert get(987654321, token).status_code == 404


@pytest.mark.parametrize(
    "header", ["Bearer wrong", "Bearer \u00e9", "Bearer " + "x" * 5000, "Bearer", "", "Basic YTpi"]
)
def test_service_endpoints_refuse_everything_else_with_401(client, header):
    answer = client.get("/service/", HTTP_AUTHORIZATION=header)
    assert answer.status_code == 401
    assert answer["WWW-Authenticate"].startswith("Bearer")


def test_without_configured_service_tokens_none_is_accepted(client, settings):
    settings.GATEWAY_SERVICE_TOKENS = []
    assert client.get("/service/", headers={"authorization": "Bearer x"}).status_code == 401


def test_a_project_credential_opens_no_service_endpoint(client, organization):
    _, plain = credentials.issue_personal_api_key(organization, "test", READ_SCOPES)
    answer = client.get("/service/", headers={"authorization": f"Bearer {plain}"})
    assert answer.status_code == 401
