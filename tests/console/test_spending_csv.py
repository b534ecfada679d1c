"""What all organizations used in a month, as CSV files."""

import pytest
from django.contrib.auth.models import Permission
from django.urls import reverse

from billing import organizations
from console.overview.spending_csv import TABLES
from projects.models import User
from tests.billing.world import book, usage_event
from tests.console.test_usage_tables import NOW, csv_rows

pytestmark = [pytest.mark.django_db, pytest.mark.usefixtures("redis_client")]


def address(table, **query):
    return reverse("admin:spending_csv", args=[table], query=query)


@pytest.fixture(autouse=True)
def usage(clock):
    clock.now = NOW
    for number in range(12):
        organization = organizations.create_organization(f"Team {number:02}")
        project = organizations.create_project(organization, "Bot")
        book(usage_event(project, f"0.{number + 1:02}", at=NOW, distinct_id=f"user {number}"))


@pytest.mark.parametrize(
    ("table", "column", "expected"),
    [
        ("organizations", "name", 12),
        ("users", "user", 12),
        ("models", "model", 1),
        ("days", "day", 1),
    ],
)
def test_the_file_has_everything_of_the_month(admin_client, table, column, expected):
    found = csv_rows(admin_client.get(address(table)))
    assert len(found) == expected
    assert sum(float(row["credits"]) for row in found) == pytest.approx(93.6)
    assert len({row[column] for row in found}) == expected
    assert found == csv_rows(admin_client.get(address(table, month="2026-11")))
    assert csv_rows(admin_client.get(address(table, month="2026-10"))) == []
    assert admin_client.get(address(table, month="nonsense")).status_code == 200


@pytest.mark.parametrize("table", TABLES)
def test_strangers_and_other_staff_are_refused(client, table):
    assert client.get(address(table)).status_code == 302
    staff = User.objects.create_user("staff", is_staff=True)
    client.force_login(staff)
    needed = ["view_organization", "view_account"]
    if table in ("users", "models"):
        needed.append("view_usageevent")
    for codename in needed:
        assert client.get(address(table)).status_code == 403
        staff.user_permissions.add(Permission.objects.get(codename=codename))
    assert client.get(address(table)).status_code == 200


def test_an_unknown_table_is_not_found(admin_client):
    assert admin_client.get(address("nonsense")).status_code == 404
