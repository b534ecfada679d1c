"""The admin's pages of users, credentials and Slack workspaces."""

import re
import uuid
from datetime import timedelta

import pytest
from django.contrib.admin.models import LogEntry
from django.contrib.auth.models import Group, Permission
from django.contrib.sessions.models import Session
from django.db import connection
from django.test.utils import CaptureQueriesContext
from django.urls import NoReverseMatch, reverse

from billing.models import AuditEntry
from projects.authentication import credentials, introspection
from projects.models import (
    Change,
    OAuthAccessToken,
    OAuthApplication,
    Organization,
    PersonalAPIKey,
    Project,
    SlackWorkspace,
    User,
)
from projects.tokens import sha256
from tests.second_look import confirmed_action, confirmed_form

pytestmark = pytest.mark.django_db

ADD_KEY = reverse("admin:projects_personalapikey_add")
KEYS = reverse("admin:projects_personalapikey_changelist")
TOKENS = reverse("admin:projects_oauthaccesstoken_changelist")


@pytest.fixture
def new_key(organization, project):
    """Return a function that makes the form of a new key, as a browser sends it."""

    def _new_key(**changes):
        return {
            "label": "for the dashboard",
            "organization": str(organization.pk),
            "scopes": ["project:read"],
            "projects": [project.pk],
        } | changes

    return _new_key


@pytest.fixture
def workspace(project) -> SlackWorkspace:
    return SlackWorkspace.objects.create(
        project=project, team_id="T1", bot_user_id="UBOT", bot_token="xoxb-hidden"
    )


def test_a_new_key_is_shown_once_and_kept_nowhere(admin_client, new_key, project, caplog):
    answer = admin_client.post(ADD_KEY, new_key())
    assert answer.status_code == 200
    assert "no-store" in answer["Cache-Control"]
    [plain] = re.findall(r'value="(phx_[^"]+)"', answer.content.decode())
    assert introspection.find(plain).project_ids == {project.pk}
    for page in (KEYS, ADD_KEY, reverse("admin:index")):
        assert plain not in admin_client.get(page).content.decode()
    assert plain not in caplog.text
    kept = [entry.change_message + entry.object_repr for entry in LogEntry.objects.all()]
    kept += [str(session.get_decoded()) for session in Session.objects.all()]
    kept += [str(entry.details) for entry in AuditEntry.objects.all()]
    kept += [morsel.value for morsel in admin_client.cookies.values()]
    assert plain not in "".join(kept)


def test_the_audit_trail_says_who_created_a_key_with_which_scopes(
    admin_client, new_key, organization
):
    admin_client.post(ADD_KEY, new_key())
    entry = AuditEntry.objects.get(action=AuditEntry.Action.KEY_CREATED)
    key = PersonalAPIKey.objects.get()
    assert (entry.organization, entry.actor) == (organization, "admin")
    assert entry.details["mask"] == key.mask
    shown = admin_client.get(reverse("admin:billing_auditentry_changelist")).content.decode()
    assert f"key for the dashboard, shown as {key.mask}, with scopes project:read" in shown


def test_a_refused_key_leaves_no_entry(admin_client, new_key):
    admin_client.post(ADD_KEY, new_key(projects=[]))
    assert not AuditEntry.objects.filter(action=AuditEntry.Action.KEY_CREATED).exists()


def test_a_key_for_all_projects_covers_later_ones(admin_client, new_key, organization):
    answer = admin_client.post(ADD_KEY, new_key(projects=[], all_projects="on"))
    [plain] = re.findall(r'value="(phx_[^"]+)"', answer.content.decode())
    later = Project.objects.create(organization=organization, name="Later")
    assert later.pk in introspection.find(plain).project_ids


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"projects": []}, "Choose projects, or all projects"),
        ({"all_projects": "on"}, "Choose projects, or all projects"),
        ({"scopes": []}, "This field is required"),
        ({"scopes": ["project:write"]}, "Select a valid choice"),
        ({"label": ""}, "This field is required"),
        ({"organization": ""}, "This field is required"),
    ],
)
def test_an_invalid_key_is_not_created(admin_client, new_key, changes, message):
    answer = admin_client.post(ADD_KEY, new_key(**changes))
    assert message in answer.content.decode()
    assert not PersonalAPIKey.objects.exists()


def test_a_key_cannot_cover_another_organizations_project_or_user(
    admin_client, new_key, foreign_project
):
    stranger = User.objects.create_user("stranger")
    answer = admin_client.post(ADD_KEY, new_key(projects=[foreign_project.pk], user=stranger.pk))
    page = answer.content.decode()
    assert "covers its own projects only" in page
    assert "is not a member of" in page
    assert not PersonalAPIKey.objects.exists()


def test_only_the_label_of_a_key_can_be_changed(admin_client, organization, project, sibling):
    key, _ = credentials.issue_personal_api_key(organization, "k", ["project:read"], [project])
    page = reverse("admin:projects_personalapikey_change", args=[key.pk])
    shown = admin_client.get(page).content.decode()
    assert key.mask in shown
    assert key.sha256 not in shown
    answer = admin_client.post(
        page, {"label": "renamed", "all_projects": "on", "scopes": ["billing:read"]}
    )
    assert answer.status_code == 302
    key = PersonalAPIKey.objects.get()
    assert (key.label, key.all_projects, key.scopes) == ("renamed", False, ["project:read"])
    assert list(key.projects.all()) == [project]


def test_keys_are_revoked_by_the_action(admin_client, organization):
    keys = [
        credentials.issue_personal_api_key(organization, str(n), ["project:read"]) for n in range(2)
    ]
    keys = [key for key, _ in keys]
    form = {"action": "revoke", "_selected_action": [key.pk for key in keys]}
    asked = admin_client.post(KEYS, form).content.decode()
    assert f"The key 1 ({keys[1].mask}) of Acme stops working for good" in asked
    assert PersonalAPIKey.objects.filter(revoked_at=None).count() == 2
    answer = confirmed_action(admin_client, KEYS, "revoke", *keys, reason="it leaked")
    assert "2 key(s) revoked" in answer.content.decode()
    audited = AuditEntry.objects.values_list("action", "organization__name", "actor", "reason")
    assert list(audited) == [("key_revoked", "Acme", "admin", "it leaked")] * 2
    assert not PersonalAPIKey.objects.filter(revoked_at=None).exists()
    assert Change.objects.count() == 2
    assert len(admin_client.get(KEYS + "?state=works").context["cl"].result_list) == 0
    assert len(admin_client.get(KEYS + "?state=revoked").context["cl"].result_list) == 2


def test_a_user_with_view_permission_cannot_revoke(client, organization, project):
    credentials.issue_personal_api_key(organization, "k", ["project:read"])
    credentials.mint_product_token(project, "slack_app_routing", timedelta(hours=1))
    reader = User.objects.create_user("reader", is_staff=True)
    reader.user_permissions.set(Permission.objects.filter(codename__startswith="view_"))
    client.force_login(reader)
    for page, model in ((KEYS, PersonalAPIKey), (TOKENS, OAuthAccessToken)):
        assert client.get(page).status_code == 200
        selected = list(model.objects.values_list("pk", flat=True))
        answer = client.post(page, {"action": "revoke", "_selected_action": selected}, follow=True)
        assert "What will happen" not in answer.content.decode()
    assert Change.objects.count() == 0
    assert client.get(ADD_KEY).status_code == 403


def test_tokens_are_shown_without_their_hashes_and_cannot_be_changed(admin_client, project):
    run = uuid.uuid4()
    plain = credentials.mint_run_token(project, run, ["slack_app"], timedelta(hours=1))
    token = OAuthAccessToken.objects.get()
    page = reverse("admin:projects_oauthaccesstoken_change", args=[token.pk])
    shown = admin_client.get(page).content.decode()
    assert str(run) in shown
    assert sha256(plain) not in shown
    assert 'name="_save"' not in shown
    assert admin_client.post(page, {"scope": "billing:read"}).status_code == 403
    delete = reverse("admin:projects_oauthaccesstoken_delete", args=[token.pk])
    assert admin_client.post(delete, {"post": "yes"}).status_code == 403


def test_tokens_are_revoked_by_the_action_and_reported_in_the_change_feed(admin_client, project):
    plain = credentials.mint_product_token(project, "slack_app_routing", timedelta(hours=1))
    confirmed_action(admin_client, TOKENS, "revoke", OAuthAccessToken.objects.get())
    assert AuditEntry.objects.get().action == "token_revoked"
    assert not OAuthAccessToken.objects.exists()
    assert Change.objects.get().payload == {"sha256": sha256(plain)}


def test_a_desktop_client_is_registered_with_two_fields(admin_client):
    page = reverse("admin:projects_oauthapplication_add")
    form = {field.name: field.value() for field in admin_client.get(page).context["adminform"].form}
    answer = admin_client.post(page, form | {"name": "Desktop"})
    assert answer.status_code == 302, answer.context["errors"]
    application = OAuthApplication.objects.get()
    assert application.client_type == "public"
    assert application.authorization_grant_type == "authorization-code"
    assert not application.skip_authorization


def test_a_desktop_client_with_an_unsafe_address_is_not_registered(admin_client):
    page = reverse("admin:projects_oauthapplication_add")
    form = {field.name: field.value() for field in admin_client.get(page).context["adminform"].form}
    answer = admin_client.post(
        page, form | {"name": "D", "redirect_uris": "http://example.com/callback"}
    )
    assert "use https" in answer.content.decode()
    assert not OAuthApplication.objects.exists()


def test_a_bot_token_is_never_shown(admin_client, workspace):
    for page in (
        reverse("admin:projects_slackworkspace_changelist"),
        reverse("admin:projects_slackworkspace_change", args=[workspace.pk]),
        reverse("admin:projects_slackworkspace_history", args=[workspace.pk]),
    ):
        assert "xoxb-hidden" not in admin_client.get(page).content.decode()


@pytest.mark.parametrize(("given", "kept"), [("", "xoxb-hidden"), ("xoxb-new", "xoxb-new")])
def test_a_bot_token_can_be_replaced_and_left_alone(admin_client, workspace, given, kept):
    page = reverse("admin:projects_slackworkspace_change", args=[workspace.pk])
    answer = admin_client.post(
        page,
        {
            "project": workspace.project_id,
            "team_id": "T1",
            "bot_user_id": "UBOT",
            "access": "members",
            "is_active": "on",
            "new_bot_token": given,
        },
    )
    assert answer.status_code == 302, answer.context["errors"]
    workspace = SlackWorkspace.objects.get()
    assert (workspace.bot_token, workspace.access) == (kept, "members")


def test_a_token_that_cannot_be_decrypted_can_be_replaced(admin_client, workspace):
    with connection.cursor() as cursor:
        cursor.execute("UPDATE projects_slackworkspace SET bot_token = 'of a lost key'")
    page = reverse("admin:projects_slackworkspace_change", args=[workspace.pk])
    form = {"project": workspace.project_id, "team_id": "T1", "bot_user_id": "UBOT"}
    form |= {"access": "everyone", "is_active": "on", "new_bot_token": "xoxb-new"}
    answer = admin_client.post(page, form)
    assert answer.status_code == 302, answer.context["errors"]
    assert SlackWorkspace.objects.get().bot_token == "xoxb-new"


@pytest.mark.parametrize("given", ["", "xoxp-wrong"])
def test_a_new_workspace_needs_a_bot_token(admin_client, project, given):
    answer = admin_client.post(
        reverse("admin:projects_slackworkspace_add"),
        {
            "project": project.pk,
            "team_id": "T2",
            "bot_user_id": "UBOT",
            "access": "everyone",
            "new_bot_token": given,
        },
    )
    assert "bot token" in answer.content.decode()
    assert not SlackWorkspace.objects.exists()


def test_a_workspace_is_switched_off_after_a_second_look(admin_client, workspace):
    page = reverse("admin:projects_slackworkspace_change", args=[workspace.pk])
    form = {"project": workspace.project_id, "team_id": "T1", "bot_user_id": "UBOT"}
    form |= {"access": "everyone"}
    assert "Say why" in admin_client.post(page, form).content.decode()
    form |= {"reason": "they left"}
    asked = admin_client.post(page, form).content.decode()
    assert "From then on the bot answers nobody there" in asked
    assert SlackWorkspace.objects.get().is_active
    assert confirmed_form(admin_client, page, form).status_code == 302
    assert not SlackWorkspace.objects.get().is_active
    entry = AuditEntry.objects.get()
    assert (entry.action, entry.reason) == ("workspace_deactivated", "they left")
    admin_client.post(page, form | {"is_active": "on", "reason": "they are back"})
    assert AuditEntry.objects.first().action == "workspace_activated"


@pytest.mark.parametrize(
    ("team", "message"), [("T1", "T1 is installed already"), ("", "the workspace&#x27;s id (T…)")]
)
def test_a_workspace_that_cannot_be_is_explained(admin_client, workspace, team, message):
    form = {"project": workspace.project_id, "team_id": team, "bot_user_id": "UBOT"}
    form |= {"access": "everyone", "is_active": "on", "new_bot_token": "xoxb-new"}
    page = admin_client.post(reverse("admin:projects_slackworkspace_add"), form).content.decode()
    assert message in page
    assert "Constraint" not in page


def test_a_user_is_made_with_an_address_and_deactivated(admin_client, organization):
    answer = admin_client.post(
        reverse("admin:projects_user_add"),
        {
            "username": "ada",
            "email": "ada@example.com",
            "usable_password": "true",
            "password1": "a long password",
            "password2": "a long password",
            "membership_set-TOTAL_FORMS": 1,
            "membership_set-INITIAL_FORMS": 0,
            "membership_set-0-organization": str(organization.pk),
            "membership_set-0-role": "member",
        },
    )
    assert answer.status_code == 302, answer.context["errors"]
    user = User.objects.get(username="ada")
    assert (user.email, list(user.organizations.all())) == ("ada@example.com", [organization])


def test_two_users_may_have_no_address(db):
    User.objects.create_user("a")
    User.objects.create_user("b", email="")
    assert User.objects.filter(email=None).count() == 2


@pytest.mark.parametrize(
    "name", ["personalapikey", "oauthaccesstoken", "slackworkspace", "user", "oauthapplication"]
)
def test_a_list_costs_the_same_number_of_queries_however_long_it_is(
    admin_client, django_assert_num_queries, name
):
    page = reverse(f"admin:projects_{name}_changelist")

    def add(number):
        organization = Organization.objects.create(name=f"O{number}")
        project = Project.objects.create(organization=organization, name="P")
        user = User.objects.create_user(f"u{number}")
        organization.members.add(user)
        credentials.issue_personal_api_key(organization, "k", ["project:read"], [project], user)
        application = OAuthApplication.objects.create(client_type="public")
        credentials.mint_product_token(project, "x", timedelta(hours=1))
        OAuthAccessToken.objects.filter(user=None).update(user=user, application=application)
        SlackWorkspace.objects.create(
            project=project, team_id=f"T{number}", bot_user_id="U", bot_token="xoxb-1"
        )

    for number in range(2):
        add(number)
    admin_client.get(page)
    with CaptureQueriesContext(connection) as few:
        assert admin_client.get(page).status_code == 200
    for number in range(2, 8):
        add(number)
    with django_assert_num_queries(len(few)):
        assert admin_client.get(page).status_code == 200


@pytest.mark.parametrize("name", ["oauthgrant", "oauthidtoken", "oauthrefreshtoken"])
def test_what_nobody_needs_to_see_has_no_page(name):
    with pytest.raises(NoReverseMatch):
        reverse(f"admin:projects_{name}_changelist")


def test_searching_finds_credentials_by_what_the_list_shows(admin_client, organization, project):
    key, _ = credentials.issue_personal_api_key(organization, "k", ["project:read"])
    for words in (key.mask[-4:], "Acme"):
        found = admin_client.get(KEYS, {"q": words}).context["cl"].result_list
        assert list(found) == [key]
    run = uuid.uuid4()
    credentials.mint_run_token(project, run, ["slack_app"], timedelta(hours=1))
    for words in (str(run), "Main", "not a uuid"):
        answer = admin_client.get(TOKENS, {"q": words})
        assert len(answer.context["cl"].result_list) == (words != "not a uuid")


def test_a_user_who_may_change_users_cannot_become_a_superuser(client, django_user_model):
    root = django_user_model.objects.create_superuser("root", "root@example.com", "a long password")
    clerk = django_user_model.objects.create_user("clerk", "c@example.com", "pass", is_staff=True)
    clerk.user_permissions.set(Permission.objects.filter(codename__in=["change_user", "view_user"]))
    client.force_login(clerk)
    own, other = (reverse("admin:projects_user_change", args=[user.pk]) for user in (clerk, root))
    joined = {"date_joined_0": "2026-01-01", "date_joined_1": "00:00:00"}
    memberships = {"memberships-TOTAL_FORMS": 0, "memberships-INITIAL_FORMS": 0}

    flags = {"is_active": "on", "is_staff": "on", "is_superuser": "on"}
    form = {"username": "clerk", "email": "new@example.com"} | flags | joined | memberships
    client.post(own, form)

    clerk.refresh_from_db()
    assert (clerk.is_superuser, clerk.email) == (False, "new@example.com")
    password = reverse("admin:auth_user_password_change", args=[root.pk])
    for page in (other, password):
        assert client.post(page, {"username": "root"}).status_code == 403


@pytest.mark.parametrize("is_active", [True, False])
def test_a_user_who_may_change_users_cannot_take_over_greater_rights(
    client, django_user_model, is_active
):
    users = django_user_model.objects
    payer = users.create_user("payer", is_staff=True, is_active=is_active)
    payers = Group.objects.create(name="Payers")
    payers.permissions.add(Permission.objects.get(codename="add_creditgrant"))
    payer.groups.add(payers)
    clerk, peer = (users.create_user(name, is_staff=True) for name in ("clerk", "peer"))
    for user in (clerk, peer):
        rights = Permission.objects.filter(codename__in=["change_user", "view_user"])
        user.user_permissions.set(rights)
    client.force_login(clerk)

    for user, status in ((payer, 403), (peer, 200), (clerk, 200)):
        password = reverse("admin:auth_user_password_change", args=[user.pk])
        assert client.get(password).status_code == status
    own = reverse("admin:projects_user_change", args=[payer.pk])
    assert client.post(own, {"username": "payer", "is_active": "on"}).status_code == 403


def test_a_user_who_may_delete_users_cannot_delete_a_superuser(client, django_user_model):
    users = django_user_model.objects
    root = users.create_superuser("root", "root@example.com", "a long password")
    leaver = users.create_user("leaver")
    clerk = users.create_user("clerk", is_staff=True)
    rights = ["delete_user", "view_user", "view_membership", "delete_membership"]
    clerk.user_permissions.set(Permission.objects.filter(codename__in=rights))
    client.force_login(clerk)
    chosen = {"action": "delete_selected", "post": "yes", "_selected_action": [root.pk]}

    for user, status in ((root, 403), (leaver, 302)):
        page = reverse("admin:projects_user_delete", args=[user.pk])
        assert client.post(page, {"post": "yes"}).status_code == status
    client.post(reverse("admin:projects_user_changelist"), chosen)

    assert set(users.values_list("username", flat=True)) == {"root", "clerk"}
