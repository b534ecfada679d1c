"""Clicks on the buttons that start failed or stopped work again, as Slack delivers them."""

from datetime import timedelta
from typing import Any

import pytest
from django.core import signing
from django.utils import timezone

from billing.allowances.limits import set_limit
from coding_tasks.models import CodingTask, TaskParticipant, TaskRun
from projects.models import SlackWorkspace
from quota.resources import AI_CREDITS
from tests.slack_bot.conftest import at_once, captured
from workflows import closing, tasks
from workflows.mention_types import workflow_id
from workflows.messages import run_buttons
from workflows.models import ERASED, FollowUp, Mention, Notice
from workflows.requests import all_that_was_asked
from workflows.results import failure_wording, run_notices

PATH = "/slack/interactivity/"


@pytest.fixture
def failed(webhook, task: CodingTask) -> TaskRun:
    """The failed first run of U1's task, whose thread was told of it."""
    run = TaskRun.objects.create(
        task=task, message_ts=task.thread_ts, request="fix it", state="failed", error="ModelFailed"
    )
    CodingTask.objects.update(state="failed", finished_at=timezone.now())
    closing.close(Mention.objects.get().pk, Mention.State.FAILED, "ModelFailed")
    run_notices.claim_failure(run, "ModelFailed")
    tasks.deliver_pending_notices()
    return run


def payload_of(
    value: str,
    *,
    user: str = "U1",
    team: str = "T1",
    action: str = run_buttons.START_AGAIN,
    ts: str = "",
) -> dict[str, Any]:
    payload: dict[str, Any] = captured("repository_chosen")
    button = {"type": "button", "action_id": action, "value": value}
    payload["actions"] = [button | {"action_ts": ts or f"{timezone.now().timestamp():.6f}"}]
    payload["user"] |= {"id": user, "team_id": team}
    payload["team"] = {"id": team, "domain": "x"}
    return payload


def click(webhook, value: str, **how: str) -> None:
    assert webhook.deliver({"payload": payload_of(value, **how)}, PATH).status_code == 200
    tasks.deliver_pending_notices()


def buttons_of(notice: Notice) -> dict[str, str]:
    """Return the values of a notice's buttons, by their action."""
    elements = [each for block in notice.blocks for each in block.get("elements", [])]
    return {each["action_id"]: each["value"] for each in elements if "action_id" in each}


def retry_value() -> str:
    return buttons_of(Notice.objects.get(kind="failure"))[run_buttons.START_AGAIN]


def shown_to(webhook, user: str) -> list[str]:
    shown = webhook.slack.ephemeral_messages("C1")
    return [each["text"] for each in shown if each["visible_to"] == user]


def clicks() -> list[Mention]:
    return list(Mention.objects.filter(is_click=True))


def test_the_owners_click_starts_the_same_request_again(webhook, failed, temporal):
    click(webhook, retry_value())
    [again] = clicks()
    asked = Mention.objects.get(is_click=False)
    assert (again.state, again.takes_up, again.repeats) == ("started", asked, failed)
    assert all_that_was_asked(again) == all_that_was_asked(asked)
    assert temporal.has(workflow_id("T1", "C1", again.ts))


def test_the_button_goes_and_the_message_says_who_used_it(webhook, failed):
    click(webhook, retry_value())
    notice = Notice.objects.get(kind="failure")
    assert buttons_of(notice) == {}
    Notice.objects.update(next_attempt_at=timezone.now())
    tasks.deliver_pending_notices()
    [shown] = webhook.slack.bot_messages("C1", failed.task.thread_ts)
    assert shown["blocks"][-1]["elements"][0]["text"] == "<@U1> started this again."
    assert failure_wording.sentence("ModelFailed") in shown["text"]


def test_many_clicks_start_it_once_and_say_so_to_the_person_alone(webhook, failed):
    value = retry_value()
    for _ in range(3):
        click(webhook, value)
    assert len(clicks()) == 1
    assert shown_to(webhook, "U1") == [
        "<@U1>, this was started again already, or it is too old for that."
    ]


def test_one_click_that_is_delivered_again_says_nothing(webhook, failed):
    value = retry_value()
    for _ in range(3):
        click(webhook, value, ts="1900000000.000001")
    assert len(clicks()) == 1
    assert shown_to(webhook, "U1") == []


@pytest.mark.django_db(transaction=True)
def test_clicks_at_once_start_it_once(webhook, failed):
    value = retry_value()
    form = "application/x-www-form-urlencoded"
    each = [
        webhook.slack.signed(
            PATH, {"payload": payload_of(value, ts=f"190000000{number}.000001")}, content_type=form
        )
        for number in range(4)
    ]
    assert at_once(each) == [200] * 4
    assert len(clicks()) == 1


def test_a_reply_that_was_first_leaves_the_click_nothing_to_start(webhook, failed):
    value = retry_value()
    webhook.reply("please try again", failed.task.thread_ts)
    click(webhook, value)
    assert clicks() == []
    assert len(shown_to(webhook, "U1")) == 1
    assert Mention.objects.count() == 2


def test_a_click_that_was_first_leaves_the_reply_to_the_work_it_started(webhook, failed):
    click(webhook, retry_value())
    webhook.reply("please try again", failed.task.thread_ts)
    assert Mention.objects.count() == 2
    assert FollowUp.objects.get().text == "please try again"


def test_another_persons_click_starts_nothing_and_is_answered_to_them_alone_once(webhook, failed):
    for _ in range(2):
        click(webhook, retry_value(), user="U2")
    assert clicks() == []
    assert shown_to(webhook, "U2") == [
        "<@U2>, only <@U1>, who asked for this work, can decide what happens next here."
    ]
    assert retry_value()


def test_a_click_from_another_customers_workspace_starts_nothing(webhook, failed, stranger):
    SlackWorkspace.objects.create(
        project=stranger, team_id="T2", bot_user_id="UBOT", bot_token="xoxb-theirs"
    )
    before = Notice.objects.count()
    click(webhook, retry_value(), team="T2")
    assert clicks() == []
    assert Notice.objects.count() == before


def test_a_forged_button_starts_nothing(webhook, failed):
    other = signing.Signer(salt="tollgate.stop").sign(failed.pk.hex)
    for value in (failed.pk.hex, other, "", "\0", ":"):
        click(webhook, value)
    assert clicks() == []


def test_a_click_without_credits_is_denied_as_a_mention_is(webhook, failed):
    value = retry_value()
    set_limit(failed.task.project.organization, AI_CREDITS, 0)
    click(webhook, value)
    [again] = clicks()
    assert again.state == "refused"
    assert Notice.objects.filter(kind="denial", mention=again).count() == 1


def test_a_run_that_did_not_fail_is_not_started_again(webhook, failed):
    value = retry_value()
    for state in ("succeeded", "running", "paused"):
        TaskRun.objects.update(state=state)
        click(webhook, value)
    assert clicks() == []


def test_what_was_erased_or_is_too_old_is_not_started_again(webhook, failed):
    value = retry_value()
    TaskRun.objects.update(request=ERASED)
    click(webhook, value)
    TaskRun.objects.update(request="x", created_at=timezone.now() - timedelta(days=46))
    click(webhook, value)
    TaskRun.objects.update(created_at=timezone.now())
    Mention.objects.update(text=ERASED)
    click(webhook, value)
    assert clicks() == []


def test_a_failed_follow_up_is_the_next_message_of_its_open_task(webhook, failed, temporal):
    Mention.objects.update(state="answered")
    CodingTask.objects.update(state="active", finished_at=None)
    reply = webhook.reply("and the tests", failed.task.thread_ts)
    FollowUp.objects.update(state="handled")
    run = TaskRun.objects.create(
        task=failed.task, message_ts=reply["ts"], request="and the tests", state="failed"
    )
    Notice.objects.all().delete()
    run_notices.claim_failure(run, "ModelFailed")
    value = retry_value()
    for _ in range(2):
        click(webhook, value)
    [again] = clicks()
    assert again.state == "forwarded"
    follow_up = FollowUp.objects.get(ts=again.ts)
    assert (follow_up.text, follow_up.workflow_id) == ("and the tests", failed.task.workflow_id)
    assert len(temporal.signals(failed.task.workflow_id)) == 2


def test_a_mention_that_failed_without_a_run_is_started_again(webhook, workspace, temporal):
    message = webhook.mention()
    mention = Mention.objects.get()
    closing.close(mention.pk, Mention.State.FAILED, "no repository was chosen")
    value = run_buttons.start_mention_again(mention.pk)["value"]
    for _ in range(2):
        click(webhook, value)
    [again] = clicks()
    assert (again.takes_up, again.thread_ts, again.state) == (mention, message["ts"], "started")


# --- After a stop --------------------------------------------------------------------------------
@pytest.fixture
def stopped(webhook, task: CodingTask) -> TaskRun:
    """A run of U1 that U1 stopped."""
    run = TaskRun.objects.create(
        task=task, message_ts=task.thread_ts, request="fix it", state="running"
    )
    webhook.reply("stop", task.thread_ts)
    tasks.deliver_pending_notices()
    run.refresh_from_db()
    assert run.state == "stopped"
    return run


def test_a_stop_offers_to_go_on_and_to_start_again(webhook, stopped):
    shown = buttons_of(Notice.objects.get(kind="stop"))
    assert set(shown) == {run_buttons.GO_ON, run_buttons.START_AGAIN}


def test_work_that_was_stopped_before_it_had_a_run_can_only_start_again(webhook, workspace):
    message = webhook.mention()
    webhook.reply("stop", message["ts"])
    assert set(buttons_of(Notice.objects.get(kind="stop"))) == {run_buttons.START_AGAIN}
    click(webhook, buttons_of(Notice.objects.get(kind="stop"))[run_buttons.START_AGAIN])
    assert [each.state for each in clicks()] == ["started"]


def test_a_stop_that_stopped_nothing_offers_nothing(webhook, failed):
    webhook.reply("stop", failed.task.thread_ts)
    assert Notice.objects.get(kind="stop").blocks == []


@pytest.mark.parametrize("first", [run_buttons.GO_ON, run_buttons.START_AGAIN])
def test_one_click_on_either_button_counts(webhook, stopped, first):
    shown = buttons_of(Notice.objects.get(kind="stop"))
    for action in (first, run_buttons.GO_ON, run_buttons.START_AGAIN):
        click(webhook, shown[action], action=action)
    [again] = clicks()
    assert (again.goes_on, again.repeats) == (first == run_buttons.GO_ON, stopped)


@pytest.mark.parametrize("text", ["continue", "Please go on!", "<@UBOT> weiter", "continue that"])
def test_words_go_on_with_stopped_work(webhook, stopped, temporal, text):
    post = webhook.slack.post(text, thread_ts=stopped.task.thread_ts)
    webhook.deliver(webhook.slack.event(post, "app_mention" if "UBOT" in text else "message"))
    mention = Mention.objects.get(ts=post["ts"])
    assert (mention.goes_on, mention.repeats, mention.state) == (True, stopped, "started")
    assert temporal.has(workflow_id("T1", "C1", post["ts"]))


def test_words_of_somebody_else_continue_nothing(webhook, stopped):
    webhook.reply("continue", stopped.task.thread_ts, user="U2")
    webhook.mention(text="<@UBOT> continue", thread_ts=stopped.task.thread_ts, user="U2")
    assert not Mention.objects.filter(goes_on=True).exists()


def test_other_words_start_nothing_after_a_stop(webhook, stopped):
    before = Mention.objects.count()
    webhook.reply("why did you continue?", stopped.task.thread_ts)
    assert Mention.objects.count() == before


def test_words_after_a_click_are_the_next_message(webhook, stopped):
    shown = buttons_of(Notice.objects.get(kind="stop"))
    click(webhook, shown[run_buttons.GO_ON], action=run_buttons.GO_ON)
    webhook.reply("continue", stopped.task.thread_ts)
    assert Mention.objects.filter(goes_on=True).count() == 1
    assert FollowUp.objects.get().text == "continue"


def test_going_on_asks_for_the_same_again_after_its_author_was_removed_from_the_task(
    webhook, task, temporal
):
    since = timezone.now() - timedelta(minutes=1)
    TaskParticipant.objects.create(task=task, slack_user_id="U2", added_by="U1", added_at=since)
    reply = webhook.reply("and the tests", task.thread_ts, user="U2")
    FollowUp.objects.update(state="handled")
    TaskRun.objects.create(
        task=task,
        message_ts=reply["ts"],
        request="and the tests",
        state="running",
        author_slack_user_id="U2",
    )
    webhook.reply("stop", task.thread_ts, user="U2")
    tasks.deliver_pending_notices()
    TaskParticipant.objects.update(removed_at=timezone.now())
    value = buttons_of(Notice.objects.get(kind="stop"))[run_buttons.GO_ON]
    click(webhook, value, user="U2", action=run_buttons.GO_ON)
    [again] = clicks()
    assert (again.state, all_that_was_asked(again)) == ("started", "and the tests")


def test_words_that_failed_to_go_on_are_started_again_with_the_same_run(webhook, task, temporal):
    reply = webhook.reply("and the tests", task.thread_ts)
    FollowUp.objects.update(state="handled")
    run = TaskRun.objects.create(
        task=task, message_ts=reply["ts"], request="and the tests", state="running"
    )
    webhook.reply("stop", task.thread_ts)
    asked = Mention.objects.get(ts=webhook.reply("continue", task.thread_ts)["ts"])
    assert asked.repeats == run
    closing.close(asked.pk, Mention.State.FAILED, "terminated")
    click(webhook, run_buttons.start_mention_again(asked.pk)["value"])
    [again] = clicks()
    assert (again.state, again.repeats, again.goes_on) == ("started", run, True)


def test_going_on_after_a_failure_is_refused(webhook, failed):
    click(webhook, retry_value(), action=run_buttons.GO_ON)
    assert clicks() == []


def test_a_reply_after_a_denial_still_goes_on_with_the_stopped_work(webhook, stopped):
    organization = stopped.task.project.organization
    set_limit(organization, AI_CREDITS, 0)
    shown = buttons_of(Notice.objects.get(kind="stop"))
    click(webhook, shown[run_buttons.GO_ON], action=run_buttons.GO_ON)
    [denied] = clicks()
    assert denied.state == "refused"
    set_limit(organization, AI_CREDITS, None)
    reply = webhook.reply("now?", stopped.task.thread_ts)
    again = Mention.objects.get(ts=reply["ts"])
    assert (again.takes_up, again.repeats, again.goes_on) == (denied, stopped, True)
