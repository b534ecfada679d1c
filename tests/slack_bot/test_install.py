"""Installing the app in a workspace: who may do it, and for which project."""

from datetime import timedelta
from urllib.parse import parse_qs, urlsplit

import pytest
from django.contrib.auth.models import Permission
from django.db import connection
from django.test import Client
from django.utils import timezone

from devstack.demo_slack.web_api import SCOPE
from projects.models import (
    Membership,
    Organization,
    Project,
    RotatingToken,
    SlackWorkspace,
    User,
)
from slack_bot import install

INSTALL, REDIRECT = "/slack/install/", "/slack/oauth_redirect/"


@pytest.fixture(autouse=True)
def slack_app(settings, slack) -> None:
    settings.SLACK_CLIENT_ID = "1.2"
    settings.SLACK_CLIENT_SECRET = "the client secret"


@pytest.fixture
def admin(project) -> User:
    """An administrator of the project's organization, who is not staff."""
    user = User.objects.create_user("ada", "ada@example.com", "a long password")
    Membership.objects.create(
        organization=project.organization, user=user, role=Membership.Role.ADMIN
    )
    return user


def logged_in(user: User) -> Client:
    client = Client()
    client.force_login(user)
    return client


@pytest.fixture
def browser(admin) -> Client:
    return logged_in(admin)


def begin(browser: Client, **query) -> dict[str, str]:
    """Begin an installation; return the parameters that the user is sent to Slack with."""
    response = browser.get(INSTALL, query)
    assert response.status_code == 302
    return {name: value[0] for name, value in parse_qs(urlsplit(response.url).query).items()}


def finish(browser: Client, slack, state: str, **query):
    code = slack.new_code()
    return browser.get(REDIRECT, {"code": code, "state": state, **query})


# --- Beginning -----------------------------------------------------------------------------------
def test_an_administrator_with_one_project_is_sent_to_slack_at_once(browser, settings):
    response = browser.get(INSTALL)
    assert response.url.startswith(
        f"{settings.SLACK_API_URL.removesuffix('api/')}oauth/v2/authorize?"
    )
    sent = begin(browser)
    assert sent["client_id"] == "1.2"
    assert set(sent["scope"].split(",")) == set(install.SCOPES)
    assert sent["redirect_uri"] == "http://localhost:8000/slack/oauth_redirect/"
    assert len(sent["state"]) >= 32


def test_slacks_own_address_is_the_default(browser, settings):
    settings.SLACK_API_URL = "https://slack.com/api/"
    assert browser.get(INSTALL).url.startswith("https://slack.com/oauth/v2/authorize?")


def test_an_administrator_with_several_projects_chooses(browser, project, stranger):
    Project.objects.create(organization=project.organization, name="Second")
    page = browser.get(INSTALL).content.decode()
    assert "Main" in page
    assert "Second" in page
    assert "Theirs" not in page
    assert begin(browser, project=project.pk)


def test_organizations_distinguish_projects_of_the_same_name(
    browser, admin, project, stranger, slack
):
    Membership.objects.create(
        organization=stranger.organization, user=admin, role=Membership.Role.ADMIN
    )
    Project.objects.filter(pk__in=[project.pk, stranger.pk]).update(name="web")
    page = browser.get(INSTALL).content.decode()
    assert page.index("Acme / web") < page.index("Stranger / web")
    outcome = finish(browser, slack, begin(browser, project=stranger.pk)["state"])
    assert "for Stranger / web." in outcome.content.decode()


def test_another_organizations_project_cannot_be_chosen(browser, stranger):
    assert browser.get(INSTALL, {"project": stranger.pk}).status_code == 200


def test_staff_with_the_rights_may_choose_any_project_and_others_see_none(stranger, project):
    staff = User.objects.create_user("root", "root@example.com", "a long password", is_staff=True)
    assert logged_in(staff).get(INSTALL).status_code == 403
    rights = Permission.objects.filter(codename__in=["view_project", "change_slackworkspace"])
    staff.user_permissions.set(rights)
    assert begin(logged_in(staff), project=stranger.pk)


def test_an_ordinary_member_may_not_connect_a_workspace(project):
    user = User.objects.create_user("carl", "carl@example.com", "a long password")
    Membership.objects.create(organization=project.organization, user=user)
    assert logged_in(user).get(INSTALL).status_code == 403


@pytest.mark.parametrize("path", [INSTALL, REDIRECT])
def test_installing_requires_login(client, project, path):
    response = client.get(path)
    assert response.status_code == 302
    assert response.url.startswith("/login/")


def test_a_missing_client_id_is_reported(browser, settings):
    settings.SLACK_CLIENT_ID = ""
    assert browser.get(INSTALL).status_code == 503


# --- Finishing -----------------------------------------------------------------------------------
def test_the_workspace_serves_the_chosen_project(browser, slack, project):
    response = finish(browser, slack, begin(browser)["state"])
    assert response.status_code == 200
    workspace = SlackWorkspace.objects.get()
    assert (workspace.project, workspace.team_id, workspace.bot_token) == (
        project,
        "T1",
        "xoxb-demo",
    )
    assert workspace.credits_channel_id == "U1"
    assert (workspace.bot_user_id, workspace.app_id) == ("UBOT", "A1")
    assert "Acme" in response.content.decode()


def test_the_bot_token_is_not_stored_in_plain_text(browser, slack):
    finish(browser, slack, begin(browser)["state"])
    with connection.cursor() as cursor:
        cursor.execute("SELECT bot_token FROM projects_slackworkspace")
        [[stored]] = cursor.fetchall()
    assert "xoxb" not in stored


def test_a_state_works_once(browser, slack):
    state = begin(browser)["state"]
    assert finish(browser, slack, state).status_code == 200
    SlackWorkspace.objects.all().delete()
    assert finish(browser, slack, state).status_code == 400
    assert not SlackWorkspace.objects.exists()


def test_a_failed_attempt_uses_the_state_up(browser, slack):
    state = begin(browser)["state"]
    assert finish(browser, slack, "guess").status_code == 400
    assert finish(browser, slack, state).status_code == 400


def test_a_state_belongs_to_the_session_that_began(browser, slack, project):
    state = begin(browser)["state"]
    other = User.objects.create_user("eve", "eve@example.com", "a long password", is_staff=True)
    assert finish(logged_in(other), slack, state).status_code == 400
    assert not SlackWorkspace.objects.exists()


def test_a_state_lasts_ten_minutes(browser, slack, monkeypatch):
    monkeypatch.setattr(install, "_STATE_LASTS", -1)
    assert finish(browser, slack, begin(browser)["state"]).status_code == 400


@pytest.mark.parametrize("query", [{}, {"state": "x"}, {"code": "x"}, {"error": "access_denied"}])
def test_a_redirect_that_nobody_began_is_refused(browser, query):
    assert browser.get(REDIRECT, query).status_code == 400


def test_a_user_who_declines_at_slack_is_told_so(browser, slack):
    response = finish(browser, slack, begin(browser)["state"], error="access_denied")
    assert response.status_code == 400
    assert not SlackWorkspace.objects.exists()


def test_somebody_who_lost_the_role_meanwhile_finishes_nothing(browser, slack, project):
    state = begin(browser)["state"]
    Membership.objects.update(role=Membership.Role.MEMBER)
    assert finish(browser, slack, state).status_code == 400
    assert not SlackWorkspace.objects.exists()


def test_installing_again_renews_the_installation(browser, slack, workspace):
    SlackWorkspace.objects.update(bot_token="xoxb-old", is_active=False)
    assert finish(browser, slack, begin(browser)["state"]).status_code == 200
    workspace.refresh_from_db()
    assert (workspace.is_active, workspace.bot_token) == (True, "xoxb-demo")


def test_a_workspace_of_another_project_is_not_moved_and_its_project_not_named(
    browser, slack, stranger
):
    SlackWorkspace.objects.create(
        project=stranger, team_id="T1", bot_user_id="UBOT", bot_token="xoxb-theirs"
    )
    response = finish(browser, slack, begin(browser)["state"])
    assert response.status_code == 409
    assert "Theirs" not in response.content.decode()
    assert SlackWorkspace.objects.get().bot_token == "xoxb-theirs"


def test_a_slack_that_refuses_the_code_is_reported(browser, slack):
    state = begin(browser)["state"]
    response = browser.get(REDIRECT, {"code": "made up", "state": state})
    assert response.status_code == 400
    assert "invalid_code" in response.content.decode()


def test_a_slack_that_cannot_be_reached_is_reported(browser, slack, settings):
    state = begin(browser)["state"]
    settings.SLACK_API_URL = "http://127.0.0.1:1/api/"
    assert finish(browser, slack, state).status_code == 400


def test_an_app_with_token_rotation_gets_its_tokens_renewed(browser, slack):
    slack.rotate_tokens()
    assert finish(browser, slack, begin(browser)["state"]).status_code == 200
    token = RotatingToken.objects.get()
    assert token.refresh_token.startswith("xoxe-1-")
    assert timedelta(hours=11) < token.expires_at - timezone.now() <= timedelta(hours=12)
    assert token.workspace == SlackWorkspace.objects.get()


def test_an_installation_without_token_rotation_ends_the_renewal(browser, slack):
    slack.rotate_tokens()
    finish(browser, slack, begin(browser)["state"])
    slack.slack.web_api.rotates_tokens = False
    finish(browser, slack, begin(browser)["state"])
    assert not RotatingToken.objects.exists()


def test_the_granted_scopes_are_stored(browser, slack):
    finish(browser, slack, begin(browser)["state"])
    assert SlackWorkspace.objects.get().scopes == SCOPE


def test_an_organization_name_is_shown_as_text(project, admin):
    Organization.objects.update(name="<script>alert(1)</script>")
    Project.objects.create(organization=project.organization, name="<b>Second</b>")
    assert "<b>" not in logged_in(admin).get(INSTALL).content.decode()
