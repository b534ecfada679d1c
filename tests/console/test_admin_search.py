"""Searching the admin's lists and pickers finds what was typed, and shows it first."""

import uuid

import pytest
from django.contrib.auth.models import Permission
from django.urls import reverse

from billing import organizations
from billing.models import Account, Limit
from projects.admin_parts.named_search import NamedSearch, looks_like_id
from projects.authentication import credentials
from projects.models import Organization, PersonalAPIKey, Project, SlackWorkspace, User
from tests.billing.world import book, usage_event
from tests.console.admin_pages import ADMIN_PAGES

pytestmark = pytest.mark.django_db
SEARCHED = [page for page in ADMIN_PAGES if page.search_fields]


@pytest.fixture
def project(db):
    return organizations.create_project(organizations.create_organization("Acme"), "Bot")


@pytest.fixture
def teams(db):
    """Organizations whose ids contain every number somewhere, each with two projects."""
    for name in ("Team 290", "A Team of 29", "Team 129", "Team 29", "Team 2"):
        organization = organizations.create_organization(name)
        for project in ("Bot 50", "Bot 5", "Bot 500"):
            organizations.create_project(organization, project)


def listed(client, model, query, **more):
    page = reverse(f"admin:{model._meta.app_label}_{model._meta.model_name}_changelist")
    answer = client.get(page, {"q": query} | more)
    assert answer.status_code == 200
    return list(answer.context["cl"].result_list)


def picked(client, model, field, query):
    answer = client.get(
        reverse("admin:autocomplete"),
        {
            "app_label": model._meta.app_label,
            "model_name": model._meta.model_name,
            "field_name": field,
            "term": query,
        },
    )
    assert answer.status_code == 200
    return [result["text"] for result in answer.json()["results"]]


def test_an_organization_is_found_by_its_name_and_not_by_digits_of_its_id(admin_client, teams):
    stranger = Organization.objects.create(
        id=uuid.UUID("29292929-0000-4000-8000-000000000000"), name="Team Blue"
    )
    found = listed(admin_client, Organization, "Team 29")
    assert [row.name for row in found] == ["Team 29", "Team 290", "Team 129", "A Team of 29"]
    assert listed(admin_client, Organization, str(stranger.pk)) == [stranger]
    assert listed(admin_client, Organization, "29292929-00") == [stranger]
    for number in ("29", "29292929"):
        assert stranger not in listed(admin_client, Organization, number)


def test_a_picker_shows_the_account_that_was_typed_first(admin_client, teams):
    found = picked(admin_client, Limit, "account", "Team 29")
    assert [text.partition(" / ")[0] for text in found[:3]] == ["Team 29", "Team 29", "Team 290"]
    assert picked(admin_client, Limit, "account", "team 29 posthog")[0].startswith("Team 29 /")


def test_a_project_is_found_by_its_name_and_with_its_organization(admin_client, teams):
    found = listed(admin_client, Project, "Bot 5")
    assert len(found) == 15
    assert [row.name for row in found[:5]] == ["Bot 5"] * 5
    for query in ("Team 29 Bot 5", "Team 29 / Bot 5"):
        assert str(listed(admin_client, Project, query)[0]) == "Team 29 / Bot 5"
        assert picked(admin_client, SlackWorkspace, "project", query)[0] == "Team 29 / Bot 5"
    project = Project.objects.first()
    assert listed(admin_client, Project, project.api_token) == [project]


def test_a_list_that_somebody_sorted_keeps_its_order(admin_client, teams):
    found = listed(admin_client, Organization, "Team 29", o="-0")
    assert [row.name for row in found] == ["Team 290", "Team 29", "Team 129", "A Team of 29"]


def test_an_organization_with_several_projects_is_found_once(admin_client, teams):
    assert len(listed(admin_client, Organization, "Bot")) == 5
    assert len(listed(admin_client, Account, "Bot")) == 10


def test_a_key_is_found_by_what_is_shown_of_it(admin_client, teams):
    organization = Organization.objects.get(name="Team 2")
    key, _ = credentials.issue_personal_api_key(organization, "dashboard", ["project:read"])
    assert listed(admin_client, PersonalAPIKey, key.mask[-4:]) == [key]
    PersonalAPIKey.objects.update(mask="phx_…x29x")
    assert listed(admin_client, PersonalAPIKey, "29") == []


def test_an_event_is_found_by_its_whole_id_or_its_user(admin_client, project):
    event = usage_event(project)
    book(event, usage_event(project, distinct_id="slack:T1:U2"))
    model = type(Account.objects.first().events.first())
    assert [str(row.pk) for row in listed(admin_client, model, event["uuid"])] == [event["uuid"]]
    assert [row.distinct_id for row in listed(admin_client, model, "U2")] == ["slack:T1:U2"]


@pytest.mark.parametrize(
    ("text", "is_id"),
    [
        ("Team 29", False),
        ("29", False),
        ("2900000000", False),
        ("Bot", False),
        ("U2", True),
        ("C0SHOP", True),
        ("1700000000.123456", True),
        ("phc_abc", True),
        ("0196c7e5-2f6b", True),
        ("", False),
    ],
)
def test_only_a_single_word_looks_like_an_id(text, is_id):
    assert looks_like_id(text) is is_id


def test_every_search_is_of_this_kind_and_takes_any_text(admin_client, subtests):
    for page in SEARCHED:
        with subtests.test(page.model.__name__):
            assert isinstance(page, NamedSearch)
            for text in ("Team 29", "U2", "/", str(uuid.uuid4())):
                listed(admin_client, page.model, text)


def test_a_picker_shows_nothing_to_somebody_without_permission(client, teams):
    stranger = User.objects.create_user("stranger", is_staff=True)
    stranger.user_permissions.set(Permission.objects.filter(codename="add_limit"))
    client.force_login(stranger)
    query = {
        "app_label": "billing",
        "model_name": "limit",
        "field_name": "account",
        "term": "Team 29",
    }
    assert client.get(reverse("admin:autocomplete"), query).status_code == 403
