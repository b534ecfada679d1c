"""Every list of the admin as a CSV file."""

import re
from html import unescape

import pytest
from django.contrib.auth.models import Permission
from django.urls import reverse

from billing import organizations
from billing.allowances.limits import set_limit
from projects.models import User
from quota.resources import AI_CREDITS
from tests.billing.world import CREDIT, book, usage_event
from tests.console.admin_pages import ADMIN_PAGES
from tests.console.test_usage_tables import csv_rows

pytestmark = [pytest.mark.django_db, pytest.mark.usefixtures("redis_client")]


def address(model, **query):
    app, _, name = model.partition(".")
    return reverse("admin:list_csv", args=[app, name], query=query)


@pytest.fixture
def project():
    project = organizations.create_project(organizations.create_organization("Acme"), "Bot")
    set_limit(project.organization, AI_CREDITS, 1_000_000 * CREDIT, reason="=1+1")
    book(usage_event(project, "20.123456"))
    return project


@pytest.mark.parametrize("page", ADMIN_PAGES, ids=str)
def test_every_list_has_its_file(admin_client, project, page):
    answer = admin_client.get(address(page.opts.label_lower))
    assert answer.status_code == 200
    rows = csv_rows(answer)
    link = f'{address(page.opts.label_lower)}?">CSV</a>'
    shown = admin_client.get(
        reverse(f"admin:{page.opts.app_label}_{page.opts.model_name}_changelist")
    )
    assert link in shown.content.decode()
    assert len(rows) == shown.context["cl"].result_count


def test_amounts_have_all_digits_and_no_separators(admin_client, project):
    query = {"resource__exact": AI_CREDITS}
    [row] = csv_rows(admin_client.get(address("billing.account", **query)))
    assert row["Organization"] == "Acme"
    assert (row["Credits used"], row["Limit"]) == ("2414.81472", "1000000")
    assert row["Credits left"] == "997585.18528"
    assert (row["Share used"], row["State"]) == ("0.24", "not limited")


def test_filters_search_and_order_apply(admin_client, project):
    for name in ("Beta", "Gamma"):
        organizations.create_organization(name)
    names = [
        row["Name"] for row in csv_rows(admin_client.get(address("projects.organization", o="-0")))
    ]
    assert names == ["Gamma", "Beta", "Acme"]
    [row] = csv_rows(admin_client.get(address("projects.organization", q="Beta")))
    assert row["Name"] == "Beta"
    assert admin_client.get(address("projects.organization", nonsense="1")).status_code == 400


def test_a_text_is_never_a_formula(admin_client, project):
    [row] = csv_rows(admin_client.get(address("billing.limit")))
    assert row["Reason"] == "'=1+1"


class TestWhoMay:
    def test_strangers_are_asked_to_log_in(self, client, project):
        assert client.get(address("billing.account")).status_code == 302
        client.force_login(User.objects.create_user("member"))
        assert client.get(address("billing.account")).status_code == 302

    def test_other_staff_is_refused(self, client, project):
        staff = User.objects.create_user("staff", is_staff=True)
        client.force_login(staff)
        for codename in ("view_mention", "view_account"):
            assert client.get(address("billing.usageevent")).status_code == 403
            staff.user_permissions.add(Permission.objects.get(codename=codename))
        assert client.get(address("billing.usageevent")).status_code == 403
        assert client.get(address("billing.account")).status_code == 200

    def test_hidden_columns_are_not_in_the_file(self, client, project):
        staff = User.objects.create_user("staff", is_staff=True)
        staff.user_permissions.add(Permission.objects.get(codename="view_organization"))
        client.force_login(staff)
        [row] = csv_rows(client.get(address("projects.organization")))
        assert set(row) == {"Name", "Is active"}

    def test_an_unknown_list_is_not_found(self, admin_client):
        assert admin_client.get(address("billing.nonsense")).status_code == 404


def test_the_report_pages_link_to_files_that_exist(admin_client, busy_month):
    usage = reverse("admin:projects_organization_usage", args=[busy_month.globex.pk])
    links = set()
    for where in (reverse("admin:index"), usage):
        html = admin_client.get(where).content.decode()
        links |= {unescape(each) for each in re.findall(r'href="([^"]*csv[^"]*)"', html)}
    assert len(links) >= 12
    for link in links:
        answer = admin_client.get(link)
        assert answer.status_code == 200, link
        csv_rows(answer)
