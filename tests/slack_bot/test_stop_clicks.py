"""A click on the stop button of a run's progress stops it as the word "stop" does."""

from typing import Any

import pytest
from django.core import signing
from django.utils import timezone

from billing.allowances.limits import set_limit
from coding_tasks.models import CodingTask, TaskRun
from coding_tasks.runs import TIME_LIMIT
from projects.authentication.credentials import mint_run_token
from projects.models import OAuthAccessToken, SlackWorkspace
from quota.resources import AI_CREDITS
from tests.slack_bot.conftest import captured
from workflows import tasks
from workflows.models import FollowUp, Mention, Notice
from workflows.progress import stop_button

PATH = "/slack/interactivity/"
USED = "<@U1>, this work has already ended, so there is nothing to stop."


@pytest.fixture
def run(task: CodingTask) -> TaskRun:
    """A run of U1 at work, with a token."""
    run = TaskRun.objects.create(
        task=task,
        message_ts=task.thread_ts,
        request="x",
        state="running",
        started_at=timezone.now(),
    )
    mint_run_token(task.project, run.pk, [task.product], TIME_LIMIT, distinct_id=task.distinct_id)
    return run


def click(webhook, value: str, *, user: str = "U1", team: str = "T1") -> None:
    payload: dict[str, Any] = captured("repository_chosen")
    button = {"type": "button", "action_id": stop_button.ACTION_ID, "value": value}
    payload["actions"] = [button | {"action_ts": f"{timezone.now().timestamp():.6f}"}]
    payload["user"] |= {"id": user, "team_id": team}
    payload["team"] = {"id": team, "domain": "x"}
    assert webhook.deliver({"payload": payload}, PATH).status_code == 200
    tasks.deliver_pending_notices()


def value_of(run: TaskRun) -> str:
    return stop_button.value_for(str(run.pk))


def said(webhook, run: TaskRun) -> list[str]:
    return [each["text"] for each in webhook.slack.bot_messages("C1", run.task.thread_ts)]


def state_of(run: TaskRun) -> str:
    return TaskRun.objects.get(pk=run.pk).state


def shown_to(webhook, user: str) -> list[str]:
    shown = webhook.slack.ephemeral_messages("C1")
    return [each["text"] for each in shown if each["visible_to"] == user]


def test_the_owners_click_ends_the_run_its_token_and_its_mention(webhook, run):
    click(webhook, value_of(run))
    assert state_of(run) == "stopped"
    assert CodingTask.objects.get().state == "stopped"
    assert Mention.objects.get().state == "stopped"
    assert not OAuthAccessToken.objects.filter(task_run_id=run.pk).exists()
    [stopped] = said(webhook, run)
    assert stopped.startswith("Stopped, as <@U1> asked. It has used no Tollgate AI credits.")


def test_a_second_click_says_to_the_person_alone_that_the_work_has_ended(webhook, run):
    for _ in range(3):
        click(webhook, value_of(run))
    assert len(said(webhook, run)) == 1
    assert shown_to(webhook, "U1") == [USED]


@pytest.mark.parametrize("state", ["succeeded", "failed"])
def test_the_button_of_a_run_that_has_ended_does_not_stop_the_next_one(webhook, run, state):
    TaskRun.objects.update(state=state)
    following = TaskRun.objects.create(
        task=run.task, message_ts="9.9", request="y", state="running"
    )
    click(webhook, value_of(run))
    assert state_of(following) == "running"
    assert Mention.objects.get().state == "started"
    assert (said(webhook, run), shown_to(webhook, "U1")) == ([], [USED])


def test_another_persons_click_stops_nothing_and_is_answered_to_them_alone(webhook, run):
    for _ in range(2):
        click(webhook, value_of(run), user="U2")
    assert state_of(run) == "running"
    assert said(webhook, run) == []
    assert shown_to(webhook, "U2") == ["<@U2>, only <@U1> can stop the work in this thread."]


@pytest.mark.case("U9")
def test_a_click_from_another_workspace_stops_nothing(webhook, run, stranger):
    SlackWorkspace.objects.create(
        project=stranger, team_id="T2", bot_user_id="UBOT", bot_token="xoxb-theirs"
    )
    click(webhook, value_of(run), team="T2")
    assert state_of(run) == "running"
    assert not Notice.objects.exists()


def test_a_forged_button_stops_nothing(webhook, run):
    forged = [run.pk.hex, signing.Signer(salt="tollgate.publish").sign(run.pk.hex), "", "\0", ":"]
    for value in forged:
        click(webhook, value)
    assert state_of(run) == "running"
    assert not Notice.objects.exists()


def test_a_click_without_a_signature_is_refused(webhook, client, run):
    assert client.post(PATH, {"payload": "{}"}).status_code == 401
    assert state_of(run) == "running"


def test_messages_that_wait_behind_the_run_end_with_it(webhook, run):
    webhook.reply("and the tests?", run.task.thread_ts)
    click(webhook, value_of(run))
    assert FollowUp.objects.get().state == FollowUp.State.DROPPED


def test_a_click_needs_no_credits(webhook, run):
    set_limit(run.task.project.organization, AI_CREDITS, 0)
    click(webhook, value_of(run))
    assert state_of(run) == "stopped"


def test_a_paused_run_can_be_stopped(webhook, run):
    TaskRun.objects.update(state="paused")
    click(webhook, value_of(run))
    assert state_of(run) == "stopped"
