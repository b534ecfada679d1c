"""The Home tab: a person's own work, the team's credits, and what they may do."""

import json
from collections import OrderedDict
from datetime import timedelta
from typing import Any

import pytest
from django.db import connection
from django.test.utils import CaptureQueriesContext
from django.utils import timezone

from billing.allowances.caps import set_cap
from billing.allowances.limits import set_limit
from coding_tasks.models import CodingTask, TaskRun
from projects.models import SlackWorkspace
from quota.resources import AI_CREDITS, MICRO
from tests.billing.world import book, usage_event
from tests.slack_bot.conftest import captured
from tests.slack_bot.test_credit_requests import approver as approver
from workflows import tasks
from workflows.credit_requests import forms
from workflows.erasure import erase
from workflows.home import contents, openings, publishing, team_usage
from workflows.models import CreditRequest, HomeTab, Mention, Notice
from workflows.progress import stop_button

PATH = "/slack/interactivity/"
LINK = "https://acme.slack.com/archives/C1/p1001"


@pytest.fixture(autouse=True)
def _always_read(monkeypatch):
    """Have every tab read the team's usage again, because tests share the ids of accounts."""
    monkeypatch.setattr(team_usage, "REMEMBERED_SECONDS", 0.0)
    monkeypatch.setattr(team_usage, "_remembered", OrderedDict())


@pytest.fixture
def run(task: CodingTask) -> TaskRun:
    """A run of U1 at work for three minutes, for 1.5 credits; U2 has used 0.5."""
    CodingTask.objects.update(permalink=LINK, title="add <tests>")
    since = timezone.now() - timedelta(minutes=3)
    run = TaskRun.objects.create(
        task=task, message_ts=task.thread_ts, request="x", state="running", started_at=since
    )
    book(
        usage_event(task.project, "0.0125", properties={"task_run_id": str(run.pk)}),
        usage_event(task.project, "0.00416666666666666667", distinct_id="slack:T1:U2"),
    )
    return run


def event(webhook, user: str = "U1", team: str = "T1", **fields: Any) -> dict[str, Any]:
    opened = {"type": "app_home_opened", "user": user, "channel": f"D{user}", "tab": "home"}
    return webhook.slack.event_of(opened | fields, team=team)


def open_home(webhook, user: str = "U1", team: str = "T1", **fields: Any) -> None:
    assert webhook.deliver(event(webhook, user, team, **fields)).status_code == 200
    tasks.publish_due_homes()


def shown(webhook, user: str = "U1") -> str:
    """Return all that a person's Home tab says."""
    view = webhook.slack.home(user)
    return "" if view is None else json.dumps(view["blocks"], ensure_ascii=False)


def buttons(webhook, user: str = "U1") -> dict[str, dict[str, Any]]:
    """Return the buttons of a person's Home tab, by their action."""
    found: dict[str, dict[str, Any]] = {}
    for block in (webhook.slack.home(user) or {"blocks": []})["blocks"]:
        for each in [block.get("accessory"), *block.get("elements", ())]:
            if each and each["type"] == "button":
                found[each["action_id"]] = each
    return found


def click(webhook, action_id: str, user: str = "U1", *, by: str = "") -> None:
    """Click a button of a person's Home tab, as that person or as another."""
    view, button = webhook.slack.home(user), buttons(webhook, user)[action_id]
    action = {"type": "button", "action_id": action_id, "block_id": "b", "value": button["value"]}
    payload = webhook.slack.slack.interactions.home_actions(by or user, view, action)
    assert webhook.deliver({"payload": payload}, PATH).status_code == 200
    tasks.publish_due_homes()
    tasks.deliver_pending_notices()


def pass_time(monkeypatch, time: timedelta) -> None:
    later = timezone.now() + time
    monkeypatch.setattr(timezone, "now", lambda: later)


# --- What it shows -------------------------------------------------------------------------------
def test_the_tab_shows_a_persons_work_with_cost_and_link_and_their_share(webhook, run):
    open_home(webhook)
    said = shown(webhook)
    assert f"*<{LINK}|add &lt;tests&gt;>*\\nworking for 3 min" in said
    assert ", 1.50 credits" in said
    assert "you have used 1.50 of the team's 2.00 credits (75 %)" in said
    assert "Your team's credits have no limit." in said
    assert set(buttons(webhook)) == {stop_button.ACTION_ID}


def test_the_tab_lists_ended_tasks_without_a_stop_button(webhook, run):
    TaskRun.objects.update(state=TaskRun.State.SUCCEEDED)
    CodingTask.objects.update(state=CodingTask.State.DONE)
    open_home(webhook)
    assert f"• <{LINK}|add &lt;tests&gt;>: done, 1.50 credits" in shown(webhook)
    assert buttons(webhook) == {}


def test_credits_left_are_shown_with_a_bar_and_the_reset_in_the_readers_time_zone(
    webhook, workspace, run
):
    state = set_limit(workspace.project.organization, AI_CREDITS, 8 * MICRO)
    assert state is not None
    open_home(webhook)
    said = shown(webhook)
    assert "`█████░░░░░░░░░░░░░░░` 25 % used\\n*6.00* of 8.00 credits are left." in said
    assert "They reset on <!date^" in said
    assert "^{date_long} at {time}|" in said


@pytest.mark.parametrize(
    ("limit", "said"),
    [(400, "`░░░░░░░░░░░░░░░░░░░░` &lt;1 % used"), (80, "`█░░░░░░░░░░░░░░░░░░░` 2 % used")],
)
def test_a_share_below_half_a_block_draws_no_block_but_is_not_called_zero(
    webhook, workspace, run, limit, said
):
    set_limit(workspace.project.organization, AI_CREDITS, limit * MICRO)
    open_home(webhook)
    assert said in shown(webhook)


def test_the_usage_of_each_day_is_drawn_with_two_decimals(webhook, run):
    open_home(webhook)
    assert f"{timezone.now():%a %d} ████████████ 2.00```" in shown(webhook)


def test_a_cost_that_is_not_zero_is_never_shown_as_zero(webhook, workspace, task):
    run = TaskRun.objects.create(task=task, message_ts="1.1", request="x", state="running")
    tiny = {"task_run_id": str(run.pk)}
    book(usage_event(workspace.project, "0.000001", properties=tiny))
    open_home(webhook)
    assert "0.00 " not in shown(webhook).replace("&lt;", "<")
    assert "&lt;0.01 credits" in shown(webhook)


def test_a_person_with_a_cap_is_told_what_they_can_use(webhook, workspace, run):
    organization = workspace.project.organization
    set_limit(organization, AI_CREDITS, 8 * MICRO)
    set_cap(organization, AI_CREDITS, "user", 2 * MICRO, subject=workspace.distinct_id("U1"))
    open_home(webhook)
    assert "You can use 0.50 of them." in shown(webhook)


def test_others_see_neither_the_tasks_nor_who_used_most(webhook, run):
    open_home(webhook, "U2")
    said = shown(webhook, "U2")
    assert "Nothing is running for you." in said
    assert "1 task is running for others in this project." in said
    assert "you have used 0.50 of the team's 2.00 credits (25 %)" in said
    assert "tests" not in said
    assert "Who used most" not in said


def test_those_who_may_approve_credits_see_who_used_most(webhook, run, approver, settings):
    open_home(webhook, "U2")
    assert "• <@U1>: 1.50 credits (75 %)\\n• <@U2>: 0.50 credits (25 %)" in shown(webhook, "U2")
    assert buttons(webhook, "U2")["tollgate_top_up"]["url"] == settings.BILLING_URL


def test_many_tasks_with_long_names_fit_into_a_view(webhook, workspace, repository):
    link = "https://acme.slack.com/" + "x" * 470
    for number in range(30):
        task = CodingTask.objects.create(
            project=workspace.project, repository=repository, workspace=workspace,
            channel_id="C1", thread_ts=f"{number}.1", owner_slack_user_id="U1",
            title="<&>" * 66, permalink=link, workflow_id=f"w{number}",
        )  # fmt: skip
        state = "running" if number % 2 else "succeeded"
        TaskRun.objects.create(task=task, message_ts=f"{number}.1", request="x", state=state)
    open_home(webhook)
    assert shown(webhook).count("working") == 10


# --- Who sees it ---------------------------------------------------------------------------------
@pytest.mark.parametrize("user", ["U3", "U404"])
def test_a_guest_or_an_unknown_person_sees_only_a_refusal(webhook, run, user):
    webhook.slack.add_user("U404", is_stranger=True)
    open_home(webhook, user)
    assert "only full members of this workspace" in shown(webhook, user)
    assert "credits" not in shown(webhook, user)


def test_a_person_of_another_organization_sees_nothing_of_this_one(webhook, run, stranger):
    webhook.slack.install("T2", "xoxb-theirs")
    webhook.slack.add_user("U7", team="T2")
    SlackWorkspace.objects.create(
        project=stranger, team_id="T2", bot_user_id="UBOT", bot_token="xoxb-theirs"
    )
    CodingTask.objects.update(owner_slack_user_id="U7")
    open_home(webhook, "U7", "T2")
    said = shown(webhook, "U7")
    assert "you have used 0.00 of the team's 0.00" in said
    assert "tests" not in said
    assert "for others" not in said
    open_home(webhook, "U7", "T1")  # an event that names another workspace
    assert "only full members" in json.dumps(last_published(webhook, "U7"))


def last_published(webhook, user: str) -> Any:
    call = webhook.slack.calls("views.publish")[-1]
    assert call.arguments["user_id"] == user
    return call.arguments["view"]


@pytest.mark.parametrize("fields", [{"tab": "messages"}, {"user": "\0"}, {"tab": None}], ids=str)
def test_other_openings_publish_nothing(webhook, workspace, fields):
    open_home(webhook, **fields)
    assert webhook.slack.calls() == []


def test_an_unknown_workspace_publishes_nothing(webhook, db):
    open_home(webhook, team="T9")
    assert not HomeTab.objects.exists()


# --- How often it is published -------------------------------------------------------------------
def test_slack_is_answered_before_anything_is_published(webhook, workspace):
    open_home(webhook, team="T9")  # the first of a minute, which is noted for staff
    with CaptureQueriesContext(connection) as queries:
        assert webhook.deliver(event(webhook)).status_code == 200
    assert len(queries) <= 6
    assert webhook.slack.calls() == []
    tasks.publish_home(str(HomeTab.objects.get().pk))
    assert [call.method for call in webhook.slack.calls()] == ["users.info", "views.publish"]


def test_openings_that_follow_each_other_are_published_once_and_then_once_more(
    webhook, workspace, monkeypatch
):
    for _ in range(5):
        open_home(webhook)
    assert len(webhook.slack.calls("views.publish")) == 1
    pass_time(monkeypatch, openings.FRESH)
    for _ in range(3):
        tasks.publish_due_homes()
    assert len(webhook.slack.calls("views.publish")) == 2
    assert len(webhook.slack.calls("users.info")) == 1


def test_a_tab_that_is_opened_while_it_is_published_is_published_again(
    webhook, workspace, monkeypatch
):
    webhook.deliver(event(webhook))
    HomeTab.objects.update(due_at=timezone.now() + timedelta(seconds=30))  # another has it
    open_home(webhook)
    assert webhook.slack.calls() == []
    pass_time(monkeypatch, timedelta(seconds=31))  # the other died
    tasks.publish_due_homes()
    assert len(webhook.slack.calls("views.publish")) == 1


def test_an_opening_while_slack_is_called_is_published_after(webhook, workspace, monkeypatch):
    def read_slowly(*arguments: Any) -> Any:
        webhook.deliver(event(webhook))
        return contents.read(*arguments)

    monkeypatch.setattr(publishing, "read", read_slowly)
    open_home(webhook)
    monkeypatch.setattr(publishing, "read", contents.read)
    pass_time(monkeypatch, openings.FRESH)
    for _ in range(2):
        tasks.publish_due_homes()
    assert len(webhook.slack.calls("views.publish")) == 2


def test_what_the_team_used_is_read_once_for_many_readers(webhook, workspace, run, monkeypatch):
    monkeypatch.setattr(team_usage, "REMEMBERED_SECONDS", 60.0)
    open_home(webhook)
    webhook.deliver(event(webhook, "U2"))
    tab = HomeTab.objects.get(user_id="U2")
    with CaptureQueriesContext(connection) as queries:
        tasks.publish_home(str(tab.pk))
    ledger = [each["sql"] for each in queries if "billing_usageevent" in each["sql"]]
    assert ledger == []
    assert len(queries) <= 22
    assert "you have used 0.50 of the team's 2.00" in shown(webhook, "U2")


@pytest.mark.parametrize("method", ["views.publish", "users.info"])
def test_a_rate_limit_is_obeyed_and_the_tab_published_after(
    webhook, workspace, monkeypatch, method
):
    webhook.slack.fail_next(method, "ratelimited", retry_after=30)
    open_home(webhook)
    tasks.publish_due_homes()
    open_home(webhook, "U2")
    assert len(webhook.slack.calls(method)) == 1
    pass_time(monkeypatch, timedelta(seconds=31))
    tasks.publish_due_homes()
    assert shown(webhook)
    assert shown(webhook, "U2")


def test_a_workspace_whose_home_tab_is_off_is_given_up(webhook, workspace):
    webhook.slack.fail_next("views.publish", "not_enabled")
    open_home(webhook)
    tasks.publish_due_homes()
    assert len(webhook.slack.calls("views.publish")) == 1
    assert HomeTab.objects.get().due_at is None


def test_a_tab_that_cannot_be_read_is_tried_again_and_given_up_in_the_end(
    webhook, workspace, monkeypatch
):
    def fail(*_arguments: object) -> None:
        raise RuntimeError("a test")

    with monkeypatch.context() as broken:
        broken.setattr(publishing, "read", fail)
        webhook.deliver(event(webhook))
        for _ in range(20):
            HomeTab.objects.exclude(due_at=None).update(due_at=timezone.now())
            tasks.publish_due_homes()
    assert HomeTab.objects.get().due_at is None
    open_home(webhook)
    assert "Your work" in shown(webhook)


def test_an_erasure_takes_titles_out_of_the_tab(webhook, workspace, run):
    open_home(webhook)
    erase("T1", "U1")
    tasks.publish_due_homes()
    assert "tests" not in shown(webhook)
    assert "[erased]" in shown(webhook)


# --- What it can do ------------------------------------------------------------------------------
def test_the_stop_button_ends_the_run_and_the_tab_shows_it(webhook, run):
    open_home(webhook)
    click(webhook, stop_button.ACTION_ID)
    run.refresh_from_db()
    assert run.state == TaskRun.State.STOPPED
    assert "add &lt;tests&gt;>: stopped, 1.50 credits" in shown(webhook)
    assert buttons(webhook) == {}
    [said] = webhook.slack.bot_messages("C1", run.task.thread_ts)
    assert said["text"].startswith("Stopped, as <@U1> asked.")


def test_another_persons_click_on_the_stop_button_stops_nothing(webhook, run):
    open_home(webhook)
    click(webhook, stop_button.ACTION_ID, by="U2")
    run.refresh_from_db()
    assert run.state == TaskRun.State.RUNNING


def test_a_refused_person_asks_for_credits_in_the_tab(webhook, approver, out_of_credits, temporal):
    webhook.mention(text="<@UBOT> add tests")
    open_home(webhook)
    assert "used its monthly Tollgate AI credits" in shown(webhook)
    click(webhook, forms.ASK)
    assert CreditRequest.objects.get().mention == Mention.objects.get()
    assert "I have asked <#C2>." in shown(webhook)
    assert "You have asked for credits." in shown(webhook)
    assert forms.ASK not in buttons(webhook)
    assert not Notice.objects.filter(kind=Notice.Kind.OFFER, key__startswith="click:").exists()


def test_somebody_elses_click_on_the_ask_button_asks_nothing(
    webhook, approver, out_of_credits, temporal
):
    webhook.mention(text="<@UBOT> add tests")
    open_home(webhook)
    click(webhook, forms.ASK, by="U2")
    assert not CreditRequest.objects.exists()
    assert "Only the person who was refused can ask." in shown(webhook, "U2")


def test_without_a_refused_mention_nothing_can_be_asked_for(webhook, approver, out_of_credits):
    open_home(webhook)
    assert buttons(webhook) == {}


def test_a_click_that_names_no_view_and_no_channel_does_nothing(webhook, workspace):
    payload = captured("repository_chosen")
    payload["actions"] = [{"action_id": forms.ASK, "value": "x"}]
    payload["container"] = {}
    assert webhook.deliver({"payload": payload}, PATH).status_code == 200
    assert not HomeTab.objects.exists()


def test_a_tab_that_nobody_opens_for_long_is_forgotten_and_opens_as_before(webhook, run):
    open_home(webhook)
    HomeTab.objects.update(published_at=timezone.now() - timedelta(days=89))
    tasks.forget_old_rows()
    assert HomeTab.objects.exists()
    HomeTab.objects.update(published_at=timezone.now() - timedelta(days=91), due_at=timezone.now())
    tasks.forget_old_rows()
    assert HomeTab.objects.exists()  # somebody has just opened it
    HomeTab.objects.update(due_at=None)
    tasks.forget_old_rows()
    assert not HomeTab.objects.exists()
    open_home(webhook)
    assert "add &lt;tests&gt;" in shown(webhook)
