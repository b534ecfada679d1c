"""The slash command tells permitted users how many credits are left."""

import pytest
from django.contrib.auth.models import Permission
from django.db import OperationalError, connection

from billing.allowances.limits import set_limit
from coding_tasks.models import CodingTask, TaskRun
from projects.models import Membership, SlackWorkspace, User
from quota.resources import AI_CREDITS, MICRO
from tests.billing.world import book, usage_event
from tests.slack_bot.conftest import captured
from tests.stopwatch import Stopwatch
from workflows.models import CreditApprover

PATH = "/slack/commands/"


def command(webhook, text="status", **fields):
    form = {
        "command": "/tollgate",
        "text": text,
        "team_id": "T1",
        "enterprise_id": "",
        "is_enterprise_install": "false",
        "user_id": "U1",
        "channel_id": "C1",
        "response_url": "https://hooks.slack.com/commands/T1/1/abc",
        **fields,
    }
    return webhook.deliver(form, PATH)


def answer(webhook, text="status", **fields) -> str:
    response = command(webhook, text, **fields)
    assert response.status_code == 200
    assert response.json()["response_type"] == "ephemeral"
    return response.json()["text"]


@pytest.mark.parametrize(
    ("limit", "shown"),
    [
        (2000 * MICRO, "2,000"),
        (100 * MICRO, "100"),
        (1_500_000, "1.5"),
        (12_345_678, "12.35"),
        (10_000, "0.01"),
        (9_999, "<0.01"),
    ],
)
def test_the_status_says_how_many_credits_are_left(webhook, workspace, limit, shown):
    set_limit(workspace.project.organization, AI_CREDITS, limit)
    said = answer(webhook).replace("&lt;", "<")
    assert said.startswith(f"Your team has {shown} Tollgate AI credits left.")
    assert [call.method for call in webhook.slack.calls()] == ["users.info"]


def test_the_status_of_a_team_out_of_credits_is_the_denial(webhook, workspace, out_of_credits):
    assert answer(webhook).startswith("Your team has used its monthly Tollgate AI credits.")


def test_the_status_of_a_team_without_a_limit_says_so(webhook, workspace):
    assert answer(webhook, "  STATUS ") == "Your team's Tollgate AI credits have no limit."


def test_the_status_is_of_the_askers_own_team(webhook, workspace, stranger):
    set_limit(stranger.organization, AI_CREDITS, 0)
    assert "no limit" in answer(webhook)


# --- Who is told ---------------------------------------------------------------------------------
@pytest.mark.parametrize("user", ["U3", "U404", ""], ids=["a guest", "nobody", "no id"])
def test_only_full_members_are_told_the_credits(webhook, workspace, user):
    said = answer(webhook, user_id=user)
    assert "only full members of this workspace can use Tollgate" in said
    assert "credits" not in said


def test_somebody_of_another_organization_is_not_told(webhook, workspace):
    webhook.slack.install("T2", "xoxb-theirs")
    webhook.slack.add_user("U5", team="T2")
    assert "only full members" in answer(webhook, user_id="U5")


def test_only_members_are_told_if_only_members_may_use_the_bot(webhook, workspace, project):
    workspace.access = SlackWorkspace.Access.MEMBERS
    workspace.save()
    assert "only members of Acme can use" in answer(webhook)
    email = webhook.slack.slack.workspace.user("U1")["profile"]["email"]
    Membership.objects.create(
        organization=project.organization,
        user=User.objects.create_user("u1", email, "a long password"),
    )
    assert "no limit" in answer(webhook)


@pytest.mark.parametrize("error", ["ratelimited", "internal_error", "missing_scope"])
def test_status_is_withheld_while_slack_does_not_say_who_asks(webhook, workspace, error):
    webhook.slack.fail_next("users.info", error)
    assert answer(webhook).startswith("I cannot find out from Slack who you are")


def test_a_slack_that_hangs_delays_the_answer_no_longer_than_slack_waits(webhook, workspace):
    webhook.slack.hang_next("users.info", 3)
    with Stopwatch() as waited:
        assert answer(webhook).startswith("I cannot find out from Slack who you are")
    assert waited.seconds < 3


def test_help_does_not_ask_slack_who_is_asking(webhook, workspace):
    answer(webhook, "help", user_id="U3")
    assert webhook.slack.calls() == []


# --- What else is said ---------------------------------------------------------------------------
@pytest.mark.parametrize("text", ["", "help", "status please", "\0", "x" * 5000])
def test_anything_else_gets_help(webhook, workspace, text):
    assert answer(webhook, text).startswith("`/tollgate status` shows")


@pytest.mark.parametrize("team", ["T9", "", "T1\0", "x" * 100])
def test_a_workspace_without_the_app_is_told_so(webhook, workspace, team):
    assert answer(webhook, team_id=team) == "Tollgate is not connected to this workspace."


def test_slacks_check_of_the_certificate_is_answered(webhook):
    assert webhook.deliver({"ssl_check": "1", "token": "x"}, PATH).status_code == 200


def test_the_status_says_so_if_the_quota_is_unknown(webhook, workspace, no_redis):
    def quota_is_down(execute, sql, *rest):
        if "quota_" in sql:
            raise OperationalError("this table cannot be read")
        return execute(sql, *rest)

    with connection.execute_wrapper(quota_is_down):
        assert "cannot look up" in answer(webhook)


def test_a_json_body_is_no_command_and_no_error(webhook, workspace):
    assert webhook.deliver(str(captured("mention")).encode(), PATH).status_code == 200


# --- Usage ---------------------------------------------------------------------------------------
@pytest.fixture
def used(workspace, repository) -> TaskRun:
    """A task of U1 for 1.5 credits, and calls of U2 for 0.5 credits."""
    task = CodingTask.objects.create(
        project=workspace.project, repository=repository, workspace=workspace, channel_id="C1",
        thread_ts="100.1", owner_slack_user_id="U1", title="add <tests>", workflow_id="w",
    )  # fmt: skip
    run = TaskRun.objects.create(task=task, message_ts="100.1", request="x")
    project, other = workspace.project, {"distinct_id": "slack:T1:U2"}
    book(
        usage_event(project, "0.0125", properties={"task_run_id": str(run.pk)}),
        usage_event(project, "0.00416666666666666667", **other),
    )
    return run


def test_usage_shows_the_teams_and_the_askers_share_and_their_tasks(webhook, used):
    said = answer(webhook, "usage")
    assert "your team has used 2.00 Tollgate AI credits, and you 1.50 (75 %)." in said
    assert "• add &lt;tests&gt;: 1.50 credits, active" in said
    assert "Who used most" not in said


def test_usage_of_somebody_else_does_not_show_the_askers_tasks(webhook, used):
    said = answer(webhook, "usage", user_id="U2")
    assert "and you 0.50 (25 %)." in said
    assert "tests" not in said


def test_only_those_who_may_approve_credits_see_who_used_most(webhook, workspace, used):
    carl = User.objects.create_user("carl", is_staff=True)
    carl.user_permissions.set(Permission.objects.filter(codename="add_creditgrant"))
    CreditApprover.objects.create(workspace=workspace, slack_user_id="U2", user=carl)
    said = answer(webhook, "usage", user_id="U2")
    assert "• <@U1>: 1.50 credits (75 %)\n• <@U2>: 0.50 credits (25 %)" in said


def test_usage_without_any_use_says_so(webhook, workspace):
    assert "your team has used 0.00" in answer(webhook, "usage")


def test_a_guest_is_not_told_the_usage(webhook, used):
    assert "2.00" not in answer(webhook, "usage", user_id="U3")
