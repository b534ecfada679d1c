"""The slash command tells permitted users about credits and work, and stops their own work."""

from datetime import timedelta
from uuid import uuid4
from zoneinfo import ZoneInfo

import pytest
from django.contrib.auth.models import Permission
from django.db import OperationalError, connection
from django.utils import timezone

from billing.allowances.limits import set_limit
from coding_tasks.models import CodingTask, TaskRun
from coding_tasks.runs import TIME_LIMIT
from projects.authentication.credentials import mint_run_token
from projects.models import Membership, OAuthAccessToken, SlackWorkspace, User
from quota.resources import AI_CREDITS, MICRO
from slack_bot import usage_answer
from tests.billing.world import book, usage_event
from tests.slack_bot.conftest import captured
from tests.stopwatch import Stopwatch
from workflows import tasks
from workflows.models import CreditApprover, FollowUp, Mention

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
        (2000 * MICRO, "2,000.00"),
        (100 * MICRO, "100.00"),
        (1_500_000, "1.50"),
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
    said = answer(webhook, "  STATUS ")
    assert said.startswith("Your team's Tollgate AI credits have no limit.\n")


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
@pytest.mark.parametrize("text", ["", "help", "status please", "stop now", "\0", "x" * 5000])
def test_anything_else_gets_help(webhook, workspace, text):
    said = answer(webhook, text)
    for word in ("status", "usage", "top", "stop"):
        assert f"`/tollgate {word}`" in said


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
    assert "• add &lt;tests&gt;: about to start, 1.50 credits" in said
    assert "Who used most" not in said


def test_usage_of_somebody_else_does_not_show_the_askers_tasks(webhook, used):
    said = answer(webhook, "usage", user_id="U2")
    assert "and you 0.50 (25 %)." in said
    assert "tests" not in said


@pytest.fixture
def approver(workspace) -> User:
    """A person of the admin, who is U2 in Slack and may approve credits."""
    carl = User.objects.create_user("carl", is_staff=True)
    carl.user_permissions.set(Permission.objects.filter(codename="add_creditgrant"))
    CreditApprover.objects.create(workspace=workspace, slack_user_id="U2", user=carl)
    return carl


@pytest.mark.parametrize("text", ["usage", "top"])
def test_those_who_may_approve_credits_see_who_used_most(webhook, used, approver, text):
    said = answer(webhook, text, user_id="U2")
    assert "• <@U1>: 1.50 credits (75 %)\n• <@U2>: 0.50 credits (25 %)" in said


def test_others_do_not_see_who_used_most(webhook, used, approver):
    said = answer(webhook, "top")
    assert said == "Only people who may approve credits can see who used most."


def test_an_approver_who_may_no_longer_top_up_does_not_see_who_used_most(webhook, used, approver):
    User.objects.filter(pk=approver.pk).update(is_active=False)
    assert "Only people" in answer(webhook, "top", user_id="U2")


def test_an_approver_of_another_workspace_does_not_see_who_used_most(
    webhook, used, approver, stranger
):
    webhook.slack.install("T2", "xoxb-theirs")
    webhook.slack.add_user("U7", team="T2")
    theirs = SlackWorkspace.objects.create(
        project=stranger, team_id="T2", bot_user_id="UBOT", bot_token="xoxb-theirs"
    )
    CreditApprover.objects.create(workspace=theirs, slack_user_id="U7", user=approver)
    assert answer(webhook, "top", user_id="U7", team_id="T2").endswith(
        "nobody has used any credits."
    )
    assert "only full members" in answer(webhook, "top", user_id="U7")


def test_the_spenders_beyond_the_top_are_one_line(webhook, used, approver, monkeypatch):
    monkeypatch.setattr(usage_answer, "_TOP_SPENDERS", 1)
    said = answer(webhook, "top", user_id="U2")
    assert said.endswith("• <@U1>: 1.50 credits (75 %)\n• 1 other: 0.50 credits")


def test_usage_without_any_use_says_so(webhook, workspace):
    assert "your team has used 0.00" in answer(webhook, "usage")


def test_usage_names_the_first_day_of_the_period_in_the_zone_of_the_limit(
    webhook, workspace, monkeypatch
):
    set_limit(workspace.project.organization, AI_CREDITS, MICRO, time_zone="Europe/Berlin")
    later = timezone.now() + timedelta(days=62)
    monkeypatch.setattr(timezone, "now", lambda: later)
    first = later.astimezone(ZoneInfo("Europe/Berlin")).replace(day=1)
    assert answer(webhook, "usage").startswith(f"Since {first:%Y-%m-%d}, your team has used 0.00")


def test_a_guest_is_not_told_the_usage(webhook, used):
    assert "2.00" not in answer(webhook, "usage", user_id="U3")


# --- Work ----------------------------------------------------------------------------------------
@pytest.fixture
def at_work(used) -> TaskRun:
    """The run of U1, at work for three minutes."""
    since = timezone.now() - timedelta(minutes=3)
    TaskRun.objects.update(state=TaskRun.State.RUNNING, started_at=since)
    CodingTask.objects.update(permalink="https://acme.slack.com/archives/C1/p1001")
    used.refresh_from_db()
    return used


def test_the_status_lists_what_works_for_the_asker(webhook, at_work):
    said = answer(webhook)
    link = "<https://acme.slack.com/archives/C1/p1001|add &lt;tests&gt;>"
    assert f"• {link}: working for 3 min" in said
    assert ", 1.50 credits" in said
    assert "for others" not in said


def test_the_status_counts_the_work_of_others_without_naming_it(webhook, at_work):
    said = answer(webhook, user_id="U2")
    assert said.endswith(
        "Nothing is running for you.\n1 task is running for others in this project."
    )


def test_the_status_counts_no_work_of_other_projects(webhook, at_work, stranger):
    webhook.slack.install("T2", "xoxb-theirs")
    webhook.slack.add_user("U7", team="T2")
    SlackWorkspace.objects.create(
        project=stranger, team_id="T2", bot_user_id="UBOT", bot_token="xoxb-theirs"
    )
    said = answer(webhook, user_id="U7", team_id="T2")
    assert said.endswith("Nothing is running for you.")


def test_a_cost_that_is_not_zero_is_never_shown_as_zero(webhook, workspace, at_work):
    at_work.pk, at_work.message_ts = uuid4(), "200.1"
    at_work.task_id = CodingTask.objects.create(
        project=workspace.project, repository=at_work.task.repository, workspace=workspace,
        channel_id="C1", thread_ts="200.1", owner_slack_user_id="U2", title="x", workflow_id="v",
    ).pk  # fmt: skip
    at_work.save(force_insert=True)
    tiny = {"task_run_id": str(at_work.pk)}
    book(usage_event(workspace.project, "0.000001", properties=tiny))
    assert "&lt;0.01 credits" in answer(webhook, user_id="U2")


def test_the_status_says_that_the_limit_is_near(webhook, workspace, used):
    set_limit(workspace.project.organization, AI_CREDITS, 2_200_000)
    assert "0.20 Tollgate AI credits left. That is close to the limit." in answer(webhook)


# --- Stopping ------------------------------------------------------------------------------------
STOPPED = "Stopped your work in 1 thread of this channel. Each thread says what it used."
NOTHING = "Nothing of yours is running in this channel, so there is nothing to stop."


@pytest.fixture
def running(task) -> TaskRun:
    """A run of U1 at work in C1."""
    return TaskRun.objects.create(
        task=task, message_ts=task.thread_ts, request="x", state=TaskRun.State.RUNNING
    )


def stopped_threads(webhook) -> list[str]:
    tasks.deliver_pending_notices()
    return [each["text"].split(".")[0] for each in webhook.slack.bot_messages("C1")]


def test_stop_ends_the_askers_work_in_the_channel_as_the_button_does(webhook, running):
    mint_run_token(
        running.task.project, running.pk, ["slack_app"], TIME_LIMIT, distinct_id="slack:T1:U1"
    )
    assert answer(webhook, "stop") == STOPPED
    running.refresh_from_db()
    assert running.state == TaskRun.State.STOPPED
    assert Mention.objects.get().state == Mention.State.STOPPED
    assert not OAuthAccessToken.objects.exists()
    assert stopped_threads(webhook) == ["Stopped, as <@U1> asked"]


def test_a_second_stop_finds_nothing_and_says_nothing_in_the_thread(webhook, running):
    answer(webhook, "stop")
    assert answer(webhook, "stop") == NOTHING
    assert len(stopped_threads(webhook)) == 1


def test_stop_ends_the_work_of_several_threads(webhook, running):
    webhook.mention()
    said = answer(webhook, "stop")
    assert said.startswith("Stopped your work in 2 threads")
    assert stopped_threads(webhook) == ["Stopped, as <@U1> asked"] * 2
    assert set(Mention.objects.values_list("state", flat=True)) == {Mention.State.STOPPED}


def test_stop_takes_waiting_messages_with_it(webhook, running):
    webhook.reply("and the tests?", running.task.thread_ts)
    answer(webhook, "stop")
    assert FollowUp.objects.get().state == FollowUp.State.DROPPED


def test_stop_needs_no_credits(webhook, running):
    set_limit(running.task.project.organization, AI_CREDITS, 0)
    assert answer(webhook, "stop") == STOPPED


@pytest.mark.parametrize(
    "fields", [{"user_id": "U2"}, {"channel_id": "C2"}, {"channel_id": ""}], ids=str
)
def test_stop_ends_neither_the_work_of_others_nor_work_elsewhere(webhook, running, fields):
    assert answer(webhook, "stop", **fields) == NOTHING
    running.refresh_from_db()
    assert running.state == TaskRun.State.RUNNING
    assert stopped_threads(webhook) == []


def test_stop_from_another_workspace_ends_nothing(webhook, running, stranger):
    webhook.slack.install("T2", "xoxb-theirs")
    SlackWorkspace.objects.create(
        project=stranger, team_id="T2", bot_user_id="UBOT", bot_token="xoxb-theirs"
    )
    webhook.slack.add_user("U7", team="T2")
    assert answer(webhook, "stop", team_id="T2", user_id="U7") == NOTHING
    assert "only full members" in answer(webhook, "stop", team_id="T2", user_id="U1")
    running.refresh_from_db()
    assert running.state == TaskRun.State.RUNNING


def test_a_guest_stops_nothing(webhook, running):
    CodingTask.objects.update(owner_slack_user_id="U3")
    assert "only full members" in answer(webhook, "stop", user_id="U3")
    running.refresh_from_db()
    assert running.state == TaskRun.State.RUNNING
