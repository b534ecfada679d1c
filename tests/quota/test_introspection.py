"""`POST /oauth/introspect/`, as the gateway asks it."""

import uuid
from datetime import timedelta
from urllib.parse import urlencode

import pytest
from django.utils import timezone

from billing.organizations import set_organization_active
from projects.authentication import credentials
from projects.models import Change, OAuthAccessToken, OAuthApplication, Organization, Project, User
from projects.principal import READ_SCOPES
from projects.tokens import sha256
from quota.resources import RESOURCES

pytestmark = pytest.mark.django_db

HOUR = timedelta(hours=1)
SERVICE = {"authorization": "Bearer service-token-of-the-test-suite"}


def post(client, form, headers):
    return client.post(
        "/oauth/introspect/",
        urlencode(form),
        content_type="application/x-www-form-urlencoded",
        headers=headers,
    )


@pytest.fixture
def organization(redis_client) -> Organization:
    return Organization.objects.create(name="Acme")


@pytest.fixture
def project(organization) -> Project:
    return Project.objects.create(organization=organization, name="Main")


@pytest.fixture
def introspect(client):
    def _introspect(token, **form):
        answer = post(client, {"token": token} | form, SERVICE)
        assert answer.status_code == 200, answer.content
        return answer.json()

    return _introspect


def test_a_run_token_names_its_run_project_and_products(introspect, organization, project):
    run = uuid.uuid4()
    token = credentials.mint_run_token(project, run, ["slack_app"], HOUR, distinct_id="slack:T1:U1")
    described = introspect(token)
    assert described.pop("exp") == pytest.approx((timezone.now() + HOUR).timestamp(), abs=30)
    assert set(described.pop("resources")) == set(RESOURCES)
    assert described == {
        "active": True,
        "token_type": "Bearer",
        "scope": "llm_gateway:read",
        "organization_id": str(organization.pk),
        "project_id": project.pk,
        "project_ids": [project.pk],
        "task_run_id": str(run),
        "distinct_id": "slack:T1:U1",
        "products": ["slack_app"],
        "token_kind": "oauth_run",
    }


def test_a_run_token_says_what_was_accepted_for_its_run(introspect, project):
    token = credentials.mint_run_token(
        project, uuid.uuid4(), ["slack_app"], HOUR, accepted_micro=40_000_000
    )
    assert introspect(token)["accepted_micro"] == 40_000_000


def test_a_product_token_belongs_to_no_run(introspect, project):
    token = credentials.mint_product_token(project, "slack_app_routing", HOUR)
    described = introspect(token)
    assert (described["token_kind"], described["task_run_id"]) == ("oauth_product", None)
    assert described["products"] == ["slack_app_routing"]


def test_a_desktop_clients_token_says_whose_it_is(introspect, project):
    user = User.objects.create_user("ada")
    project.organization.members.add(user)
    application = OAuthApplication.objects.create(client_type="public")
    token = credentials.mint_product_token(project, "unused", HOUR)
    OAuthAccessToken.objects.update(user=user, application=application, products=[])
    described = introspect(token)
    assert described["token_kind"] == "oauth_client"
    assert described["products"] == ["posthog_code"]
    assert described["client_id"] == application.client_id
    assert described["sub"] == str(user.pk)


def test_a_key_of_several_projects_lists_them_and_has_no_project_id(
    introspect, organization, project
):
    other = Project.objects.create(organization=organization, name="Other")
    _, plain = credentials.issue_personal_api_key(organization, "k", READ_SCOPES)
    described = introspect(plain)
    assert described["project_id"] is None
    assert described["project_ids"] == sorted([project.pk, other.pk])
    assert described["token_kind"] == "personal_api_key"
    assert "exp" not in described


def test_the_unmetered_product_is_listed_only_if_an_operator_allows_it(
    introspect, organization, project
):
    _, plain = credentials.issue_personal_api_key(organization, "k", READ_SCOPES)
    assert introspect(plain)["products"] == ["slack_app_routing"]
    organization.unmetered_gateway = True
    organization.save()
    assert introspect(plain)["products"] == ["slack_app_routing", "llm_gateway"]
    set_organization_active(organization, False)
    assert introspect(plain)["products"] == ["slack_app_routing"]
    assert Change.objects.get(kind="credential_revoked").payload == {"sha256": sha256(plain)}


def test_revoked_credentials_are_inactive_at_once(introspect, organization, project):
    key, plain = credentials.issue_personal_api_key(organization, "k", READ_SCOPES)
    run = uuid.uuid4()
    token = credentials.mint_run_token(project, run, ["slack_app"], HOUR)
    assert introspect(plain)["active"]
    assert introspect(token)["active"]
    credentials.revoke_personal_api_key(key)
    credentials.revoke_run_tokens(run)
    assert introspect(plain) == introspect(token) == {"active": False}


@pytest.mark.parametrize(
    "token",
    [
        "phx_unknown",
        "pha_unknown",
        "nonsense",
        "x" * 5000,
        "phx_\u00e9",
        "phx_\x00",
        " ",
        "service-token-of-the-test-suite",
    ],
)
def test_any_other_text_is_inactive_without_details(introspect, project, token):
    assert introspect(token) == {"active": False}


def test_a_refresh_token_and_a_project_api_token_are_inactive(introspect, project):
    assert introspect(project.api_token) == {"active": False}
    assert introspect("phr_something") == {"active": False}


def test_an_expired_token_is_inactive(introspect, project):
    token = credentials.mint_product_token(project, "slack_app_routing", -HOUR)
    assert introspect(token) == {"active": False}


def test_a_key_without_projects_has_no_resources(introspect, organization):
    doomed = Project.objects.create(organization=organization, name="Doomed")
    _, plain = credentials.issue_personal_api_key(organization, "k", READ_SCOPES, [doomed])
    Project.objects.filter(pk=doomed.pk).delete()
    described = introspect(plain)
    assert (described["project_ids"], described["resources"]) == ([], {})


@pytest.mark.parametrize("form", [{}, {"token": ""}, {"group": "g"}])
def test_a_request_without_a_token_is_invalid(client, form):
    answer = post(client, form, SERVICE)
    assert answer.status_code == 400
    assert answer.json()["error"] == "invalid_request"


def test_a_token_in_another_form_is_refused(client):
    answer = client.post(
        "/oauth/introspect/", {"token": "x"}, content_type="application/json", headers=SERVICE
    )
    assert answer.status_code == 415


@pytest.mark.parametrize("headers", [{}, {"authorization": "Bearer wrong"}])
def test_only_the_gateway_may_ask(client, headers):
    answer = post(client, {"token": "phx_x"}, headers)
    assert answer.status_code == 401


def test_a_credential_cannot_introspect_itself(client, organization):
    _, plain = credentials.issue_personal_api_key(organization, "k", READ_SCOPES)
    answer = post(client, {"token": plain}, {"authorization": f"Bearer {plain}"})
    assert answer.status_code == 401


def test_get_is_not_allowed(client):
    assert client.get("/oauth/introspect/?token=x", headers=SERVICE).status_code == 405
