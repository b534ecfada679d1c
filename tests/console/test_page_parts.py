"""Each part of an admin page is shown only to users who may see what it shows."""

import pytest
from django.contrib.auth.models import Group, Permission
from django.urls import reverse

from billing import organizations
from billing.allowances.caps import set_cap
from billing.allowances.grants import grant_credits
from billing.allowances.limits import set_limit
from billing.models import Account
from coding_tasks.models import CodingTask, Repository, TaskRun
from console.report_permissions import ORGANIZATION_USAGE, THREADS
from projects.models import Membership, SlackWorkspace, User
from quota.gate import check
from quota.resources import AI_CREDITS
from tests.billing.world import CREDIT, book, usage_event
from workflows.denials import refuse
from workflows.models import FollowUp, Mention

pytestmark = [pytest.mark.django_db, pytest.mark.usefixtures("redis_client")]


@pytest.fixture
def world():
    """An organization with something to show on every page."""
    organization = organizations.create_organization("Acme")
    project = organizations.create_project(organization, "Robot")
    set_limit(organization, AI_CREDITS, 10 * CREDIT, actor="carla", reason="limit reason")
    grant_credits(organization, AI_CREDITS, CREDIT, actor="carla", reason="grant reason")
    set_cap(organization, AI_CREDITS, "run", 50 * CREDIT, actor="carla", reason="cap reason")
    member = User.objects.create_user("member-of-acme")
    Membership.objects.create(organization=organization, user=member)
    repository = Repository.objects.create(
        project=project, full_name="acme/shop", clone_url="https://example.com/shop.git"
    )
    workspace = SlackWorkspace.objects.create(
        project=project, team_id="T1", name="Acme", bot_user_id="UBOT", bot_token="xoxb-1"
    )
    where = {"workspace": workspace, "channel_id": "C1", "thread_ts": "100.000001"}
    task = CodingTask.objects.create(
        project=project,
        repository=repository,
        owner_slack_user_id="U1",
        title="the title of the task",
        workflow_id="mention-T1-C1-100.000001",
        state="done",
        **where,
    )
    run = TaskRun.objects.create(
        task=task, message_ts="100.000001", request="the request of the run", state="done"
    )
    book(usage_event(project, "0.20", properties={"task_run_id": str(run.pk)}))
    FollowUp.objects.create(
        ts="105.000001",
        user_id="U2",
        text="the follow-up",
        addressed=False,
        workflow_id="w",
        **where,
    )
    asked = {"team_id": "T1", "user_id": "U1", "text": "<@UBOT> the mention"}
    refuse(
        Mention.objects.create(ts="100.000001", **asked, **where),
        check(project, to_start=True),
    )
    set_cap(organization, AI_CREDITS, "user", CREDIT)
    book(usage_event(project, "NaN"))
    return organization


def pages(organization):
    account = Account.objects.get(organization=organization, resource=AI_CREDITS)
    task = CodingTask.objects.get()
    return {
        "account": reverse("admin:billing_account_change", args=[account.pk]),
        "organization": reverse("admin:projects_organization_change", args=[organization.pk]),
        "organizations": reverse("admin:projects_organization_changelist"),
        "usage": reverse("admin:projects_organization_usage", args=[organization.pk]),
        "thread": reverse("thread", args=[task.workspace_id, task.channel_id, task.thread_ts]),
        "task": reverse("admin:coding_tasks_codingtask_change", args=[task.pk]),
        "tasks": reverse("admin:coding_tasks_codingtask_changelist"),
        "index": reverse("admin:index"),
    }


NEEDED = {
    "account": ("billing.view_account",),
    "organization": ("projects.view_organization",),
    "organizations": ("projects.view_organization",),
    "usage": ORGANIZATION_USAGE,
    "thread": THREADS,
    "task": ("coding_tasks.view_codingtask",),
    "tasks": ("coding_tasks.view_codingtask",),
    "index": (),
}

LEDGER = "/admin/billing/usageevent/?account"
DECISIONS = "/admin/billing/decisionrecord/"
PARTS = [
    ("account", DECISIONS, "billing.view_decisionrecord"),
    ("account", "Latest decisions", "billing.view_decisionrecord"),
    ("account", LEDGER, "billing.view_usageevent"),
    ("account", "limit reason", "billing.view_limit"),
    ("account", "grant reason", "billing.view_creditgrant"),
    ("account", "cap reason", "billing.view_cap"),
    ("account", "/admin/billing/limit/add/", "billing.add_limit"),
    ("account", "/admin/billing/creditgrant/add/", "billing.add_creditgrant"),
    ("account", "/admin/billing/cap/add/", "billing.add_cap"),
    ("account", "Usage totals", "billing.view_usagetotal"),
    ("organization", "Robot", "projects.view_project"),
    ("organization", "member-of-acme", "projects.view_membership"),
    ("organization", "Where it stands", "billing.view_account"),
    ("organization", "/usage/", "billing.view_account"),
    ("organization", "/admin/billing/account/?", "billing.view_account"),
    ("organization", "/admin/projects/personalapikey/?", "projects.view_personalapikey"),
    ("organization", "/admin/coding_tasks/codingtask/?", "coding_tasks.view_codingtask"),
    ("organizations", "column-used", "billing.view_account"),
    ("organizations", "column-left", "billing.view_account"),
    ("organizations", "column-share_used", "billing.view_account"),
    ("organizations", "column-state_words", "billing.view_account"),
    ("organizations", "?bucket=", "billing.view_account"),
    ("organizations", "column-usage", "billing.view_account"),
    ("organizations", "column-projects_count", "projects.view_project"),
    ("organizations", "column-members_count", "projects.view_membership"),
    ("organizations", "?state=", "billing.view_account"),
    ("usage", DECISIONS, "billing.view_decisionrecord"),
    ("usage", LEDGER, "billing.view_usageevent"),
    ("usage", "Who used most", "billing.view_usageevent"),
    ("usage", "the title of the task", "workflows.view_mention"),
    ("usage", "the title of the task", "coding_tasks.view_codingtask"),
    ("usage", "/admin/threads/", "workflows.view_mention"),
    ("usage", "Spent before", "billing.view_creditgrant"),
    ("usage", "credits left of top-ups", "billing.view_creditgrant"),
    ("usage", "limit reason", "billing.view_auditentry"),
    ("usage", "<th>Project or user</th>", "quota.view_setmember"),
    ("usage", "/admin/projects/project/", "projects.view_project"),
    ("usage", "/admin/billing/limit/add/", "billing.add_limit"),
    ("usage", "/admin/billing/creditgrant/add/", "billing.add_creditgrant"),
    ("usage", "/admin/billing/cap/add/", "billing.add_cap"),
    ("thread", DECISIONS, "billing.view_decisionrecord"),
    ("thread", "of a limit of", "billing.view_decisionrecord"),
    ("thread", "the follow-up", "workflows.view_followup"),
    ("thread", "has used its monthly", "workflows.view_notice"),
    ("thread", "the request of the run", "coding_tasks.view_taskrun"),
    ("thread", "/admin/projects/organization/", "billing.view_account"),
    ("task", "the request of the run", "coding_tasks.view_taskrun"),
    ("task", "<th>credits</th>", "billing.view_usageevent"),
    ("tasks", "column-credits_used", "billing.view_usageevent"),
    ("index", "user slack:T1", "quota.view_setmember"),
    ("index", "/admin/billing/cap/add/", "billing.add_cap"),
    ("index", "everybody", "billing.view_account"),
    ("index", "/admin/billing/creditgrant/add/", "billing.add_creditgrant"),
    ("index", "Credits used this month", "billing.view_account"),
    ("index", "Credits used this month", "projects.view_organization"),
    ("index", "<th>Users</th>", "billing.view_usageevent"),
    ("index", "<th>Models</th>", "billing.view_usageevent"),
    ("index", "Mentions refused today", "workflows.view_mention"),
    ("index", "/admin/threads/", "coding_tasks.view_codingtask"),
    ("index", "/usage/?resource", "billing.view_account"),
    ("index", "could not be booked", "billing.view_quarantinedevent"),
    ("index", "Agent workers", "coding_tasks.view_projectagent"),
]


def permit(user, permissions):
    """Give the user exactly these permissions, from the next request on."""
    named = [
        row
        for row in Permission.objects.select_related("content_type")
        if f"{row.content_type.app_label}.{row.codename}" in permissions
    ]
    assert len(named) == len(set(permissions)), permissions
    user.user_permissions.set(named)


def test_a_part_of_a_page_follows_its_own_permission(client, world, subtests):
    reader = User.objects.create_user("reader", is_staff=True)
    client.force_login(reader)
    everything = {
        f"{row.content_type.app_label}.{row.codename}"
        for row in Permission.objects.select_related("content_type")
        if row.codename.startswith(("view_", "add_limit", "add_creditgrant", "add_cap"))
    }
    where = pages(world)
    permit(reader, everything)
    shown = {name: client.get(page).content.decode() for name, page in where.items()}
    seen = {}
    for name, part, permission in PARTS:
        with subtests.test(page=name, part=part, without=permission):
            assert part in shown[name]
            without = everything - {permission}
            if permission not in NEEDED[name]:
                if (name, permission) not in seen:
                    permit(reader, without)
                    seen[name, permission] = client.get(where[name])
                answer = seen[name, permission]
                assert answer.status_code == 200
                assert part not in answer.content.decode()


@pytest.mark.parametrize("name", NEEDED)
def test_the_permission_for_a_page_alone_shows_nothing_about_other_models(client, world, name):
    reader = User.objects.create_user("reader", is_staff=True)
    permit(reader, NEEDED[name])
    client.force_login(reader)

    answer = client.get(pages(world)[name])

    assert answer.status_code == 200
    for page, part, permission in PARTS:
        if page == name and permission not in NEEDED[name]:
            assert part not in answer.content.decode(), part
    if name in ("account", "task"):
        return  # Django links related objects itself; their own pages check the permission
    links = set(answer.content.decode().split('href="')[1:])
    for link in {text.partition('"')[0] for text in links}:
        if link.startswith("/admin/") and "logout" not in link:
            assert client.get(link).status_code < 400, link


class TestRightsThroughMemberships:
    @pytest.fixture
    def clerk(self, client):
        """A member of the staff who may view, change and delete users."""
        clerk = User.objects.create_user("clerk", is_staff=True)
        permit(clerk, ["projects.change_user", "projects.view_user", "projects.delete_user"])
        client.force_login(clerk)
        return clerk

    @staticmethod
    def join(user, organization, role):
        return Membership.objects.create(user=user, organization=organization, role=role)

    @staticmethod
    def statuses(client, user):
        """Return the statuses of the pages that change a password, change a user and delete one."""
        password = reverse("admin:auth_user_password_change", args=[user.pk])
        form = {"password1": "a new pass phrase", "password2": "a new pass phrase"}
        posted = client.post(password, form | {"usable_password": "true"}).status_code
        changed = client.post(
            reverse("admin:projects_user_change", args=[user.pk]), {"username": "renamed"}
        ).status_code
        removed = client.get(reverse("admin:projects_user_delete", args=[user.pk])).status_code
        return {posted, changed, removed}

    @pytest.mark.parametrize(
        ("theirs", "own", "allowed"),
        [
            ("admin", None, False),
            ("admin", "member", False),
            ("admin", "admin", True),
            ("member", None, False),
            ("member", "member", True),
            ("member", "admin", True),
        ],
    )
    def test_a_user_who_may_change_users_cannot_take_over_memberships(
        self, client, clerk, world, theirs, own, allowed
    ):
        other = User.objects.create_user("other", password="the old pass phrase")
        self.join(other, world, theirs)
        if own:
            self.join(clerk, world, own)

        assert (self.statuses(client, other) == {403}) is not allowed

        other.refresh_from_db()
        assert other.check_password("the old pass phrase") is not allowed

    def test_being_admin_of_another_organization_does_not_help(self, client, clerk, world):
        other = User.objects.create_user("other")
        self.join(other, world, "admin")
        self.join(clerk, organizations.create_organization("Elsewhere"), "admin")

        assert self.statuses(client, other) == {403}

    def test_a_user_who_may_give_memberships_counts_as_having_them_all(self, client, clerk, world):
        other = User.objects.create_user("other")
        self.join(other, world, "admin")
        handed = [f"projects.{verb}_membership" for verb in ("add", "change")]
        permit(clerk, ["projects.change_user", "projects.view_user", *handed])

        password = reverse("admin:auth_user_password_change", args=[other.pk])
        assert client.get(password).status_code == 200

    def test_a_user_who_may_change_groups_cannot_give_rights(self, client, clerk):
        group = Group.objects.create(name="Clerks")
        clerk.groups.add(group)
        every = [f"auth.{verb}_group" for verb in ("add", "change", "delete", "view")]
        permit(clerk, every)
        page = reverse("admin:auth_group_change", args=[group.pk])
        rights = list(Permission.objects.values_list("pk", flat=True))

        for address in (page, reverse("admin:auth_group_add")):
            form = {"name": "Clerks of all", "permissions": rights}
            assert client.post(address, form).status_code == 403
        assert not group.permissions.exists()
        assert client.get(page).status_code == 200
