"""The admin's pages of organizations and projects."""

import re

import pytest
from django.contrib.auth.models import Permission
from django.db import connection
from django.test.utils import CaptureQueriesContext
from django.urls import reverse
from django.utils import timezone

from billing import organizations
from billing.allowances.limits import set_limit
from billing.models import AuditEntry
from projects.authentication import credentials
from projects.models import Change, Organization, Project, SlackWorkspace, User
from quota.gate import check
from quota.resources import AI_CREDITS
from tests.second_look import confirmed_action, confirmed_form
from workflows.models import Mention

pytestmark = [pytest.mark.django_db, pytest.mark.usefixtures("redis_client")]

INDEX = reverse("admin:index")
ORGANIZATIONS = reverse("admin:projects_organization_changelist")
PROJECTS = reverse("admin:projects_project_changelist")

NO_INLINES = {
    "projects-TOTAL_FORMS": 0,
    "projects-INITIAL_FORMS": 0,
    "membership_set-TOTAL_FORMS": 0,
    "membership_set-INITIAL_FORMS": 0,
}


@pytest.fixture
def organization() -> Organization:
    return organizations.create_organization("Acme")


@pytest.fixture
def project(organization) -> Project:
    return organizations.create_project(organization, "Bot")


def refused_mention(project: Project, number: int = 1) -> Mention:
    workspace, _ = SlackWorkspace.objects.get_or_create(
        project=project,
        team_id=f"T{project.pk}",
        defaults={"bot_user_id": "UBOT", "bot_token": "xoxb-1"},
    )
    return Mention.objects.create(
        workspace=workspace,
        team_id="T1",
        channel_id="C1",
        ts=f"{number}.1",
        thread_ts=f"{number}.1",
        user_id="U1",
        text="please",
        state=Mention.State.REFUSED,
        outcome="limit_reached",
        finished_at=timezone.now(),
    )


def test_a_new_organization_and_its_project_are_known_to_billing_at_once(admin_client):
    answer = admin_client.post(
        reverse("admin:projects_organization_add"),
        NO_INLINES | {"name": "Fresh", "is_active": "on", "unmetered_gateway": "on"},
    )
    assert answer.status_code == 302, answer.context["errors"]
    organization = Organization.objects.get(name="Fresh")
    assert organization.unmetered_gateway
    assert organization.quota_states.count() == 2
    answer = admin_client.post(
        reverse("admin:projects_project_add"),
        {"name": "Bot", "organization": str(organization.pk)},
    )
    assert answer.status_code == 302, answer.context["errors"]
    assert not check(Project.objects.get()).limited


def test_deactivating_an_organization_limits_it_and_activating_lifts_that(
    admin_client, organization, project
):
    page = reverse("admin:projects_organization_change", args=[organization.pk])
    off = NO_INLINES | {"name": "Acme"}
    assert "Say why" in admin_client.post(page, off).content.decode()
    off |= {"reason": "unpaid"}
    shown = admin_client.post(page, off).content.decode()
    assert "All its projects are refused in every bucket" in shown
    assert "switches it on again: Bot." in shown
    assert not check(project).limited
    confirmed_form(admin_client, page, off)
    assert check(project).reason == "organization_inactive"
    admin_client.post(page, off | {"is_active": "on", "reason": "paid"})
    assert not check(project).limited
    reasons = AuditEntry.objects.order_by("pk").values_list("action", "reason")
    assert list(reasons) == [
        ("organization_deactivated", "unpaid"),
        ("organization_activated", "paid"),
    ]


def test_renaming_an_organization_publishes_nothing(admin_client, organization, project):
    before = [state.version for state in organization.quota_states.all()]
    page = reverse("admin:projects_organization_change", args=[organization.pk])
    answer = admin_client.post(page, NO_INLINES | {"name": "Renamed", "is_active": "on"})
    assert answer.status_code == 302, answer.context["errors"]
    assert [state.version for state in organization.quota_states.all()] == before
    assert Organization.objects.get().name == "Renamed"


def test_switching_the_unmetered_product_is_announced_for_the_organizations_keys(
    admin_client, organization
):
    stranger = organizations.create_organization("Stranger")
    credentials.issue_personal_api_key(stranger, "k", ["llm_gateway:read"])
    key, _ = credentials.issue_personal_api_key(organization, "k", ["llm_gateway:read"])
    page = reverse("admin:projects_organization_change", args=[organization.pk])
    for switch in ({"unmetered_gateway": "on"}, {}):
        admin_client.post(page, NO_INLINES | switch | {"name": "Acme", "is_active": "on"})
    revoked = Change.objects.filter(kind=Change.Kind.CREDENTIAL_REVOKED)
    assert [change.payload for change in revoked] == [{"sha256": key.sha256}] * 2


def test_the_page_of_an_organization_says_where_it_stands(admin_client, organization, project):
    set_limit(organization, AI_CREDITS, 2_000_500_000)
    page = admin_client.get(
        reverse("admin:projects_organization_change", args=[organization.pk])
    ).content.decode()
    assert "2,000.50" in page
    assert "unlimited" in page
    assert project.api_token in page


def test_the_page_of_an_organization_leads_to_what_belongs_to_it(admin_client, organization):
    page = admin_client.get(reverse("admin:projects_organization_change", args=[organization.pk]))
    links = re.findall(rf'href="(/admin/[^"?]+/\?[^"]*{organization.pk})"', page.content.decode())
    assert links
    for link in links:
        assert admin_client.get(link).status_code == 200, link


def test_a_rotated_token_of_a_limited_project_is_limited(admin_client, organization, project):
    set_limit(organization, AI_CREDITS, 0)
    former = project.api_token
    asked = admin_client.post(
        PROJECTS, {"action": "rotate_api_tokens", "_selected_action": [project.pk]}
    )
    assert f"{former} stops working for good" in asked.content.decode()
    assert Project.objects.get().api_token == former
    answer = confirmed_action(
        admin_client, PROJECTS, "rotate_api_tokens", project, reason="it leaked"
    )
    assert "1 API token(s) rotated" in answer.content.decode()
    assert AuditEntry.objects.get(action="token_rotated").reason == "it leaked"
    project.refresh_from_db()
    assert project.api_token != former
    assert check(project).limited


def test_a_project_stays_with_its_organization(admin_client, project):
    stranger = organizations.create_organization("Stranger")
    page = reverse("admin:projects_project_change", args=[project.pk])
    answer = admin_client.post(page, {"name": "Renamed", "organization": str(stranger.pk)})
    assert answer.status_code == 302
    project.refresh_from_db()
    assert (project.name, project.organization.name) == ("Renamed", "Acme")


@pytest.mark.parametrize("page", [ORGANIZATIONS, PROJECTS])
def test_nothing_that_was_billed_can_be_deleted(admin_client, organization, project, page):
    admin_client.post(
        page, {"action": "delete_selected", "_selected_action": [organization.pk, project.pk]}
    )
    assert Project.objects.exists()
    assert Organization.objects.exists()


def test_a_user_with_view_permission_cannot_rotate_tokens(client, project):
    reader = User.objects.create_user("reader", is_staff=True)
    reader.user_permissions.set(Permission.objects.filter(codename__startswith="view_"))
    client.force_login(reader)
    form = {"action": "rotate_api_tokens", "_selected_action": [project.pk]}
    assert "What will happen" not in client.post(PROJECTS, form, follow=True).content.decode()
    assert Project.objects.get().api_token == project.api_token


@pytest.mark.parametrize("page", [INDEX, ORGANIZATIONS, PROJECTS])
def test_a_page_costs_the_same_number_of_queries_however_much_it_shows(
    admin_client, django_assert_num_queries, page
):
    def add(number):
        organization = organizations.create_organization(f"O{number}")
        refused_mention(organizations.create_project(organization, "P"), number)
        set_limit(organization, AI_CREDITS, 0)

    for number in range(2):
        add(number)
    admin_client.get(page)
    with CaptureQueriesContext(connection) as few:
        assert admin_client.get(page).status_code == 200
    queries = len(few)
    for number in range(2, 6):
        add(number)
    admin_client.get(page)  # notes the new names
    with django_assert_num_queries(queries):
        assert admin_client.get(page).status_code == 200


def test_the_root_address_redirects_to_the_admin(client):
    assert client.get("/")["Location"] == INDEX


def test_the_admin_asks_strangers_to_log_in(client, organization):
    page = reverse("admin:projects_organization_change", args=[organization.pk])
    answer = client.get(page)
    assert answer.status_code == 302
    assert answer["Location"].startswith("/admin/login/?next=/admin/")


@pytest.mark.parametrize("page", ["billing_usageevent", "billing_dailyusage", "billing_account"])
@pytest.mark.parametrize(
    ("query", "status"),
    [
        ("id__exact=abc", 302),
        ("account__id__exact=99999999999999999999999", 200),
        ("product__exact=%00", 400),
        ("q=%00", 400),
        ("booked_at__year=99999999999999999999", 400),
    ],
)
def test_junk_in_the_address_of_a_list_is_no_failure(admin_client, page, query, status):
    answer = admin_client.get(f"{reverse(f'admin:{page}_changelist')}?{query}")

    assert answer.status_code in (status, 302)


def test_a_user_who_can_only_view_an_organization_is_asked_for_no_reason(client, organization):
    reader = User.objects.create_user("reader", is_staff=True)
    reader.user_permissions.set(Permission.objects.filter(codename="view_organization"))
    client.force_login(reader)
    page = reverse("admin:projects_organization_change", args=[organization.pk])
    shown = client.get(page).content.decode()
    assert "Acme" in shown
    assert "Reason for switching" not in shown
    form = NO_INLINES | {"name": "Acme", "reason": "because"}
    assert client.post(page, form).status_code == 403
    assert Organization.objects.get().is_active


def test_each_field_of_a_moment_has_a_label(admin_client):
    page = admin_client.get(reverse("admin:billing_creditgrant_add")).content.decode()
    for field in ("starts_at_0", "starts_at_1", "expires_at_0", "expires_at_1"):
        assert f'for="id_{field}"' in page
        assert f'id="id_{field}"' in page
