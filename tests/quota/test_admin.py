"""The admin's list of who is limited."""

import pytest
from django.db import connection
from django.test.utils import CaptureQueriesContext
from django.utils import timezone
from django.utils.formats import localize

from projects.models import Organization, Project, User
from quota.account_state import FAR_FUTURE
from quota.models import SetMember
from tests.quota.world import LIMITS, Accounts

pytestmark = pytest.mark.django_db

LIST = "/admin/quota/setmember/"


@pytest.fixture
def page(admin_client):
    """Return a function that gets the list's text for a query."""

    def _page(**query) -> str:
        response = admin_client.get(LIST, query)
        assert response.status_code == 200
        return " ".join(response.content.decode().split())

    return _page


def test_the_list_shows_who_is_limited_since_when_until_when_and_why(
    page, accounts, project, stranger
):
    state = accounts.limit()
    shown = page()
    for cell in (
        "Acme / Main",
        "Acme",
        "AI credits",
        "the limit and all top-ups are used up",
        "Published",
    ):
        assert f">{cell}<" in shown
    member = SetMember.objects.get(resource="ai_credits", token=project.api_token)
    for instant in (state.resets_at, member.since):
        assert localize(instant) in shown
    assert ">Stranger / Theirs<" not in shown


def test_a_block_that_never_lifts_by_itself_shows_further_notice(page, accounts):
    accounts.limit(limited_until=FAR_FUTURE, reason="organization_inactive")
    shown = page()
    assert "further notice" in shown
    assert "the organization is not active" in shown


def test_a_grace_is_distinguished_from_a_block(page, accounts):
    accounts.allow(
        state="grace",
        reason="limit_reached",
        suspended_until=int(timezone.now().timestamp()) + 600,
    )
    assert "in grace: the limit and all top-ups are used up" in page(in_force="grace")
    assert "in grace: the limit and all top-ups are used up" not in page(in_force="block")


@pytest.mark.case("Q8")
def test_blocks_set_by_hand_are_shown_as_such(page, accounts, project, trusted_redis, redis_client):
    redis_client.zadd(LIMITS, {project.api_token: FAR_FUTURE, "nobody": FAR_FUTURE})
    trusted_redis()
    shown = page(origin__exact="by_hand")
    assert ">set by hand<" in shown
    assert "no project: nobody" in shown


def test_lifted_blocks_are_not_shown(page, accounts):
    accounts.limit()
    accounts.allow()
    assert SetMember.objects.exists()
    assert "0 limited projects" in page()


def test_it_can_be_searched_and_filtered(page, accounts, stranger):
    accounts.limit()
    Accounts(stranger.organization, version=10).limit()
    assert ">Stranger / Theirs<" not in page(q="Acme")
    assert ">Acme / Main<" in page(q="Acme")
    assert "1 limited project" in page(q="Acme", resource__exact="ai_credits")


def test_a_longer_list_costs_no_more_queries(admin_client, accounts):
    def cost() -> int:
        with CaptureQueriesContext(connection) as queries:
            assert admin_client.get(LIST).status_code == 200
        return len(queries)

    accounts.limit()
    few = cost()
    for number in range(10):
        organization = Organization.objects.create(name=f"Organization {number}")
        Project.objects.create(organization=organization, name=f"Project {number}")
        Accounts(organization).limit()
    assert cost() == few


def test_nothing_can_be_changed_there(admin_client, accounts):
    accounts.limit()
    member = SetMember.objects.first()
    assert admin_client.get(f"{LIST}{member.pk}/change/").status_code == 200
    for path in ("add/", f"{member.pk}/delete/"):
        assert admin_client.get(LIST + path).status_code == 403
    assert admin_client.post(f"{LIST}{member.pk}/change/", {}).status_code == 403


def test_a_user_outside_the_staff_is_redirected(client, accounts):
    client.force_login(User.objects.create_user("ada"))
    assert client.get(LIST).status_code == 302
