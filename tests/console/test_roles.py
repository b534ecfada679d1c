"""The groups that are shipped: finance changes nothing, credits managers manage credits."""

import pytest
from django.contrib.auth.models import Group, Permission
from django.core.management.sql import emit_post_migrate_signal
from django.test import RequestFactory
from django.urls import reverse

from billing import organizations
from billing.models import CreditGrant, Limit
from console.roles import CREDITS_MANAGERS, FINANCE, ROLES
from projects.models import User
from quota.resources import AI_CREDITS
from tests.billing.world import CREDIT, account_of, book, usage_event
from tests.console.admin_pages import ADMIN_PAGES
from tests.console.test_usage_tables import page as table_page

pytestmark = [pytest.mark.django_db, pytest.mark.usefixtures("redis_client")]


@pytest.fixture(autouse=True)
def groups():
    """Create the groups as `migrate` does."""
    Group.objects.all().delete()
    emit_post_migrate_signal(verbosity=0, interactive=False, db="default")


@pytest.fixture
def project():
    project = organizations.create_project(organizations.create_organization("Acme"), "Bot")
    book(usage_event(project))
    return project


@pytest.fixture
def member(client):
    """Return a function that logs in somebody of the staff who is in a group."""

    def _member(group: str | None) -> User:
        user = User.objects.create_user("somebody", is_staff=True)
        if group:
            user.groups.add(Group.objects.get(name=group))
        client.force_login(user)
        return user

    return _member


def top_up(account):
    return {
        "account": account.pk,
        "credits": "50",
        "priority": "0",
        "reason": "asked for",
        "form_key": "k",
    }


def limit(account):
    return {
        "account": account.pk,
        "credits": "500",
        "mode": "hard",
        "grace_days": "0",
        "anchor_day": "1",
        "time_zone": "UTC",
        "thresholds": "80, 100",
        "reason": "agreed",
    }


def changes_of(user) -> set[str]:
    """Return what a user may add, change or delete in the admin."""
    request = RequestFactory().get("/")
    request.user = user
    return {
        f"{verb} {page.opts.label_lower}"
        for page in ADMIN_PAGES
        for verb in ("add", "change", "delete")
        if getattr(page, f"has_{verb}_permission")(request)
    }


def test_finance_sees_all_numbers_and_changes_nothing(client, project, member):
    user = member(FINANCE)
    organization = project.organization
    for address in (
        reverse("admin:index"),
        reverse("admin:projects_organization_changelist"),
        reverse("admin:billing_account_changelist"),
        reverse("admin:billing_usageevent_changelist"),
        reverse("admin:billing_auditentry_changelist"),
        reverse("admin:projects_organization_usage", args=[organization.pk]),
        table_page(organization, "users-models"),
        table_page(organization, "channels", as_csv=True),
    ):
        assert client.get(address).status_code == 200
    assert changes_of(user) == set()
    account = account_of(organization)
    add = client.post(reverse("admin:billing_creditgrant_add"), top_up(account))
    assert add.status_code == 403
    assert client.post(reverse("admin:billing_limit_add"), limit(account)).status_code == 403
    assert not CreditGrant.objects.exists()
    assert not Limit.objects.exists()
    # Nobody's messages are numbers.
    assert client.get(reverse("threads")).status_code == 403


def test_credits_managers_top_up_and_set_limits(client, project, member):
    user = member(CREDITS_MANAGERS)
    account = account_of(project.organization)
    for page, form in (("creditgrant", top_up(account)), ("limit", limit(account))):
        answer = client.post(
            reverse(f"admin:billing_{page}_add"), form | {"starts_at_0": "", "starts_at_1": ""}
        )
        assert answer.status_code == 302, answer.content.decode()
    assert CreditGrant.objects.get().amount_micro == 50 * CREDIT
    assert Limit.objects.get().limit_micro == 500 * CREDIT
    assert CreditGrant.objects.get().account.resource == AI_CREDITS
    assert changes_of(user) == {"add billing.cap", "add billing.creditgrant", "add billing.limit"}


def test_staff_without_a_group_is_refused(client, project, member):
    member(None)
    for name in ("billing_account_changelist", "billing_creditgrant_add"):
        assert client.get(reverse(f"admin:{name}")).status_code == 403
    assert client.get(table_page(project.organization, "users-models")).status_code == 403


def test_migrating_again_changes_nothing_and_gives_back_what_is_missing():
    before = {name: set(Group.objects.get(name=name).permissions.all()) for name in ROLES}
    finance = Group.objects.get(name=FINANCE)
    finance.permissions.remove(Permission.objects.get(codename="view_account"))
    own = Permission.objects.get(codename="view_mention")
    finance.permissions.add(own)
    for _ in range(2):
        emit_post_migrate_signal(verbosity=0, interactive=False, db="default")
    after = {name: set(Group.objects.get(name=name).permissions.all()) for name in ROLES}
    before[FINANCE].add(own)
    assert after == before
