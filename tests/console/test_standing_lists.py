"""The admin's lists of organizations and accounts: used, left, share and state, sortable."""

import re
from datetime import UTC, datetime

import pytest
from django.contrib.auth.models import Permission
from django.db import connection
from django.test.utils import CaptureQueriesContext
from django.urls import reverse

from billing import organizations
from billing.allowances.limits import set_limit
from billing.models import Account
from projects.models import Organization, Project, User
from quota.models import QuotaState
from quota.resources import AI_CREDITS, POSTHOG_CODE_CREDITS
from tests.billing.world import CREDIT, book, published, usage_event

pytestmark = [pytest.mark.django_db, pytest.mark.usefixtures("redis_client")]

ORGANIZATIONS = reverse("admin:projects_organization_changelist")
ACCOUNTS = reverse("admin:billing_account_changelist")
COLUMNS = ("used", "limit", "left", "share_used", "state_words")


@pytest.fixture
def teams(db):
    """Half used 12 of 24 credits, Full 12 of 12, Free 1,200 without a limit, and New nothing."""
    for name, limit, cost in (("Half", 24, "0.10"), ("Full", 12, "0.10"), ("Free", None, "10")):
        project = organizations.create_project(organizations.create_organization(name), "Bot")
        if limit is not None:
            set_limit(project.organization, AI_CREDITS, limit * CREDIT)
        book(usage_event(project, cost))
    organizations.create_organization("New")


def rows(answer) -> list[dict[str, str]]:
    """Return the rows of a list, by the names of their columns."""
    html = answer.content.decode().partition("<tbody>")[2]
    return [
        {
            name: re.sub(r"<[^>]*>", "", cell).strip()
            for name, cell in re.findall(r'class="field-(\w+)[^"]*">(.*?)</t[dh]>', row, re.S)
        }
        for row in html.split("</tr>")
        if "field-" in row
    ]


def column_number(client, address, name) -> int:
    """Return the number of a column in the sort parameter of a list."""
    request = client.get(address).wsgi_request
    listed = client.get(address).context["cl"].list_display
    assert request.user.is_authenticated
    return listed.index(name)


@pytest.mark.parametrize("address", [ORGANIZATIONS, f"{ACCOUNTS}?resource__exact={AI_CREDITS}"])
def test_the_list_says_in_words_where_each_one_stands(admin_client, teams, address):
    found = {
        row.get("name") or row["organization"]: [row[name] for name in COLUMNS]
        for row in rows(admin_client.get(address))
    }
    assert found == {
        "Half": ["12.00", "24.00 (hard)", "12.00", "50 %", "not limited"],
        "Full": ["12.00", "12.00 (hard)", "0.00", "100 %", "limited"],
        "Free": ["1,200.00", "unlimited", "unlimited", "–", "not limited"],
        "New": ["–", "unlimited", "unlimited", "–", "not limited"],
    }


@pytest.mark.parametrize("address", [ORGANIZATIONS, ACCOUNTS])
@pytest.mark.parametrize(
    ("name", "first", "last"),
    [("used", "New", "Free"), ("share_used", None, "Full"), ("left", "Full", None)],
)
def test_the_list_is_sorted_by_amounts_and_not_by_their_texts(
    admin_client, teams, address, name, first, last
):
    number = column_number(admin_client, address, name)
    only = {} if address == ORGANIZATIONS else {"resource__exact": AI_CREDITS}

    def names(order):
        found = rows(admin_client.get(address, only | {"o": order}))
        return [row.get("name") or row["organization"] for row in found]

    ascending, descending = names(f"{number}"), names(f"-{number}")
    if first:
        assert [ascending[0], descending[-1]] == [first, first]
    if last:
        assert [ascending[-1], descending[0]] == [last, last]


def test_the_list_of_organizations_shows_the_chosen_bucket(admin_client, teams):
    half = Project.objects.get(organization__name="Half")
    book(usage_event(half, "0.07", properties={"ai_product": "posthog_code"}))
    found = rows(admin_client.get(ORGANIZATIONS, {"bucket": POSTHOG_CODE_CREDITS}))
    used = {row["name"]: row["used"] for row in found}
    assert used == {"Half": "7.00", "Full": "–", "Free": "–", "New": "–"}
    assert len(rows(admin_client.get(ORGANIZATIONS, {"bucket": "nonsense"}))) == 4


def test_the_list_can_be_limited_to_a_state(admin_client, teams):
    [row] = rows(admin_client.get(ORGANIZATIONS, {"state": "limited"}))
    assert row["name"] == "Full"
    [row] = rows(admin_client.get(ACCOUNTS, {"state__exact": "limited"}))
    assert row["organization"] == "Full"


def test_times_have_their_zone(admin_client, teams):
    half = Organization.objects.get(name="Half")
    set_limit(half, AI_CREDITS, 24 * CREDIT, time_zone="Europe/Berlin")
    resets_at = published(half).resets_at
    where = {"organization__id__exact": str(half.pk), "resource__exact": AI_CREDITS}
    [row] = rows(admin_client.get(ACCOUNTS, where))
    assert re.fullmatch(r"1 \w{3} \d{4} 00:00 CES?T", row["resets"])
    assert resets_at.astimezone(UTC).hour in (22, 23)

    limits = rows(admin_client.get(reverse("admin:billing_limit_changelist")))
    assert all(re.fullmatch(r"\d+ \w{3} \d{4} \d\d:\d\d UTC", row["set_at"]) for row in limits)


@pytest.mark.parametrize("address", [ORGANIZATIONS, ACCOUNTS])
class TestWhoMay:
    def test_strangers_are_asked_to_log_in(self, client, teams, address):
        assert client.get(address).status_code == 302
        client.force_login(User.objects.create_user("member"))
        assert client.get(address).status_code == 302

    def test_other_staff_is_refused(self, client, teams, address):
        staff = User.objects.create_user("staff", is_staff=True)
        staff.user_permissions.add(Permission.objects.get(codename="view_mention"))
        client.force_login(staff)
        assert client.get(address).status_code == 403


def test_amounts_are_hidden_from_staff_who_may_not_see_accounts(client, teams):
    staff = User.objects.create_user("staff", is_staff=True)
    staff.user_permissions.add(Permission.objects.get(codename="view_organization"))
    client.force_login(staff)
    for query in ({}, {"state": "limited"}, {"bucket": POSTHOG_CODE_CREDITS}):
        answer = client.get(ORGANIZATIONS, query)
        for row in rows(answer):
            assert not row.keys() & set(COLUMNS)


def many(number: int, of: str) -> None:
    """Create organizations with ten projects each and a state like a published one."""
    document = published(Organization.objects.get(name=of)).to_json()
    made = Organization.objects.bulk_create(
        [Organization(name=f"Team {at}") for at in range(number)]
    )
    Project.objects.bulk_create(
        [
            Project(organization=each, name=f"Project {at}", api_token=f"phc_{each.pk}_{at}")
            for each in made
            for at in range(10)
        ]
    )
    for resource in (AI_CREDITS, POSTHOG_CODE_CREDITS):
        Account.objects.bulk_create(
            [Account(organization=each, resource=resource) for each in made]
        )
        QuotaState.objects.bulk_create(
            [
                QuotaState(
                    organization=each,
                    resource=resource,
                    version=1,
                    state="ok",
                    document=document,
                    changed_at=datetime.now(UTC),
                )
                for each in made
            ]
        )


@pytest.mark.parametrize("address", [ORGANIZATIONS, ACCOUNTS])
def test_300_organizations_take_no_query_per_row(
    admin_client, teams, django_assert_num_queries, address
):
    sorted_by = {"o": f"-{column_number(admin_client, address, 'share_used')}"}
    with CaptureQueriesContext(connection) as few:
        admin_client.get(address, sorted_by)
    many(300, of="Half")
    with django_assert_num_queries(len(few)):
        answer = admin_client.get(address, sorted_by)
    assert len(rows(answer)) == 100
