"""`create_project` and `create_token`, as an operator uses them."""

import json
from decimal import Decimal

import pytest
from django.core.management import CommandError, call_command

from billing.models import AuditEntry
from coding_tasks.models import ChannelDefault, Repository
from projects.authentication import introspection
from projects.models import (
    OAuthAccessToken,
    Organization,
    PersonalAPIKey,
    Project,
    SlackWorkspace,
)
from projects.principal import READ_SCOPES, SCOPES
from quota.gate import check

pytestmark = pytest.mark.django_db

SLACK = ["--slack-workspace=T1", "--slack-bot-token=xoxb-1", "--slack-bot-user=UBOT"]


@pytest.fixture
def create(redis_client, capsys):
    def _create(*options, organization="Acme", name="Bot"):
        call_command(
            "create_project", "--organization", organization, "--name", name, "--json", *options
        )
        return json.loads(capsys.readouterr().out)

    return _create


def test_the_audit_trail_names_the_commands_that_create_keys(create, token):
    made = create()
    Organization.objects.update(unmetered_gateway=True)
    token(made["project_id"], "llm_gateway")
    entries = AuditEntry.objects.filter(action=AuditEntry.Action.KEY_CREATED)
    assert [entry.actor for entry in entries.order_by("pk")] == [
        "manage.py create_project",
        "manage.py create_token",
    ]


@pytest.fixture
def token(capsys):
    def _token(project_id, product):
        call_command("create_token", str(project_id), "--product", product)
        printed = capsys.readouterr()
        [line] = printed.out.splitlines()
        return line, printed.err

    return _token


def test_it_prints_what_a_program_needs(create):
    made = create()
    project = Project.objects.get()
    assert made == {
        "organization_id": str(project.organization_id),
        "project_id": project.pk,
        "api_token": project.api_token,
        "personal_api_key": made["personal_api_key"],
    }
    assert made["api_token"].startswith("phc_")
    found = introspection.find(made["personal_api_key"])
    assert found.project_ids == {project.pk}
    assert found.scopes == READ_SCOPES


def test_a_key_can_be_made_that_starts_tasks(create):
    made = create("--write-tasks")
    assert introspection.find(made["personal_api_key"]).scopes == SCOPES


def test_the_key_covers_only_this_project_even_when_others_are_added(create):
    made = create()
    create(name="Later")
    assert introspection.find(made["personal_api_key"]).project_ids == {made["project_id"]}


def test_running_it_again_finds_the_project_and_makes_a_new_key(create):
    first, second = create(), create()
    assert first.pop("personal_api_key") != second.pop("personal_api_key")
    assert first == second
    assert Organization.objects.count() == Project.objects.count() == 1
    assert PersonalAPIKey.objects.filter(revoked_at=None).count() == 2


def test_two_organizations_can_have_projects_of_the_same_name(create):
    assert create()["project_id"] != create(organization="Stranger")["project_id"]


def test_without_json_it_prints_lines_for_people(redis_client, capsys):
    call_command("create_project", "--organization=Acme", "--name=Bot")
    printed = capsys.readouterr().out
    assert "personal_api_key: phx_" in printed


def test_the_limit_is_the_organizations_ai_credits(create):
    project = Project.objects.get(pk=create("--limit", "2000.5")["project_id"])
    verdict = check(project)
    assert verdict.remaining_micro == Decimal("2000.5") * 1_000_000
    create("--limit", "none")
    assert check(project).remaining_micro is None
    create("--limit", "0")
    assert check(project).limited


def test_without_a_limit_option_the_limit_stays(create):
    project = Project.objects.get(pk=create("--limit", "5")["project_id"])
    create()
    assert check(project).remaining_micro == 5_000_000


def test_the_workspace_and_the_repositories_are_connected_and_updated(create):
    create(*SLACK, "--repository=acme/web=https://example.com/acme/web.git")
    create(
        "--slack-workspace=T1",
        "--slack-bot-token=xoxb-2",
        "--slack-bot-user=UBOT2",
        "--repository=acme/web=https://example.com/moved/web.git",
        "--repository=acme/api=git@example.com:acme/api.git",
    )
    workspace = SlackWorkspace.objects.get()
    assert (workspace.team_id, workspace.bot_user_id, workspace.bot_token) == (
        "T1",
        "UBOT2",
        "xoxb-2",
    )
    assert dict(Repository.objects.values_list("full_name", "clone_url")) == {
        "acme/web": "https://example.com/moved/web.git",
        "acme/api": "git@example.com:acme/api.git",
    }


def test_a_workspace_that_serves_another_project_is_not_taken(create):
    create(*SLACK)
    with pytest.raises(CommandError, match="T1 already serves another project"):
        create(*SLACK, organization="Stranger")
    assert not Organization.objects.filter(name="Stranger").exists()
    assert SlackWorkspace.objects.get().project.organization.name == "Acme"


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--limit=-5"], "not an amount of credits"),
        (["--limit=lots"], "not an amount of credits"),
        (["--limit=1e3"], "not an amount of credits"),
        (["--limit="], "not an amount of credits"),
        (["--slack-workspace=T1"], "must be given together"),
        ([*SLACK, "--slack-workspace=C1"], "slack-workspace must match"),
        ([*SLACK, "--slack-bot-token=xoxp-1"], "slack-bot-token must match"),
        ([*SLACK, "--slack-bot-user=" + "U" * 40], "slack-bot-user must match"),
        (["--repository=acme/web"], "OWNER/NAME=CLONE_URL"),
        (["--repository=web=https://example.com/web.git"], "owner/name"),
        (["--repository=acme/web="], "acme/web"),
        (["--repository=acme/web=ext::sh -c id"], "cannot be cloned"),
        (["--repository=acme/web=ext::id"], "remote helper"),
        (["--repository=acme/web=https://me:secret@example.com/web.git"], "credential"),
        (["--repository=acme/web=https://secret@example.com/web.git"], "credential"),
        (["--repository=acme/web=--upload-pack=id"], "dash"),
        (["--repository=acme/web=http://example.com/web.git"], "not one of those allowed"),
    ],
)
def test_bad_input_is_one_clear_line_and_changes_nothing(create, options, message):
    with pytest.raises(CommandError, match=message) as refused:
        create(*options)
    assert "\n" not in str(refused.value)
    assert "secret" not in str(refused.value)
    assert not Organization.objects.exists()


@pytest.mark.parametrize("name", ["", "   ", "x" * 201])
def test_a_project_has_a_name(create, name):
    with pytest.raises(CommandError, match="1 to 200 characters"):
        create(name=name)
    with pytest.raises(CommandError, match="1 to 200 characters"):
        create(organization=name)
    assert not Organization.objects.exists()


def test_slack_app_gets_a_task_runs_token(create, token):
    plain, remark = token(create()["project_id"], "slack_app")
    described = introspection.describe(introspection.find(plain))
    assert described["token_kind"] == "oauth_run"
    assert described["task_run_id"]
    assert described["products"] == ["slack_app"]
    assert "valid for 1 day" in remark


@pytest.mark.parametrize("product", ["slack_app_routing", "slack-posthog-code"])
def test_the_routing_product_and_its_alias_get_a_product_token(create, token, product):
    plain, _ = token(create()["project_id"], product)
    described = introspection.describe(introspection.find(plain))
    assert described["token_kind"] == "oauth_product"
    assert described["products"] == ["slack_app_routing"]


def test_posthog_code_gets_a_desktop_clients_token(create, token):
    project_id = create()["project_id"]
    token(project_id, "posthog_code")
    plain, _ = token(project_id, "posthog_code")
    described = introspection.describe(introspection.find(plain))
    assert described["token_kind"] == "oauth_client"
    assert described["products"] == ["posthog_code"]
    assert OAuthAccessToken.objects.values("application").distinct().count() == 1


def test_the_unmetered_product_gets_a_personal_key_and_needs_permission(create, token):
    project_id = create()["project_id"]
    plain, remark = token(project_id, "llm_gateway")
    assert "switched off for Acme" in remark
    assert "llm_gateway" not in introspection.find(plain).products
    Organization.objects.update(unmetered_gateway=True)
    plain, remark = token(project_id, "llm_gateway")
    assert remark == "a personal API key, which llm_gateway takes; valid until it is revoked\n"
    found = introspection.find(plain)
    assert found.kind == "personal_api_key"
    assert "llm_gateway" in found.products
    assert found.project_ids == {project_id}


@pytest.mark.parametrize("project_id", ["999999", "abc", "1.5", "", "٣", "9" * 5000])
def test_an_unknown_project_is_one_clear_line(db, token, project_id):
    with pytest.raises(CommandError, match=r"^there is no project"):
        token(project_id, "slack_app")


def test_an_unknown_product_is_one_clear_line_that_names_the_known_ones(create, token):
    project_id = create()["project_id"]
    with pytest.raises(CommandError, match="unknown product 'nonsense'; use one of slack_app, "):
        token(project_id, "nonsense")
    assert not OAuthAccessToken.objects.exists()


def test_a_channel_can_have_a_default_repository(create):
    repositories = [
        "--repository=a/b=https://example.com/b",
        "--repository=a/c=https://example.com/c",
    ]
    create(*SLACK, *repositories, "--channel-default=C1=a/c")
    create("--channel-default=C1=a/b")
    default = ChannelDefault.objects.get(workspace__team_id="T1", channel_id="C1")
    assert default.repository.full_name == "a/b"


@pytest.mark.parametrize(
    ("options", "complaint"),
    [
        ([*SLACK, "--channel-default=C1=a/b"], "the project has no a/b"),
        (
            ["--repository=a/b=https://example.com/b", "--channel-default=C1=a/b"],
            "no Slack workspace",
        ),
        ([*SLACK, "--channel-default=general"], "must be C"),
    ],
)
def test_an_invalid_channel_default_is_one_clear_line(create, options, complaint):
    with pytest.raises(CommandError, match=complaint):
        create(*options)
    assert not Project.objects.exists()
