"""Who may use the bot, by the workspace's setting and the person's Slack profile."""

import pytest

from projects.models import Membership, Organization, Project, SlackWorkspace, User
from tests.fakes import FakeSlack
from workflows.slack import access
from workflows.slack.access import Access
from workflows.slack.client import Meaning, failure_of

EVERYONE, MEMBERS = SlackWorkspace.Access.EVERYONE, SlackWorkspace.Access.MEMBERS


@pytest.fixture
def slack(_slack: FakeSlack, settings) -> FakeSlack:
    _slack.reset()
    settings.SLACK_API_URL = _slack.api_url
    return _slack


@pytest.fixture
def organization(db) -> Organization:
    return Organization.objects.create(name="Acme & <Sons>")


@pytest.fixture
def workspace(organization, slack) -> SlackWorkspace:
    project = Project.objects.create(organization=organization, name="Main")
    return SlackWorkspace.objects.create(
        project=project, team_id="T1", bot_user_id="UBOT", bot_token="xoxb-demo"
    )


def join(organization: Organization, email: str, **fields) -> None:
    user = User.objects.create_user(email, email, "a long password", **fields)
    Membership.objects.create(organization=organization, user=user)


# --- everyone ------------------------------------------------------------------------------------
@pytest.mark.case("S31")
def test_full_members_of_the_workspace_may_use_it_by_default(workspace):
    assert access.check(workspace, "U2") is Access.GRANTED


@pytest.mark.case("S31", "U9")
@pytest.mark.parametrize(
    "profile",
    [
        {"is_restricted": True},
        {"is_restricted": True, "is_ultra_restricted": True},
        {"is_stranger": True},
        {"is_bot": True},
        {"deleted": True},
        {"team": "T2"},
    ],
)
def test_guests_strangers_bots_and_deleted_users_may_not_use_it(workspace, slack, profile):
    slack.install("T2", "xoxb-theirs")
    slack.add_user("U9", **profile)
    answer = access.check(workspace, "U9")
    assert answer is Access.OUTSIDER
    assert "<@U9>" in access.refusal_text(workspace, answer, "U9")


def test_people_of_other_workspaces_of_the_enterprise_may_use_it(workspace, slack):
    workspace.enterprise_id = "E1"
    slack.install("T2", "xoxb-sister")
    slack.add_user("U9", team="T2", enterprise_user={"id": "W9", "enterprise_id": "E1"})
    assert access.check(workspace, "U9") is Access.GRANTED


# --- members -------------------------------------------------------------------------------------
@pytest.fixture
def for_members(workspace) -> SlackWorkspace:
    workspace.access = MEMBERS
    return workspace


@pytest.mark.case("S31")
def test_a_member_is_known_by_the_address_of_the_slack_profile(for_members, organization):
    join(organization, "Carl@ACME.example")
    assert access.check(for_members, "U2") is Access.GRANTED


@pytest.mark.case("S31")
def test_a_user_who_is_not_a_member_is_told_how_to_get_access(for_members):
    answer = access.check(for_members, "U2")
    assert answer is Access.NOT_A_MEMBER
    text = access.refusal_text(for_members, answer, "U2")
    assert "Acme &amp; &lt;Sons&gt;" in text
    assert "administrators" in text


def test_a_member_of_another_organization_is_not_a_member(for_members):
    join(Organization.objects.create(name="Stranger"), "carl@acme.example")
    assert access.check(for_members, "U2") is Access.NOT_A_MEMBER


def test_a_member_whose_account_was_closed_is_not_a_member(for_members, organization):
    join(organization, "carl@acme.example", is_active=False)
    assert access.check(for_members, "U2") is Access.NOT_A_MEMBER


def test_a_guest_who_is_a_member_may_use_it(for_members, organization):
    join(organization, "gwen@guests.example")
    assert access.check(for_members, "U3") is Access.GRANTED


def test_an_address_that_slack_has_not_confirmed_proves_nothing(for_members, organization, slack):
    join(organization, "carl@acme.example")
    slack.add_user("U9", email="carl@acme.example", is_email_confirmed=False)
    assert access.check(for_members, "U9") is Access.NOT_A_MEMBER


def test_an_external_user_with_a_members_address_may_not_use_it(for_members, organization, slack):
    join(organization, "carl@acme.example")
    slack.install("T2", "xoxb-theirs")
    slack.add_user("U9", email="carl@acme.example", team="T2")
    assert access.check(for_members, "U9") is Access.OUTSIDER


def test_a_user_without_an_address_is_not_a_member(for_members, slack):
    User.objects.create_user("nobody", "", "a long password")
    slack.add_user("U9")
    assert access.check(for_members, "U9") is Access.NOT_A_MEMBER


def test_a_failure_of_slack_raises(workspace, slack):
    slack.fail_next("users.info", "ratelimited", retry_after=7)
    with pytest.raises(Exception) as raised:
        access.check(workspace, "U1")
    failure = failure_of(raised.value)
    assert (failure.meaning, failure.retry_after) == (Meaning.LATER, 7)


def test_an_answer_that_is_not_slacks_api_is_not_quoted(workspace, slack):
    slack.fail_next("users.info", "Received a response in a non-JSON format: <html>")
    with pytest.raises(Exception) as raised:
        access.check(workspace, "U1")
    failure = failure_of(raised.value)
    assert (failure.meaning, failure.error) == (Meaning.UNKNOWN, "http_200")
