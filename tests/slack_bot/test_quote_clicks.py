"""Clicks on the buttons of the question about a run's cost."""

from datetime import timedelta
from typing import Any

import pytest
from django.core import signing
from django.utils import timezone

from coding_tasks.models import CodingTask, TaskRun
from projects.models import SlackWorkspace
from quota.resources import MICRO
from tests.slack_bot.conftest import captured
from tests.slack_bot.test_changes import delete, edit
from tests.slack_bot.test_credit_requests import staff_user
from tests.slack_bot.test_stop_clicks import shown_to
from workflows import tasks
from workflows.models import CostConfirmation, CreditApprover, Mention, Notice, RunQuote
from workflows.quotes import buttons, quoting
from workflows.quotes.buttons import Action

PATH = "/slack/interactivity/"


@pytest.fixture
def run(task: CodingTask) -> TaskRun:
    """A run of U1 whose question offers up to 40 credits, or up to 20."""
    CostConfirmation.objects.create(project=task.project, ask_above_micro=40 * MICRO)
    Mention.objects.update(workflow_id=task.workflow_id)
    run = TaskRun.objects.create(task=task, message_ts=task.thread_ts, request="x")
    quoting.quote(run, timezone.now(), timedelta(days=1))
    tasks.deliver_pending_notices()
    return run


def click(
    webhook, value: str, action: str = Action.ACCEPT, *, user: str = "U1", team: str = "T1"
) -> None:
    payload: dict[str, Any] = captured("repository_chosen")
    payload["actions"] = [{"type": "button", "action_id": str(action), "value": value}]
    payload["user"] |= {"id": user, "team_id": team}
    payload["team"] = {"id": team, "domain": "x"}
    assert webhook.deliver({"payload": payload}, PATH).status_code == 200
    tasks.deliver_pending_notices()


def value_of(run: TaskRun) -> str:
    return buttons.value_for(run.pk)


def decided(run: TaskRun) -> tuple[str, int | None]:
    fresh = TaskRun.objects.select_related("quote").get(pk=run.pk)
    return fresh.quote.state, fresh.accepted_micro


@pytest.mark.parametrize(
    ("action", "expected"),
    [
        (Action.ACCEPT, ("accepted", 40 * MICRO)),
        (Action.SMALLER, ("smaller", 20 * MICRO)),
        (Action.CANCEL, ("cancelled", None)),
    ],
)
def test_the_requesters_first_click_decides(webhook, run, action, expected):
    for _ in range(2):
        click(webhook, value_of(run), action)
    assert decided(run) == expected
    assert shown_to(webhook, "U1") == []
    Notice.objects.update(next_attempt_at=timezone.now())
    tasks.deliver_pending_notices()
    [question] = webhook.slack.bot_messages("C1", run.task.thread_ts)
    assert not question.get("blocks")


def test_another_answer_after_the_first_changes_nothing(webhook, run):
    click(webhook, value_of(run), Action.SMALLER)
    for action in (Action.ACCEPT, Action.CANCEL):
        click(webhook, value_of(run), action)
    assert decided(run) == ("smaller", 20 * MICRO)
    assert shown_to(webhook, "U1") == ["<@U1>, this was accepted already."]


def test_somebody_else_cannot_answer_and_is_told_so_alone_and_once(webhook, run):
    for action in Action:
        click(webhook, value_of(run), action, user="U2")
    assert decided(run) == ("asked", None)
    assert shown_to(webhook, "U2") == [
        "<@U2>, only <@U1> and those who approve credits can decide this."
    ]


def test_a_credit_approver_can_answer(webhook, run, workspace):
    user = staff_user("carl", "add_creditgrant")
    CreditApprover.objects.create(workspace=workspace, slack_user_id="U2", user=user)
    click(webhook, value_of(run), user="U2")
    assert decided(run) == ("accepted", 40 * MICRO)
    assert RunQuote.objects.get().answered_by == "U2"


def test_a_click_after_the_time_limit_does_not_count(webhook, run):
    RunQuote.objects.update(expires_at=timezone.now())
    click(webhook, value_of(run))
    assert decided(run) == ("asked", None)
    assert shown_to(webhook, "U1") == ["<@U1>, this question has expired. Ask again to start."]


@pytest.mark.parametrize("state", ["stopped", "failed", "running"])
def test_a_click_about_a_run_that_no_longer_waits_does_not_count(webhook, run, state):
    TaskRun.objects.update(state=state)
    click(webhook, value_of(run))
    assert decided(run) == ("asked", None)
    assert "has ended already" in shown_to(webhook, "U1")[0]


def test_a_click_after_the_message_was_deleted_does_not_count(webhook, run):
    delete(webhook, {"ts": run.message_ts})
    click(webhook, value_of(run))
    assert decided(run) == ("dropped", None)
    assert Mention.objects.get().state == "stopped"
    assert TaskRun.objects.get().state == "stopped"


def test_a_message_that_becomes_an_aside_before_the_answer_is_withdrawn(webhook, run):
    edit(webhook, {"ts": run.message_ts, "user": "U1"}, "// never mind")
    assert decided(run) == ("dropped", None)
    assert TaskRun.objects.get().state == "stopped"


def test_an_edit_before_the_answer_is_taken(webhook, run):
    edit(webhook, {"ts": run.message_ts, "user": "U1"}, "<@UBOT> only the cart")
    assert TaskRun.objects.get().request == "only the cart"
    assert decided(run) == ("asked", None)


def test_a_click_from_another_workspace_does_not_count(webhook, run, stranger):
    SlackWorkspace.objects.create(
        project=stranger, team_id="T2", bot_user_id="UBOT", bot_token="xoxb-theirs"
    )
    click(webhook, value_of(run), team="T2")
    assert decided(run) == ("asked", None)


def test_a_forged_button_does_nothing(webhook, run):
    for value in (run.pk.hex, signing.Signer(salt="tollgate.stop").sign(run.pk.hex), "", "\0"):
        click(webhook, value)
    assert decided(run) == ("asked", None)
    assert Notice.objects.count() == 1


def test_there_is_no_smaller_number_for_a_run_that_offers_none(webhook, run):
    RunQuote.objects.update(smaller_micro=None)
    click(webhook, value_of(run), Action.SMALLER)
    assert decided(run) == ("asked", None)


def test_an_answer_goes_to_the_workflow_until_it_has_heard(webhook, run, temporal):
    click(webhook, value_of(run))
    tasks.settle_quotes()
    assert "quote_answered" in (temporal.signals(run.task.workflow_id) or [])


def test_a_click_while_temporal_is_away_is_kept(webhook, run, no_temporal):
    click(webhook, value_of(run))
    assert decided(run) == ("accepted", 40 * MICRO)
    tasks.settle_quotes()
    assert RunQuote.objects.get().heard_at is None
