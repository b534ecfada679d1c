"""The owner of a task lets others join it, and removes them, with buttons in the thread."""

from typing import Any

import pytest
from django.core import signing
from django.utils import timezone

from billing.allowances.caps import set_cap
from billing.ingestion import ledger
from coding_tasks.models import CodingTask, TaskParticipant, TaskRun
from projects.models import SlackWorkspace
from quota.resources import AI_CREDITS, MICRO
from tests.billing.world import usage_event
from tests.slack_bot.conftest import captured
from workflows import participants, tasks
from workflows.models import FollowUp, Mention, Notice
from workflows.participants import LET_JOIN, REMOVE, Place

PATH = "/slack/interactivity/"


def click(
    webhook,
    task: CodingTask,
    action: str = LET_JOIN,
    *,
    about: str = "U2",
    user: str = "U1",
    team: str = "T1",
    value: str | None = None,
) -> None:
    payload: dict[str, Any] = captured("repository_chosen")
    value = participants.value_for(Place(task.pk, about)) if value is None else value
    button = {"type": "button", "action_id": action, "value": value}
    payload["actions"] = [button | {"action_ts": f"{timezone.now().timestamp():.6f}"}]
    payload["user"] |= {"id": user, "team_id": team}
    payload["team"] = {"id": team, "domain": "x"}
    assert webhook.deliver({"payload": payload}, PATH).status_code == 200
    tasks.deliver_pending_notices()


def said(webhook, task: CodingTask) -> list[str]:
    tasks.deliver_pending_notices()
    return [each["text"] for each in webhook.slack.bot_messages("C1", task.thread_ts)]


def shown_to(webhook, user: str) -> list[str]:
    shown = webhook.slack.ephemeral_messages("C1")
    return [each["text"] for each in shown if each["visible_to"] == user]


def buttons_in(webhook, task: CodingTask) -> list[str]:
    shown = webhook.slack.bot_messages("C1", task.thread_ts)
    blocks = [block for message in shown for block in message.get("blocks", [])]
    return [each["action_id"] for block in blocks for each in block.get("elements", [])]


def joined() -> list[tuple[str, str]]:
    present = TaskParticipant.objects.filter(removed_at=None)
    return list(present.values_list("slack_user_id", "added_by"))


def test_somebody_else_is_told_once_whose_task_it_is_with_a_button_for_the_owner(webhook, task):
    for _ in range(2):
        webhook.mention(text="<@UBOT> do this", user="U2", thread_ts=task.thread_ts)
    [told] = said(webhook, task)
    assert told.startswith("<@U2>, this thread's task belongs to <@U1>")
    assert told.endswith("or <@U1> can let you join.")
    assert buttons_in(webhook, task) == [LET_JOIN]
    assert not FollowUp.objects.exists()


def test_the_owners_click_lets_them_join_and_takes_up_what_they_had_asked(webhook, task, temporal):
    asked = webhook.mention(text="<@UBOT> do this", user="U2", thread_ts=task.thread_ts)
    said(webhook, task)
    click(webhook, task)
    assert joined() == [("U2", "U1")]
    follow_up = FollowUp.objects.get()
    assert (follow_up.ts, follow_up.user_id, follow_up.state) == (asked["ts"], "U2", "signalled")
    assert Mention.objects.get(ts=asked["ts"]).state == Mention.State.FORWARDED
    assert temporal.signals(task.workflow_id) == ["follow_up"]


def test_their_mentions_and_replies_are_follow_ups_from_then_on(webhook, task):
    click(webhook, task)
    webhook.reply("and this", task.thread_ts, user="U2")
    webhook.mention(text="<@UBOT> and that", user="U2", thread_ts=task.thread_ts)
    assert list(FollowUp.objects.order_by("ts").values_list("user_id", "addressed")) == [
        ("U2", False),
        ("U2", True),
    ]


def test_the_message_in_the_thread_says_who_may_write_and_offers_the_opposite(webhook, task, slack):
    webhook.mention(text="<@UBOT> do this", user="U2", thread_ts=task.thread_ts)
    said(webhook, task)
    click(webhook, task)
    shown = Notice.objects.get(kind=Notice.Kind.NOT_YOUR_TASK)
    assert shown.text.startswith("<@U2> can write to this task too, as <@U1> decided.")
    assert [each["action_id"] for each in shown.blocks[-1]["elements"]] == [REMOVE]
    click(webhook, task, REMOVE)
    shown.refresh_from_db()
    assert shown.text == "<@U2> can no longer write to this task, as <@U1> decided."
    assert [each["action_id"] for each in shown.blocks[-1]["elements"]] == [LET_JOIN]
    assert len(slack.bot_messages("C1", task.thread_ts)) == 1


def test_what_they_said_to_people_before_they_joined_is_not_for_the_bot(webhook, task):
    webhook.mention(text="<@UBOT> do this", user="U2", thread_ts=task.thread_ts)
    early = webhook.reply("oh, can you let me in?", task.thread_ts, user="U2")
    click(webhook, task)
    assert webhook.deliver(webhook.slack.event(early, "message")).status_code == 200
    webhook.reply("and this", task.thread_ts, user="U2")
    texts = FollowUp.objects.order_by("ts").values_list("text", flat=True)
    assert list(texts) == ["<@UBOT> do this", "and this"]


def test_a_second_click_changes_nothing(webhook, task):
    webhook.mention(text="<@UBOT> do this", user="U2", thread_ts=task.thread_ts)
    for _ in range(3):
        click(webhook, task)
    assert TaskParticipant.objects.count() == 1
    assert FollowUp.objects.count() == 1


def test_a_redelivered_mention_of_somebody_who_joined_is_one_follow_up(webhook, task):
    asked = webhook.mention(text="<@UBOT> do this", user="U2", thread_ts=task.thread_ts)
    click(webhook, task)
    for kind in ("app_mention", "message"):
        assert webhook.deliver(webhook.slack.event(asked, kind)).status_code == 200
    assert FollowUp.objects.count() == 1


def test_a_removed_participant_is_ignored_and_what_waits_is_dropped(webhook, task):
    click(webhook, task)
    webhook.reply("and this", task.thread_ts, user="U2")
    click(webhook, task, REMOVE)
    assert FollowUp.objects.get().state == FollowUp.State.DROPPED
    webhook.reply("and that", task.thread_ts, user="U2")
    webhook.mention(text="<@UBOT> hello?", user="U2", thread_ts=task.thread_ts)
    assert FollowUp.objects.count() == 1
    [row] = TaskParticipant.objects.all()
    assert (row.added_by, row.removed_by) == ("U1", "U1")
    assert row.removed_at is not None


def test_a_removed_participant_can_join_again_and_both_times_are_on_record(webhook, task):
    for action in (LET_JOIN, REMOVE, REMOVE, LET_JOIN):
        click(webhook, task, action)
    assert TaskParticipant.objects.count() == 2
    assert joined() == [("U2", "U1")]


@pytest.mark.parametrize("user", ["U2", "U3"])
def test_a_strangers_click_lets_nobody_join_and_is_answered_to_them_alone(webhook, task, user):
    for action in (LET_JOIN, REMOVE, LET_JOIN):
        click(webhook, task, action, user=user)
    assert joined() == []
    assert said(webhook, task) == []
    assert shown_to(webhook, user) == [f"<@{user}>, only <@U1> can decide who writes to this task."]


def test_a_participant_lets_nobody_else_join(webhook, task):
    click(webhook, task)
    click(webhook, task, about="U3", user="U2")
    assert joined() == [("U2", "U1")]


def test_joining_one_thread_opens_no_other(webhook, task, temporal):
    click(webhook, task)
    elsewhere = webhook.mention(user="U1")
    CodingTask.objects.create(
        project=task.project,
        repository=task.repository,
        workspace=task.workspace,
        channel_id="C1",
        thread_ts=elsewhere["ts"],
        owner_slack_user_id="U1",
        title="Other",
        workflow_id=f"mention-T1-C1-{elsewhere['ts']}",
    )
    webhook.reply("and this", elsewhere["ts"], user="U2")
    assert not FollowUp.objects.exists()


def test_a_click_from_another_workspace_lets_nobody_join(webhook, task, stranger):
    SlackWorkspace.objects.create(
        project=stranger, team_id="T2", bot_user_id="UBOT", bot_token="xoxb-theirs"
    )
    click(webhook, task, team="T2")
    assert joined() == []
    assert not Notice.objects.exists()


def test_a_forged_button_lets_nobody_join(webhook, task):
    plain = f"{task.pk.hex}|U2"
    other = signing.Signer(salt="tollgate.stop").sign(plain)
    for value in (plain, other, "", "\0", "|", ":"):
        click(webhook, task, value=value)
    assert joined() == []
    assert not Notice.objects.exists()


@pytest.mark.parametrize(
    "profile", [{"is_restricted": True}, {"is_stranger": True}, {"deleted": True}]
)
def test_guests_people_of_other_companies_and_deactivated_people_cannot_join(
    webhook, task, slack, profile
):
    slack.add_user("U2", **profile)
    click(webhook, task)
    assert joined() == []
    [told] = shown_to(webhook, "U1")
    assert told.startswith("<@U2> cannot join, because they may not use Tollgate here.")


def test_nobody_joins_while_slack_does_not_say_who_they_are(webhook, task, slack):
    slack.fail_next("users.info", "internal_error")
    click(webhook, task)
    assert joined() == []
    assert shown_to(webhook, "U1") == [
        "I cannot find out from Slack who <@U2> is just now. Please try again in a minute."
    ]
    click(webhook, task)
    assert joined() == [("U2", "U1")]


def test_nobody_joins_a_task_that_has_ended(webhook, task):
    CodingTask.objects.update(state=CodingTask.State.DONE)
    click(webhook, task)
    assert joined() == []
    assert shown_to(webhook, "U1") == ["This task has ended, so nobody can join it any more."]


def test_a_person_without_credits_of_their_own_is_denied_in_anothers_task(webhook, task):
    click(webhook, task)
    organization = task.project.organization
    set_cap(organization, AI_CREDITS, "user", 12 * MICRO)
    ledger.book([usage_event(task.project, distinct_id="slack:T1:U2")])
    webhook.mention(text="<@UBOT> do this", user="U2", thread_ts=task.thread_ts)
    assert not FollowUp.objects.exists()
    assert "You have used your share" in said(webhook, task)[-1]
    webhook.reply("me too", task.thread_ts, user="U1")
    assert FollowUp.objects.get().state == "signalled"


def test_a_participant_can_stop_the_work(webhook, task):
    run = TaskRun.objects.create(task=task, message_ts=task.thread_ts, request="x", state="running")
    webhook.reply("stop", task.thread_ts, user="U2")
    assert TaskRun.objects.get().state == "running"
    click(webhook, task)
    webhook.reply("stop", task.thread_ts, user="U2")
    run.refresh_from_db()
    assert run.state == "stopped"
    assert set(Mention.objects.values_list("state", flat=True)) == {"stopped"}
